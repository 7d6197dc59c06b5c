//! The pool's buffers for what comes in, for those who read sockets.

use super::Pool;
use super::handle::LeaseHandle;
use crate::manager::{ByteBuffers, Session};
use std::ops::Deref;

/// A hold on the pool for one socket, whose count it shares with no other thread.
pub(crate) struct Inbound<S: Session>(LeaseHandle<S>);

impl<S: Session> Pool<S> {
    pub(crate) fn inbound(&self) -> Inbound<S> {
        Inbound(self.handle.for_lease())
    }
}

impl<S: Session> Deref for Inbound<S> {
    type Target = ByteBuffers;

    fn deref(&self) -> &ByteBuffers {
        &self.0.slab.resident().room.bytes
    }
}
