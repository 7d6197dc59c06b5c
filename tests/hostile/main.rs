//! Servers on real sockets, and everything that can go wrong around them: the line between a client and its
//! server, files that run out, crowds, panics, a runtime that ends, a clock that jumps. After each: the others
//! were served, nothing is left, the account is equal.

mod calls;
mod line;
mod place;
mod resources;
mod time;
mod wire;
