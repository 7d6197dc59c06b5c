//! The slab against a plain model: whatever is done in whatever order, both say the same.
#![cfg(not(pool_loom))]

use proptest::prelude::*;
use std::collections::HashMap;
use ws_manager_pool::slab::{
    Census, Cursor, Fate, Full, Key, Options, Owner, Resident, Slab, State, Vacated,
};

struct Numbers;

impl Resident for Numbers {
    type Glance = ();
    type Shared = u64;
    type Owned = u64;
    type Residue = ();

    fn clean(&self, vacated: Vacated<'_, Self>) -> (Fate, ()) {
        (*vacated.shared, *vacated.owned) = (0, 0);
        (Fate::Free, ())
    }

    fn freed(&self, (): ()) {}
}

/// `usize` chooses among all keys that were ever made, so most of them are stale.
#[derive(Clone, Copy, Debug)]
enum Op {
    Claim,
    Start(Way),
    Open(usize),
    GiveUp(usize),
    Abort(usize),
    PinOwned(usize),
    Close(usize),
    CloseWhilePinned(usize),
    Shrink { spare: usize },
    RefreshHints,
    Walk { batch: usize },
}

/// How a life that was started at once goes on.
#[derive(Clone, Copy, Debug)]
enum Way {
    Open,
    Reserve,
    GiveUp,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => Just(Op::Claim),
        2 => Just(Op::Start(Way::Open)),
        1 => Just(Op::Start(Way::Reserve)),
        1 => Just(Op::Start(Way::GiveUp)),
        6 => any::<usize>().prop_map(Op::Open),
        1 => any::<usize>().prop_map(Op::GiveUp),
        2 => any::<usize>().prop_map(Op::Abort),
        2 => any::<usize>().prop_map(Op::PinOwned),
        3 => any::<usize>().prop_map(Op::Close),
        2 => any::<usize>().prop_map(Op::CloseWhilePinned),
        1 => (0..70_usize).prop_map(|spare| Op::Shrink { spare }),
        1 => Just(Op::RefreshHints),
        1 => (1..300_usize).prop_map(|batch| Op::Walk { batch }),
    ]
}

enum Life {
    Reserved,
    Live(Owner),
    Over,
}

impl Life {
    fn is_reserved(&self) -> bool {
        matches!(self, Self::Reserved)
    }

    fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }
}

struct Model {
    slab: Slab<Numbers>,
    capacity: usize,
    lives_of_a_slot: u64,
    /// Every key there ever was, with what became of it.
    keys: Vec<(Key, Life)>,
    /// How many lives of each slot are over.
    ended: HashMap<u32, u64>,
}

impl Model {
    fn new(capacity: usize, generation_bits: u32) -> Self {
        let options = Options::with_capacity(capacity).generation_bits(generation_bits);
        Self {
            slab: Slab::new(Numbers, options),
            capacity,
            lives_of_a_slot: (1 << generation_bits) - 1,
            keys: Vec::new(),
            ended: HashMap::new(),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Claim => self.claim(),
            Op::Start(way) => self.start(way),
            Op::Open(choice) => self.begin(choice, true),
            Op::GiveUp(choice) => self.begin(choice, false),
            Op::Abort(choice) => self.abort(choice),
            Op::PinOwned(choice) => self.pin_owned(choice),
            Op::Close(choice) => self.close(choice, false),
            Op::CloseWhilePinned(choice) => self.close(choice, true),
            Op::Shrink { spare } => self.shrink(spare),
            Op::RefreshHints => self.slab.refresh_hints(),
            Op::Walk { batch } => self.walk(batch),
        }
    }

    fn claim(&mut self) {
        match self.slab.claim() {
            Ok(key) => {
                self.check_new(key);
                self.keys.push((key, Life::Reserved));
            }
            Err(Full) => assert_eq!(self.occupied(), self.capacity),
        }
    }

    fn start(&mut self, way: Way) {
        let Ok(mut starting) = self.slab.start() else {
            assert_eq!(self.occupied(), self.capacity);
            return;
        };
        let key = starting.key();
        self.check_new(key);
        starting.value(|(), shared, owned| assert_eq!((*shared, *owned), (0, 0), "the slot was cleaned"));
        let life = match way {
            Way::Open => {
                starting.value(|(), shared, owned| (*shared, *owned) = (key.to_bits(), key.to_bits()));
                Life::Live(starting.publish())
            }
            Way::Reserve => {
                assert_eq!(starting.reserve(), key);
                Life::Reserved
            }
            Way::GiveUp => {
                starting.value(|(), shared, _| *shared = key.to_bits()); // cleaned by the drop
                drop(starting);
                *self.ended.entry(key.index()).or_default() += 1;
                Life::Over
            }
        };
        self.keys.push((key, life));
    }

    fn check_new(&self, key: Key) {
        assert!(self.occupied() < self.capacity);
        assert!(self.keys.iter().all(|&(other, _)| other != key), "{key} came twice");
        let is_over =
            |(other, life): &(Key, Life)| other.index() != key.index() || matches!(life, Life::Over);
        assert!(self.keys.iter().all(is_over));
    }

    fn begin(&mut self, choice: usize, is_to_open: bool) {
        let slab = &self.slab;
        let Some((key, life)) = choose(&mut self.keys, choice) else { return };
        let starting = slab.begin(*key);
        assert_eq!(starting.is_ok(), life.is_reserved());
        let Ok(mut starting) = starting else { return };
        if is_to_open {
            starting.value(|(), shared, owned| {
                assert_eq!((*shared, *owned), (0, 0), "the slot was cleaned");
                (*shared, *owned) = (key.to_bits(), key.to_bits());
            });
            *life = Life::Live(starting.publish());
        }
    }

    fn abort(&mut self, choice: usize) {
        let Some((key, life)) = choose(&mut self.keys, choice) else { return };
        let aborted = self.slab.abort(*key).map(drop);
        assert_eq!(aborted.is_ok(), life.is_reserved());
        if aborted.is_ok() {
            *life = Life::Over;
            *self.ended.entry(key.index()).or_default() += 1;
        }
    }

    fn pin_owned(&mut self, choice: usize) {
        let Some((key, Life::Live(owner))) = choose(&mut self.keys, choice) else { return };
        let seen = self.slab.pin_owned(owner, |(), shared, owned| (*shared, *owned));
        assert_eq!(seen, Ok((key.to_bits(), key.to_bits())));
    }

    fn close(&mut self, choice: usize, is_pinned: bool) {
        let Some((key, life)) = choose(&mut self.keys, choice) else { return };
        let close = || self.slab.close(*key).map(|closing| closing.value(|(), shared| *shared));
        let closed = if is_pinned && life.is_live() {
            let close_in_pin = |(): &(), shared: &u64| {
                let closed = close();
                assert_eq!(*shared, key.to_bits(), "not cleaned while it is pinned");
                closed
            };
            self.slab.pin(*key, close_in_pin).expect("it is live")
        } else {
            close()
        };
        assert_eq!(closed.ok(), life.is_live().then(|| key.to_bits()));
        if closed.is_ok() {
            *life = Life::Over;
            *self.ended.entry(key.index()).or_default() += 1;
        }
    }

    fn shrink(&mut self, spare: usize) {
        let before = self.slab.census();
        let taken = self.slab.shrink(spare);
        let after = self.slab.census();
        assert!(after.free >= spare.min(before.free));
        assert_eq!((after.free, after.void), (before.free - taken, before.void + taken));
    }

    fn walk(&self, batch: usize) {
        let (mut cursor, mut seen) = (Cursor::default(), Vec::new());
        while self.slab.walk(&mut cursor, batch, |()| (), |key, state, ()| seen.push((key, state))) {}
        let state = |life: &Life| if life.is_live() { State::Live } else { State::Reserved };
        let occupied = self.keys.iter().filter(|(_, life)| !matches!(life, Life::Over));
        let mut expected: Vec<_> = occupied.map(|(key, life)| (*key, state(life))).collect();
        expected.sort_by_key(|&(key, _)| key);
        assert_eq!(seen, expected);
    }

    fn occupied(&self) -> usize {
        self.keys.iter().filter(|(_, life)| !matches!(life, Life::Over)).count()
    }

    fn assert_same(&self) {
        let count = |is: fn(&Life) -> bool| self.keys.iter().filter(|(_, life)| is(life)).count();
        let Census { void, free, reserved, starting, live, closing, dead, .. } = self.slab.census();
        assert_eq!(self.slab.occupied(), self.occupied());
        assert_eq!((reserved, live), (count(Life::is_reserved), count(Life::is_live)));
        assert_eq!((starting, closing), (0, 0));
        assert_eq!(dead, self.ended.values().filter(|&&ended| ended == self.lives_of_a_slot).count());
        assert!(free + reserved + live <= self.capacity);
        assert_eq!((void + free + reserved + live + dead) % 64, 0, "whole frames");
        for (key, life) in &self.keys {
            let seen = self.slab.pin(*key, |(), shared| *shared).ok();
            assert_eq!(seen, life.is_live().then(|| key.to_bits()));
            assert_eq!(self.slab.is_live(*key), life.is_live());
        }
    }
}

fn choose(keys: &mut [(Key, Life)], choice: usize) -> Option<(&Key, &mut Life)> {
    let place = choice.checked_rem(keys.len())?;
    // Half of the time one of the last few, which are more likely to be alive.
    let place = if choice.is_multiple_of(2) { keys.len() - 1 - place % keys.len().min(8) } else { place };
    keys.get_mut(place).map(|(key, life)| (&*key, life))
}

proptest! {
    #[test]
    fn the_slab_does_what_a_plain_model_does(
        capacity in prop_oneof![1..4_usize, 1..=200_usize],
        generation_bits in prop_oneof![2..4_u32, 2..=32_u32],
        ops in proptest::collection::vec(op(), 1..300),
    ) {
        let mut model = Model::new(capacity, generation_bits);
        for op in ops {
            model.apply(op);
            model.assert_same();
        }
        // Whatever happened, the capacity has not changed.
        (model.occupied()..capacity).for_each(|_| model.claim());
        prop_assert_eq!(model.slab.claim(), Err(Full));
    }
}
