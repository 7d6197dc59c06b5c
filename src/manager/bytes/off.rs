//! The stand-in where the pool reads from no socket.

use super::InboundFigures;

#[derive(Debug)]
pub(crate) struct ByteBuffers {
    limit: usize,
}

impl ByteBuffers {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit }
    }

    pub(crate) fn trim(&self) {}

    pub(crate) fn figures(&self) -> InboundFigures {
        InboundFigures { limit: self.limit, ..InboundFigures::default() }
    }
}
