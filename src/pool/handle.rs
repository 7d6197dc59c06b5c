//! How handles, reservations and leases hold on to the pool without sharing a hot reference count.
//!
//! A count that every lease changes is a line that every core fights for (a life was 7 times slower
//! on two cores). So the core hangs on a few *stripes*, each with a count and a cache line of its
//! own, and a lease counts on its thread's stripe.

use super::core::Core;
use crate::manager::Session;
use crate::slab::thread_number;
use std::ops::Deref;
use std::sync::Arc;

/// A pool's own handle, cloneable.
pub(super) enum Handle<S: Session> {
    Counted(Arc<Stripes<S>>),
    /// On a pool that is never dropped.
    Leaked(&'static Core<S>),
}

/// The handle of a lease, or of anything else that begins and ends with a connection.
pub(super) enum LeaseHandle<S: Session> {
    /// Counts on one stripe.
    Counted(Arc<Stripe<S>>),
    /// On a pool that is never dropped.
    Leaked(&'static Core<S>),
}

/// The core, and all places where leases count.
pub(super) struct Stripes<S: Session> {
    core: Arc<Core<S>>,
    all: Box<[Arc<Stripe<S>>]>,
}

/// Allocated alone and at this alignment, the count in front of it shares its line with nothing.
#[repr(align(128))]
pub(super) struct Stripe<S: Session> {
    core: Arc<Core<S>>,
}

const MAX_STRIPES: usize = 64;

impl<S: Session> Handle<S> {
    pub(super) fn new(core: Arc<Core<S>>) -> Self {
        let cores =
            if cfg!(pool_loom) { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
        let count = (2 * cores).next_power_of_two().min(MAX_STRIPES);
        let stripe = || Arc::new(Stripe { core: core.clone() });
        let all = std::iter::repeat_with(stripe).take(count).collect();
        Self::Counted(Arc::new(Stripes { core, all }))
    }

    /// A handle for one lease or reservation, which counts on this thread's stripe only.
    #[inline]
    pub(super) fn for_lease(&self) -> LeaseHandle<S> {
        match self {
            Self::Counted(stripes) => {
                // A power of two.
                let number = thread_number() & (stripes.all.len() - 1);
                LeaseHandle::Counted(stripes.all[number].clone())
            }
            Self::Leaked(core) => LeaseHandle::Leaked(core),
        }
    }

    pub(super) fn leak(self) -> Self {
        let Self::Counted(stripes) = self else { return self };
        let core: &'static Arc<Core<S>> = Box::leak(Box::new(stripes.core.clone()));
        Self::Leaked(core)
    }
}

impl<S: Session> Deref for Handle<S> {
    type Target = Core<S>;

    #[inline]
    fn deref(&self) -> &Core<S> {
        match self {
            Self::Counted(stripes) => &stripes.core,
            Self::Leaked(core) => core,
        }
    }
}

impl<S: Session> Deref for LeaseHandle<S> {
    type Target = Core<S>;

    #[inline]
    fn deref(&self) -> &Core<S> {
        match self {
            Self::Counted(stripe) => &stripe.core,
            Self::Leaked(core) => core,
        }
    }
}

impl<S: Session> Clone for Handle<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Counted(stripes) => Self::Counted(stripes.clone()),
            Self::Leaked(core) => Self::Leaked(core),
        }
    }
}

impl<S: Session> Clone for LeaseHandle<S> {
    #[inline]
    fn clone(&self) -> Self {
        match self {
            Self::Counted(stripe) => Self::Counted(stripe.clone()),
            Self::Leaked(core) => Self::Leaked(core),
        }
    }
}
