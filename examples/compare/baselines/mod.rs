//! Servers as they are usually written, one file for each WebSocket library: the socket is split, a
//! writer task takes messages from an `mpsc(64)`, and [`hub`] is the application layer around it.

pub(crate) mod axum;
pub(crate) mod fastwebsockets;
mod hub;
pub(crate) mod tokio_tungstenite;

/// The library's buffers for each connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Buffers {
    /// As they come.
    Default,
    /// 4 KiB to read and 4 KiB to write.
    Tuned,
}
