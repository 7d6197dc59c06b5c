//! `serve` over real sockets.

mod ends;
mod flow;
mod support;
