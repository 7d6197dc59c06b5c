//! `serve` over real sockets.

mod ends;
mod flow;
mod keeping;
mod support;
