//! The only door to atomics, locks and cells: `std` and `parking_lot` in a build, `loom` under
//! `--cfg pool_loom` so that the models in `tests/loom` explore the very code that ships, and `shuttle`
//! where `--cfg pool_shuttle` is added to that, for `models/tests/shuttle.rs`.

#[cfg(not(pool_loom))]
mod door {
    pub(crate) use super::cell::UnsafeCell;
    pub(crate) use arc_swap::ArcSwap;
    pub(crate) use crossbeam_utils::atomic::AtomicCell;
    pub(crate) use parking_lot::{Mutex, MutexGuard};
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };

    /// Waits a little for another thread to go on.
    pub(crate) fn snooze(backoff: &crossbeam_utils::Backoff) {
        backoff.snooze();
    }
}

#[cfg(any(not(pool_loom), pool_shuttle))]
mod cell {
    /// `std::cell::UnsafeCell` in the shape of loom's, so that each access is bracketed.
    #[derive(Debug, Default)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(pool_loom)]
mod door {
    #[cfg(pool_shuttle)]
    pub(crate) use super::cell::UnsafeCell;
    #[cfg(not(pool_shuttle))]
    use loom as model;
    #[cfg(not(pool_shuttle))]
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use model::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use model::sync::{Arc, MutexGuard};
    #[cfg(pool_shuttle)]
    use shuttle as model;

    /// Lets another thread of the model go on.
    pub(crate) fn snooze(_: &crossbeam_utils::Backoff) {
        model::thread::yield_now();
    }

    /// A model's `Mutex` with `parking_lot`'s signatures.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(model::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(model::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a model does not panic under a lock")
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().expect("a model does not panic under a lock")
        }
    }

    /// Stand-in for `crossbeam`'s cell, whose sequence lock loom does not see.
    #[derive(Debug)]
    pub(crate) struct AtomicCell<T>(model::sync::Mutex<T>);

    impl<T: Copy> AtomicCell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(model::sync::Mutex::new(value))
        }

        pub(crate) fn load(&self) -> T {
            *self.0.lock().expect("a model does not panic under a lock")
        }

        pub(crate) fn store(&self, value: T) {
            *self.0.lock().expect("a model does not panic under a lock") = value;
        }
    }

    /// Stand-in: `arc-swap` has no build for loom. A lock is enough for a model in which nothing
    /// depends on how the swap is ordered against anything else.
    #[derive(Debug)]
    pub(crate) struct ArcSwap<T>(model::sync::Mutex<std::sync::Arc<T>>);

    /// `arc_swap::Guard` in its signatures.
    pub(crate) struct Loaded<T>(std::sync::Arc<T>);

    impl<T> std::ops::Deref for Loaded<T> {
        type Target = std::sync::Arc<T>;

        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(value: T) -> Self {
            Self(model::sync::Mutex::new(std::sync::Arc::new(value)))
        }

        pub(crate) fn load(&self) -> Loaded<T> {
            Loaded(self.load_full())
        }

        pub(crate) fn load_full(&self) -> std::sync::Arc<T> {
            self.0.lock().expect("a model does not panic under a lock").clone()
        }

        pub(crate) fn store(&self, value: std::sync::Arc<T>) {
            *self.0.lock().expect("a model does not panic under a lock") = value;
        }
    }
}

pub(crate) use door::*;

/// For statics, which outlive a model and so are not part of it.
pub(crate) use std::sync::atomic::AtomicU32 as StaticAtomicU32;

/// Epochs keep a value page alive while a walk reads it.
#[cfg(not(pool_loom))]
pub(crate) mod epoch {
    use crossbeam_epoch::{Collector, Guard, LocalHandle};
    use std::sync::LazyLock;

    /// Ours alone. A pin may run what was deferred to its collector, and it may do so under a lock: in
    /// the process-wide collector that could be anybody's code, which may call the pool.
    static COLLECTOR: LazyLock<Collector> = LazyLock::new(Collector::new);

    thread_local! {
        static HANDLE: LocalHandle = COLLECTOR.register();
    }

    #[inline]
    pub(crate) fn pin() -> Guard {
        // A thread that is being torn down registers for this one pin.
        HANDLE.try_with(LocalHandle::pin).unwrap_or_else(|_| COLLECTOR.register().pin())
    }
}

/// The real epochs in a model: `crossbeam` has a build for loom. Only one small model can afford it.
#[cfg(all(pool_loom, crossbeam_loom))]
pub(crate) mod epoch {
    use crossbeam_epoch::{Collector, Guard};

    loom::lazy_static! {
        /// Each iteration's own.
        static ref COLLECTOR: Collector = Collector::new();
    }

    pub(crate) fn pin() -> Guard {
        COLLECTOR.register().pin()
    }
}

/// Stand-in: a retired page is never freed inside a model. What the models check is who may take a
/// page out, not when its memory goes.
#[cfg(all(pool_loom, not(crossbeam_loom)))]
pub(crate) mod epoch {
    #[derive(Debug)]
    pub(crate) struct Guard;

    pub(crate) fn pin() -> Guard {
        Guard
    }

    impl Guard {
        // The real one is unsafe as well; callers stay the same.
        #[allow(unsafe_code)]
        pub(crate) unsafe fn defer_unchecked<F: FnOnce() -> R, R>(&self, f: F) {
            std::mem::forget(f);
        }

        pub(crate) fn flush(&self) {}
    }
}
pub(crate) use parking_lot::Mutex as StaticMutex;
