//! Leased buffers between threads, under loom: each is one holder's, and the limit is exact.
//!
//! ```text
//! RUSTFLAGS="--cfg pool_loom" cargo test --release --features serve --lib models
//! ```
//!
//! The queue of a shelf is `crossbeam`'s and not loom's, so each of its operations is one step here; what
//! it does inside is that library's, and ThreadSanitizer's in `tests/stress.rs`. The thread's own buffer
//! has no race, and loom's threads would share it: these are of another size.
//!
//! Fails with the faults `buffer_given_back_twice` (its bytes are free twice; the buffer itself cannot be
//! given twice, since what is leased is moved and not copied) and `credit_before_buffer` (more memory than
//! the limit: whoever gets the credit finds no buffer yet, and makes one).

#[path = "../../../../tests/loom/race.rs"]
mod race;

use super::*;
use crate::sync::Mutex;
use race::Race;

/// As many buffers as the limit pays for, and what each role holds.
struct World {
    buffers: ByteBuffers,
    limit: usize,
    held: [Mutex<Option<Leased>>; 2],
}

impl World {
    fn new(buffers: usize) -> Self {
        let limit = buffers * KIB;
        Self { buffers: ByteBuffers::new(limit), limit, held: Default::default() }
    }

    /// One that role 0 is to give back, and that another thread took.
    fn with_one_out(buffers: usize) -> Self {
        let world = Self::new(buffers);
        world.lease(0);
        world
    }

    fn lease(&self, role: usize) {
        let leased = self.buffers.lease(1);
        *self.held[role].lock() = leased;
    }

    fn give(&self, role: usize) {
        let held = self.held[role].lock().take();
        if let Some(buffer) = held {
            self.buffers.give(buffer);
        }
    }

    fn is_held(&self, role: usize) -> bool {
        self.held[role].lock().is_some()
    }

    /// What is paid is what is held, by different holders; and no more was made than could be paid.
    fn assert_exact(&self) {
        let place = |role: usize| self.held[role].lock().as_ref().map(|held| held.as_ptr());
        let (one, other) = (place(0), place(1));
        assert!(one.is_none() || one != other, "one buffer, two holders");
        let held = usize::from(one.is_some()) + usize::from(other.is_some());
        let figures = self.buffers.figures();
        assert_eq!(figures.leased_bytes, held * KIB);
        assert!(figures.leased_bytes + figures.spare_bytes <= self.limit, "{figures:?}");
        self.give(0);
        self.give(1);
        assert_eq!(self.buffers.figures().leased_bytes, 0);
        let all: Vec<_> = std::iter::from_fn(|| self.buffers.lease(1)).collect();
        assert_eq!(all.len() * KIB, self.limit, "to the last byte");
        all.into_iter().for_each(|buffer| self.buffers.give(buffer));
    }
}

#[test]
fn what_one_gives_back_another_leases() {
    Race {
        name: "give, lease of the last",
        world: || World::with_one_out(1),
        roles: [|world| world.give(0), |world| world.lease(1)],
        afterwards: |world| {
            if !world.is_held(1) {
                world.lease(1);
                assert!(world.is_held(1), "refused, and nobody has it");
            }
            world.assert_exact();
        },
        bounds: &[Some(1), Some(2), Some(3), None],
        floor: 40,
    }
    .run();
}

#[test]
fn two_leases_of_the_last_buffer_have_one_winner() {
    Race {
        name: "lease, lease of the last",
        world: || {
            let world = World::with_one_out(1);
            world.give(0);
            world
        },
        roles: [|world| world.lease(0), |world| world.lease(1)],
        afterwards: |world| {
            assert_ne!(world.is_held(0), world.is_held(1));
            world.assert_exact();
        },
        bounds: &[Some(1), Some(2), Some(3), None],
        floor: 7,
    }
    .run();
}

#[test]
fn two_that_lease_and_give_never_hold_the_same() {
    Race {
        name: "turn over, turn over",
        world: || World::with_one_out(2),
        roles: [
            |world| {
                world.give(0);
                world.lease(0);
            },
            |world| {
                world.lease(1);
                world.give(1);
                world.lease(1);
            },
        ],
        afterwards: |world| {
            assert!(world.is_held(0) && world.is_held(1), "there are two");
            world.assert_exact();
        },
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 50,
    }
    .run();
}

#[test]
fn a_trim_takes_no_buffer_that_is_leased() {
    Race {
        name: "trim, give, lease",
        world: || {
            let world = World::with_one_out(2);
            world.lease(1);
            world.give(1);
            world.buffers.trim();
            world
        },
        roles: [|world| world.buffers.trim(), |world| world.give(0), |world| world.lease(1)],
        afterwards: World::assert_exact,
        bounds: &[Some(1), Some(2)],
        floor: 120,
    }
    .run();
}
