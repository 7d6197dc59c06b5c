//! One body of tests, run on the pool and on its double; and random runs on both, compared step by step.

/// Makes two tests of each promise: one of the pool, one of its double.
macro_rules! on_both {
    ($($promise:ident,)*) => {
        mod on_the_pool {
            $(#[test]
            fn $promise() {
                super::$promise::<crate::support::Real>();
            })*
        }

        mod on_the_double {
            $(#[test]
            fn $promise() {
                super::$promise::<crate::support::Double>();
            })*
        }
    };
}

mod cleaning;
mod client;
mod comparison;
mod delivery;
mod events;
mod places;
mod steps;
mod support;
mod upkeep;
