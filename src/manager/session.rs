//! The application's own state of a connection: reused, reset between occupants, and rebuilt when
//! its reset fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The application's own state of one connection, kept in the slot and reused.
///
/// `Default` makes the first one for a slot; from then on [`reset`](Self::reset) prepares it for
/// the next connection, so that buffers and tables need not be allocated again.
///
/// # Contract of `reset`
///
/// - **Goes**: everything that belongs to the last connection. The next user gets this value, so a
///   byte that stays is a byte that leaks to somebody else.
/// - **May stay**: memory without content, such as the capacity of a cleared `Vec`.
/// - **Bounded**: give back a buffer that grew beyond what an ordinary connection needs
///   (`Vec::shrink_to`); the pool keeps as many states as it has slots.
///
/// It runs between two connections, and after a reservation that never became one; never on a
/// sender's thread and never under a lock. It should be short and must not block. If it panics, the value is dropped and replaced by
/// `Default`; if that panics too, the slot is taken out of use and replaced by another.
///
/// ```
/// use ws_manager_pool::manager::Session;
///
/// #[derive(Default)]
/// struct Draft {
///     text: String,
///     edits: u32,
/// }
///
/// impl Session for Draft {
///     fn reset(&mut self) {
///         self.text.clear();
///         self.text.shrink_to(4 * 1024);
///         self.edits = 0;
///     }
/// }
/// ```
pub trait Session: Default + Send + 'static {
    /// Makes the value equal, to any reader, to a new one.
    fn reset(&mut self);
}

/// For applications that keep no state in the pool.
impl Session for () {
    fn reset(&mut self) {}
}

/// The slot's part that only the lease may touch: the application's state and whether it has been
/// used since its last reset.
pub(crate) struct Owned<S: Session>(Option<Kept<S>>);

struct Kept<S> {
    state: S,
    condition: Condition,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// As new. Nobody has had it since its reset.
    Clean,
    /// In the hands of the present occupant.
    Used,
    /// Left by a former occupant: not to be given out before a reset.
    Dirty,
}

/// Neither `reset` nor `Default` gives a state: the slot is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateBroken;

impl<S: Session> Default for Owned<S> {
    fn default() -> Self {
        Self(None)
    }
}

impl<S: Session> Owned<S> {
    /// The present occupant's state. What a former occupant left is reset first.
    ///
    /// # Errors
    ///
    /// [`StateBroken`] if `Default` panics. No state is kept then; a later call tries again.
    pub(crate) fn prepare(&mut self) -> Result<&mut S, StateBroken> {
        let is_dirty = self.0.as_ref().is_some_and(|kept| kept.condition == Condition::Dirty);
        if is_dirty && !fault!("state_of_the_last_occupant") {
            self.reset();
        }
        let kept = self.kept()?;
        kept.condition = Condition::Used;
        Ok(&mut kept.state)
    }

    /// The occupant is gone, its state is to be reset before anybody sees it. Runs no user code.
    pub(crate) fn mark_dirty(&mut self) {
        if let Some(kept) = &mut self.0
            && kept.condition == Condition::Used
        {
            kept.condition = Condition::Dirty;
        }
    }

    /// Resets what the occupant left, here and now.
    ///
    /// # Errors
    ///
    /// [`StateBroken`] if `reset` panics and `Default` after it.
    pub(crate) fn reset_now(&mut self) -> Result<(), StateBroken> {
        if self.0.as_ref().is_some_and(|kept| kept.condition != Condition::Clean) {
            self.reset();
            self.kept()?;
        }
        Ok(())
    }

    fn kept(&mut self) -> Result<&mut Kept<S>, StateBroken> {
        if self.0.is_none() {
            let state = contain(S::default).ok_or(StateBroken)?;
            self.0 = Some(Kept { state, condition: Condition::Clean });
        }
        self.0.as_mut().ok_or(StateBroken)
    }

    /// Leaves a clean state, or none if `reset` panicked.
    fn reset(&mut self) {
        let Some(kept) = &mut self.0 else { return };
        kept.condition = Condition::Clean;
        if contain(|| kept.state.reset()).is_none()
            && let Some(broken) = self.0.take()
        {
            discard(broken.state);
        }
    }
}

/// A page of slots is freed as one: a state whose drop panics must not stop the others' drops.
impl<S: Session> Drop for Owned<S> {
    fn drop(&mut self) {
        if let Some(kept) = self.0.take() {
            discard(kept.state);
        }
    }
}

/// Drops a value whose drop is foreign code and may panic.
pub(super) fn discard<T>(value: T) {
    let _ = contain(|| drop(value));
}

/// Runs foreign code; `None` if it panicked.
///
/// Unwind safety is the caller's: whatever the code was working on is discarded after a panic.
pub(crate) fn contain<R>(code: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(value) => Some(value),
        Err(panic) => {
            // A panic's own payload may panic on drop. The second payload is leaked: there is no end
            // to this otherwise.
            if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
                std::mem::forget(second);
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::panic::panic_any;

    thread_local! {
        static MADE: Cell<u32> = const { Cell::new(0) };
        static RESETS: Cell<u32> = const { Cell::new(0) };
        static DEFAULT_PANICS: Cell<bool> = const { Cell::new(false) };
        static RESET_PANICS: Cell<bool> = const { Cell::new(false) };
        static DROP_PANICS: Cell<bool> = const { Cell::new(false) };
    }

    /// Fails where the test says so, and counts what is called.
    struct Fickle {
        note: &'static str,
    }

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("the panic's payload panics");
        }
    }

    impl Default for Fickle {
        fn default() -> Self {
            assert!(!DEFAULT_PANICS.get(), "default panics");
            MADE.set(MADE.get() + 1);
            Self { note: "" }
        }
    }

    impl Session for Fickle {
        fn reset(&mut self) {
            RESETS.set(RESETS.get() + 1);
            if RESET_PANICS.get() {
                panic_any(PanicsOnDrop);
            }
            self.note = "";
        }
    }

    impl Drop for Fickle {
        fn drop(&mut self) {
            assert!(!DROP_PANICS.get(), "drop panics");
        }
    }

    fn used(note: &'static str) -> Owned<Fickle> {
        let mut owned = Owned::<Fickle>::default();
        owned.prepare().unwrap().note = note;
        owned
    }

    #[test]
    fn the_same_occupant_finds_its_state_again() {
        let mut owned = used("mine");
        assert_eq!(owned.prepare().unwrap().note, "mine");
        assert_eq!((MADE.get(), RESETS.get()), (1, 0));
    }

    #[test]
    fn the_next_occupant_gets_the_same_state_reset() {
        let mut owned = used("mine");
        owned.mark_dirty();
        assert_eq!(owned.prepare().unwrap().note, "");
        assert_eq!((MADE.get(), RESETS.get()), (1, 1), "reused, not made again");
    }

    #[test]
    fn a_state_is_reset_once_between_two_occupants_and_not_at_all_if_unused() {
        let mut owned = used("mine");
        owned.mark_dirty();
        owned.reset_now().unwrap();
        owned.mark_dirty();
        owned.reset_now().unwrap();
        owned.prepare().unwrap();
        assert_eq!((MADE.get(), RESETS.get()), (1, 1));
    }

    #[test]
    fn a_reset_that_panics_costs_the_state_and_nothing_else() {
        let mut owned = used("mine");
        owned.mark_dirty();
        RESET_PANICS.set(true);
        DROP_PANICS.set(true);
        assert_eq!(owned.prepare().unwrap().note, "");
        DROP_PANICS.set(false);
        assert_eq!(MADE.get(), 2, "dropped and rebuilt by Default");

        owned.mark_dirty();
        assert_eq!(owned.reset_now(), Ok(()));
        assert_eq!(MADE.get(), 3);
    }

    #[test]
    fn a_state_that_can_not_be_made_is_broken_until_it_can() {
        DEFAULT_PANICS.set(true);
        let mut owned = Owned::<Fickle>::default();
        assert!(owned.prepare().is_err());
        DEFAULT_PANICS.set(false);
        owned.prepare().unwrap().note = "mine";

        owned.mark_dirty();
        RESET_PANICS.set(true);
        DEFAULT_PANICS.set(true);
        assert_eq!(owned.reset_now(), Err(StateBroken));
        assert!(owned.prepare().is_err());
        DEFAULT_PANICS.set(false);
        assert_eq!(owned.prepare().unwrap().note, "");
    }

    #[test]
    fn the_slots_drop_survives_the_states() {
        let owned = used("mine");
        DROP_PANICS.set(true);
        drop(owned);
        DROP_PANICS.set(false);
    }
}
