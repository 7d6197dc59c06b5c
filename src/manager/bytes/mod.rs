//! Buffers for what comes in: leased for as long as bytes of a connection are unread, so that an idle
//! connection has none.

#[cfg(not(feature = "serve"))]
mod off;
#[cfg(feature = "serve")]
mod on;

#[cfg(not(feature = "serve"))]
pub(crate) use off::ByteBuffers;
#[cfg(feature = "engine")]
pub(crate) use on::Scratch;
#[cfg(feature = "serve")]
pub(crate) use on::{ByteBuffers, Leased};

/// The buffers that sockets are read into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct InboundFigures {
    /// Bytes of the buffers that connections have at the moment, because something is unread.
    pub leased_bytes: usize,
    /// Bytes of those that lie ready. The one that each thread reads into is not counted.
    pub spare_bytes: usize,
    /// Bytes that may be leased at a time: [`crate::Config::inbound_pool_bytes`].
    pub limit: usize,
    /// Times that a buffer was refused because of the limit.
    pub exhausted: u64,
}
