//! Nothing: all of this package is in its tests.
