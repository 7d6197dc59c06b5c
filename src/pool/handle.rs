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

/// A cloneable handle on the core.
pub(super) enum Handle<S: Session> {
    /// A pool's own handle: all stripes.
    Pool(Arc<[Arc<Stripe<S>>]>),
    /// A lease's handle: one stripe.
    Lease(Arc<Stripe<S>>),
    /// A handle on a pool that is never dropped.
    Leaked(&'static Core<S>),
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
        Self::Pool(std::iter::repeat_with(stripe).take(count).collect())
    }

    /// A handle for one lease or reservation, which counts on this thread's stripe only.
    #[inline]
    pub(super) fn for_lease(&self) -> Self {
        match self {
            Self::Pool(stripes) => Self::Lease(stripes[thread_number() % stripes.len()].clone()),
            Self::Lease(stripe) => Self::Lease(stripe.clone()),
            Self::Leaked(core) => Self::Leaked(core),
        }
    }

    pub(super) fn leak(self) -> Self {
        let core: Arc<Core<S>> = match &self {
            Self::Pool(stripes) => stripes[0].core.clone(),
            Self::Lease(stripe) => stripe.core.clone(),
            Self::Leaked(_) => return self,
        };
        let core: &'static Arc<Core<S>> = Box::leak(Box::new(core));
        Self::Leaked(core)
    }
}

impl<S: Session> Deref for Handle<S> {
    type Target = Core<S>;

    #[inline]
    fn deref(&self) -> &Core<S> {
        match self {
            Self::Pool(stripes) => &stripes[0].core,
            Self::Lease(stripe) => &stripe.core,
            Self::Leaked(core) => core,
        }
    }
}

impl<S: Session> Clone for Handle<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Pool(stripes) => Self::Pool(stripes.clone()),
            Self::Lease(stripe) => Self::Lease(stripe.clone()),
            Self::Leaked(core) => Self::Leaked(core),
        }
    }
}
