//! What the slab promises, one test for each promise.
#![cfg(not(pool_loom))]

use crossbeam_utils::CachePadded;
use std::collections::{HashMap, HashSet};
use std::hint;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;
use ws_manager_pool::slab::{Cursor, Fate, Full, Key, Options, Owner, Resident, Slab, Stale, State, Vacated};

/// A note pad: its own clean-up is given by the test.
struct Pads {
    clean: fn(&Vacated<'_, Self>) -> Fate,
    freed: AtomicUsize,
}

impl Resident for Pads {
    type Glance = AtomicUsize;
    type Shared = u64;
    type Owned = Vec<u64>;
    type Residue = u64;

    fn clean(&self, vacated: Vacated<'_, Self>) -> (Fate, u64) {
        let fate = (self.clean)(&vacated);
        vacated.owned.clear();
        (fate, std::mem::take(vacated.shared))
    }

    fn freed(&self, _: u64) {
        self.freed.fetch_add(1, Ordering::Relaxed);
    }
}

fn slab(capacity: usize) -> Slab<Pads> {
    slab_of(Options::with_capacity(capacity), |_| Fate::Free)
}

fn slab_of(options: Options, clean: fn(&Vacated<'_, Pads>) -> Fate) -> Slab<Pads> {
    Slab::new(Pads { clean, freed: AtomicUsize::new(0) }, options)
}

fn open(slab: &Slab<Pads>, value: u64) -> Owner {
    reopen(slab, slab.claim().expect("a slot is free"), value)
}

fn reopen(slab: &Slab<Pads>, key: Key, value: u64) -> Owner {
    let mut starting = slab.begin(key).expect("it is reserved");
    starting.value(|_, shared, owned| {
        assert_eq!((*shared, owned.len()), (0, 0), "the slot was cleaned");
        *shared = value;
        owned.push(value);
    });
    starting.publish()
}

fn close(slab: &Slab<Pads>, key: Key) {
    drop(slab.close(key).expect("it is live"));
}

fn read(slab: &Slab<Pads>, key: Key) -> Result<u64, Stale> {
    slab.pin(key, |_, shared| *shared)
}

fn assert_stale(slab: &Slab<Pads>, key: Key) {
    assert_eq!(read(slab, key), Err(Stale));
    assert!(!slab.is_live(key));
    assert!(slab.begin(key).is_err() && slab.abort(key).is_err() && slab.close(key).is_err());
}

fn fill(slab: &Slab<Pads>) -> Vec<Key> {
    let keys: Vec<_> = (0..slab.capacity()).map(|n| open(slab, n as u64 + 1).key()).collect();
    assert_eq!(slab.claim(), Err(Full));
    keys
}

#[test]
fn a_stale_key_never_touches_the_next_occupant() {
    let slab = slab(1);
    let mut first = open(&slab, 1);
    close(&slab, first.key());
    let second = open(&slab, 2);
    assert_eq!(first.key().index(), second.key().index());
    assert_stale(&slab, first.key());
    assert_eq!(slab.pin_owned(&mut first, |_, _, _| ()), Err(Stale));
    assert_eq!(read(&slab, second.key()), Ok(2));
}

#[test]
fn a_stale_key_stays_stale_after_its_page_was_freed_and_grown_again() {
    let slab = slab(64);
    let old = fill(&slab);
    old.iter().for_each(|&key| close(&slab, key));
    assert_eq!(slab.shrink(0), 64);
    old.iter().for_each(|&key| assert_stale(&slab, key));
    let new = fill(&slab);
    assert!(new.iter().all(|key| !old.contains(key)));
    old.iter().for_each(|&key| assert_stale(&slab, key));
}

#[test]
fn a_key_of_one_slab_is_stale_in_another() {
    let (here, there) = (slab(100), slab(100));
    let (keys, _others) = (fill(&here), fill(&there));
    keys.iter().for_each(|&key| assert_stale(&there, key));
    keys.iter().for_each(|&key| assert!(here.is_live(key)));
}

#[test]
#[should_panic(expected = "a slab that did not make it")]
fn an_owner_is_refused_by_another_slab() {
    let mut owner = open(&slab(1), 1);
    let other = slab(1);
    open(&other, 2);
    let _never = other.pin_owned(&mut owner, |_, _, _| ());
}

#[test]
fn a_made_up_key_is_stale() {
    let slab = slab(3);
    let key = open(&slab, 1).key();
    for bits in [0, 1, u64::MAX, u64::MAX << 32, key.to_bits() ^ 1, key.to_bits() ^ 1 << 32] {
        assert_stale(&slab, Key::from_bits(bits));
    }
}

#[test]
fn no_key_comes_twice_and_dead_slots_are_replaced() {
    const LIVES: usize = 10_000;
    let slab = slab_of(Options::with_capacity(1).generation_bits(3), |_| Fate::Free);
    let mut seen = HashSet::new();
    let mut lives = HashMap::<u32, usize>::new();
    for _ in 0..LIVES {
        let key = open(&slab, 1).key();
        assert_eq!(slab.claim(), Err(Full), "capacity is 1, not more");
        assert!(seen.insert(key), "{key} came twice");
        *lives.entry(key.index()).or_default() += 1;
        close(&slab, key);
    }
    let (whole, rest) = (LIVES / 7, LIVES % 7);
    assert_eq!(lives.values().filter(|&&lives| lives == 7).count(), whole);
    assert_eq!(slab.census().dead, whole);
    assert_eq!(lives.len(), whole + usize::from(rest > 0));
    assert_eq!(slab.quarantined(), 0);
    seen.iter().for_each(|&key| assert_stale(&slab, key));
}

#[test]
fn a_dead_slot_beyond_the_last_index_is_not_replaced() {
    let slab = slab_of(Options::with_capacity(usize::MAX).generation_bits(3), |_| Fate::Free);
    let mut of_one = 0;
    while of_one < 7 {
        let key = open(&slab, 1).key();
        of_one += usize::from(key.index() == 0);
        close(&slab, key);
    }
    assert_eq!((slab.census().dead, slab.quarantined()), (1, 1));
}

#[test]
fn the_pages_of_dead_slots_are_given_back() {
    let slab = slab_of(Options::with_capacity(1).generation_bits(1), |_| Fate::Free);
    (0..640).for_each(|_| close(&slab, open(&slab, 1).key()));
    assert_eq!(slab.census().dead, 640);
    slab.shrink(0);
    let has_page = |index| slab.glance(index, |_| ()).is_some();
    assert!((0..640).all(|index| !has_page(index)));
    open(&slab, 1);
}

#[test]
fn capacity_is_exact() {
    for capacity in [1, 2, 63, 64, 65, 127, 128, 1_000] {
        let slab = slab(capacity);
        let keys = fill(&slab);
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), capacity);
        assert_eq!(slab.occupied(), capacity);
        close(&slab, keys[capacity / 2]);
        assert_eq!(open(&slab, 1).key().index(), keys[capacity / 2].index());
    }
}

/// Nothing but headers and hints, so that millions fit.
struct Empty;

impl Resident for Empty {
    type Glance = ();
    type Shared = ();
    type Owned = ();
    type Residue = ();

    fn clean(&self, _: Vacated<'_, Self>) -> (Fate, ()) {
        (Fate::Free, ())
    }

    fn freed(&self, (): ()) {}
}

#[test]
fn sixteen_million_slots_are_no_special_case() {
    const CAPACITY: usize = 1 << 24;
    const CLAIMED: usize = 500_000;
    let slab = Slab::new(Empty, Options::with_capacity(CAPACITY));
    let keys: Vec<_> = (0..CLAIMED).map(|_| slab.claim().unwrap()).collect();
    assert_eq!((slab.capacity(), slab.occupied()), (CAPACITY, CLAIMED));
    assert!(keys.iter().enumerate().all(|(n, key)| key.index() as usize / 64 == n / 64), "dense");
    keys.iter().for_each(|&key| drop(slab.abort(key).unwrap()));
    assert_eq!(slab.occupied(), 0);
    assert_eq!(slab.shrink(64), slab.census().void);
    assert_eq!(slab.census().free, 64);
}

#[test]
fn one_of_four_closers_wins() {
    const ROUNDS: u64 = 2_000;
    let slab = slab(1);
    let keys: Vec<_> = (0..ROUNDS).map(|_| AtomicUsize::new(0)).collect();
    let (wins, barrier) = (AtomicUsize::new(0), Barrier::new(4));
    thread::scope(|scope| {
        for thread in 0..4 {
            let (slab, keys, wins, barrier) = (&slab, &keys, &wins, &barrier);
            scope.spawn(move || {
                for (round, mailbox) in keys.iter().enumerate() {
                    if thread == 0 {
                        let key = open(slab, round as u64 + 1).key();
                        mailbox.store(key.to_bits() as usize, Ordering::Relaxed);
                    }
                    barrier.wait();
                    let key = Key::from_bits(mailbox.load(Ordering::Relaxed) as u64);
                    if let Ok(closing) = slab.close(key) {
                        assert_eq!(closing.value(|_, shared| *shared), round as u64 + 1);
                        wins.fetch_add(1, Ordering::Relaxed);
                    }
                    barrier.wait();
                }
            });
        }
    });
    assert_eq!(wins.load(Ordering::Relaxed), ROUNDS as usize);
    assert_eq!(slab.resident().freed.load(Ordering::Relaxed), ROUNDS as usize, "cleaned once each");
}

#[test]
fn a_slot_waits_for_its_last_pin() {
    let slab = slab(1);
    let key = open(&slab, 1).key();
    let seen = slab.pin(key, |_, shared| {
        close(&slab, key);
        assert_eq!(read(&slab, key), Err(Stale), "new pins are refused");
        assert_eq!(slab.claim(), Err(Full), "a running pin keeps the slot");
        assert_eq!(slab.occupied(), 1);
        *shared
    });
    assert_eq!(seen, Ok(1));
    open(&slab, 2);
}

#[test]
fn a_slot_waits_for_its_winner() {
    let slab = slab(1);
    let key = open(&slab, 1).key();
    let mut closing = None;
    slab.pin(key, |_, _| closing = Some(slab.close(key).unwrap())).unwrap();
    assert_eq!(slab.claim(), Err(Full), "the pin has gone, the winner has not");
    assert_eq!(closing.as_ref().unwrap().value(|_, shared| *shared), 1);
    drop(closing);
    open(&slab, 2);
}

#[test]
fn the_clean_up_is_told_whose_thread_it_runs_on() {
    let slab = slab_of(Options::with_capacity(1), |vacated| {
        vacated.glance.store(1 + usize::from(vacated.is_winner), Ordering::Relaxed);
        Fate::Free
    });
    let role = || slab.glance(0, |glance| glance.load(Ordering::Relaxed)).unwrap();
    close(&slab, open(&slab, 1).key());
    assert_eq!(role(), 2);
    let key = open(&slab, 1).key();
    slab.pin(key, |_, _| close(&slab, key)).unwrap();
    assert_eq!(role(), 1);
}

#[test]
fn a_panic_in_the_clean_up_retires_the_slot_and_it_is_replaced() {
    let slab = slab_of(Options::with_capacity(2), |vacated| match *vacated.shared {
        13 => panic!("a clean-up that panics, as the test wants"),
        _ => Fate::Free,
    });
    let (unlucky, other) = (open(&slab, 13).key(), open(&slab, 1).key());
    close(&slab, unlucky);
    assert_eq!((slab.occupied(), slab.census().dead), (1, 1));
    let next = open(&slab, 2).key();
    assert_ne!(next.index(), unlucky.index());
    assert_eq!(slab.claim(), Err(Full));
    assert_stale(&slab, unlucky);
    assert!(slab.is_live(other) && slab.is_live(next));
}

#[test]
fn a_retired_start_is_replaced() {
    let slab = slab(1);
    let key = slab.claim().unwrap();
    slab.begin(key).unwrap().retire();
    assert_stale(&slab, key);
    assert_ne!(open(&slab, 1).key().index(), key.index());
}

#[test]
fn a_start_that_is_given_up_or_panics_stays_reserved() {
    let slab = slab(1);
    let key = slab.claim().unwrap();
    drop(slab.begin(key).unwrap());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        slab.begin(key).unwrap().value(|_, _, _| panic!("a start that panics, as the test wants"));
    }));
    assert!(panicked.is_err());
    slab.begin(key).unwrap().publish();
    assert!(slab.is_live(key));
}

#[test]
fn a_life_that_is_started_at_once_and_given_up_is_cleaned() {
    let slab = slab(1);
    let mut starting = slab.start().unwrap();
    let key = starting.key();
    assert_eq!(slab.occupied(), 1);
    starting.value(|_, shared, _| *shared = 7);
    drop(starting);
    assert_stale(&slab, key);
    assert_eq!(slab.occupied(), 0);
    let mut again = slab.start().unwrap();
    again.value(|_, shared, _| assert_eq!(*shared, 0));
    let key = again.reserve();
    assert!(slab.start().is_err() && slab.claim().is_err(), "it is reserved");
    reopen(&slab, key, 8);
    assert_eq!(read(&slab, key), Ok(8));
}

#[test]
fn a_panic_inside_a_pin_unpins() {
    let slab = slab(1);
    let key = open(&slab, 1).key();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _never: Result<(), _> = slab.pin(key, |_, _| panic!("a reader that panics, as the test wants"));
    }));
    assert!(panicked.is_err() && slab.is_live(key));
    close(&slab, key);
    open(&slab, 2);
}

#[test]
fn a_panic_inside_the_last_pin_of_a_closing_slot_still_cleans() {
    let slab = slab(1);
    let key = open(&slab, 1).key();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _never: Result<(), _> = slab.pin(key, |_, _| {
            close(&slab, key);
            panic!("a reader that panics, as the test wants");
        });
    }));
    assert!(panicked.is_err());
    open(&slab, 2);
}

#[test]
fn a_slot_counts_as_occupied_until_it_is_cleaned() {
    thread_local!(static CLEANED: AtomicUsize = const { AtomicUsize::new(0) });
    let slab = slab_of(Options::with_capacity(1), |_| {
        CLEANED.with(|cleaned| cleaned.fetch_add(1, Ordering::Relaxed));
        Fate::Free
    });
    let closing = slab.close(open(&slab, 1).key()).unwrap();
    assert_eq!((slab.occupied(), slab.census().closing), (1, 1));
    drop(closing);
    assert_eq!(CLEANED.with(|cleaned| cleaned.load(Ordering::Relaxed)), 1);
    assert_eq!((slab.occupied(), slab.census().free), (0, 1));
}

#[test]
fn an_heir_gets_the_slot_under_the_next_generation() {
    let slab = slab_of(Options::with_capacity(1), |vacated| match *vacated.shared {
        1 => Fate::Heir,
        _ => Fate::Free,
    });
    let first = open(&slab, 1).key();
    close(&slab, first);
    assert_eq!(slab.claim(), Err(Full), "it was never free");
    let mut heirs = Vec::new();
    slab.walk(&mut Cursor::default(), usize::MAX, |_| (), |key, state, ()| heirs.push((key, state)));
    let [(heir, State::Reserved)] = heirs[..] else { panic!("one reservation, not {heirs:?}") };
    assert_eq!(heir.index(), first.index());
    assert_ne!(heir, first);
    assert_stale(&slab, first);
    close(&slab, reopen(&slab, heir, 2).key());
    assert_eq!(slab.occupied(), 0);
    open(&slab, 3);
}

#[test]
fn an_heir_of_a_slot_without_another_life_goes_elsewhere() {
    let slab = slab_of(Options::with_capacity(1).generation_bits(1), |vacated| {
        assert!(!vacated.has_next_life);
        Fate::Heir
    });
    let first = open(&slab, 1).key();
    close(&slab, first);
    assert_eq!((slab.occupied(), slab.census().dead), (0, 1));
    assert_ne!(open(&slab, 2).key().index(), first.index());
}

#[test]
fn a_key_live_throughout_a_walk_is_seen_exactly_once() {
    const SETTLED: usize = 200;
    let slab = slab(1_000);
    let all = fill(&slab);
    // Every fifth stays; the others come and go while the walk is on its way.
    let settled: HashSet<_> = all.iter().copied().step_by(5).collect();
    assert_eq!(settled.len(), SETTLED);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut moving: Vec<_> = all.iter().copied().filter(|key| !settled.contains(key)).collect();
            while !stop.load(Ordering::Relaxed) {
                moving.drain(..).for_each(|key| close(&slab, key));
                slab.shrink(10);
                moving.extend((0..800).map(|_| open(&slab, 7).key()));
            }
        });
        for walk in 0..200 {
            let mut seen = HashMap::<Key, usize>::new();
            let mut cursor = Cursor::default();
            // Batches of other sizes: one frame, some, all.
            let batch = [1, 130, usize::MAX][walk % 3];
            while slab.walk(&mut cursor, batch, |_| (), |key, _, ()| *seen.entry(key).or_default() += 1) {}
            assert!(settled.iter().all(|key| seen.get(key) == Some(&1)));
            assert!(seen.values().all(|&times| times == 1));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_shrink_gives_pages_back_and_the_slab_grows_again() {
    let slab = slab(1_000);
    let keys = fill(&slab);
    let (low, high) = keys.split_at(100);
    high.iter().for_each(|&key| close(&slab, key));
    let before = slab.census();
    let taken = slab.shrink(50);
    let after = slab.census();
    assert!(taken >= 800, "only {taken} slots were taken out");
    assert_eq!((after.void, after.free), (before.void + taken, before.free - taken));
    assert!(after.free >= 50);
    assert!(low.iter().all(|&key| slab.is_live(key)));
    (0..900).for_each(|_| assert!(slab.is_live(open(&slab, 1).key())));
    assert_eq!((slab.claim(), slab.census().void), (Err(Full), before.void));
}

#[test]
fn pages_empty_as_those_that_are_left_after_a_peak_turn_over() {
    let slab = slab(50_000);
    let keys = fill(&slab);
    // One in a hundred stays, wherever it is.
    let (mut left, gone): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.index() % 100 == 37);
    gone.into_iter().for_each(|key| close(&slab, key));
    slab.shrink(0);
    let paged = || slab.census().free + slab.census().occupied();
    assert!(paged() > 10 * left.len(), "they are far apart: {}", paged());
    for key in &mut left {
        close(&slab, *key);
        *key = open(&slab, 1).key();
    }
    slab.shrink(0);
    assert!(paged() <= 2 * left.len(), "{} slots for {}", paged(), left.len());
}

#[test]
fn a_shrink_spares_what_it_is_told_to() {
    let slab = slab(10);
    fill(&slab).into_iter().for_each(|key| close(&slab, key));
    assert_eq!(slab.shrink(1), 0, "ten slots are one page: all or nothing");
    assert_eq!(slab.shrink(0), 10);
    assert_eq!(slab.shrink(0), 0);
    fill(&slab);
}

#[test]
fn hints_of_a_thread_that_went_away_are_found_again() {
    let slab = slab(50);
    let keys = fill(&slab);
    thread::scope(|scope| {
        scope.spawn(|| keys.iter().for_each(|&key| close(&slab, key)));
    });
    close(&slab, open(&slab, 1).key());
    slab.refresh_hints();
    fill(&slab);
}

/// Counts what is made and dropped.
struct Counted;

static MADE: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);

struct Value(Box<u8>);

impl Default for Value {
    fn default() -> Self {
        MADE.fetch_add(1, Ordering::Relaxed);
        Self(Box::new(1))
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        assert_eq!(std::mem::take(&mut *self.0), 1);
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

impl Resident for Counted {
    type Glance = ();
    type Shared = Value;
    type Owned = ();
    type Residue = ();

    fn clean(&self, _: Vacated<'_, Self>) -> (Fate, ()) {
        (Fate::Free, ())
    }

    fn freed(&self, (): ()) {}
}

#[test]
fn every_page_is_dropped_exactly_once() {
    let slab = Slab::new(Counted, Options::with_capacity(640));
    let fill = || -> Vec<_> { (0..640).map(|_| slab.claim().unwrap()).collect() };
    fill().into_iter().for_each(|key| drop(slab.abort(key).unwrap()));
    assert_eq!(MADE.load(Ordering::Relaxed), 640);
    assert_eq!(slab.shrink(0), 640);
    wait_for_drops(640);
    let keys = fill();
    assert_eq!(MADE.load(Ordering::Relaxed), 1_280);
    keys[..400].iter().for_each(|&key| drop(slab.abort(key).unwrap()));
    let taken = slab.shrink(64);
    wait_for_drops(640 + taken);
    drop(slab);
    wait_for_drops(1_280);
}

/// Epochs move on only when threads come by: here by walks over another slab.
fn wait_for_drops(expected: usize) {
    let other = slab(1);
    for _ in 0..1_000_000 {
        if DROPPED.load(Ordering::Relaxed) >= expected {
            break;
        }
        other.walk(&mut Cursor::default(), 1, |_| (), |_, _, ()| ());
        thread::yield_now();
    }
    assert_eq!(DROPPED.load(Ordering::Relaxed), expected);
}

/// Claims and releases on different threads. A permit is a slot whose release has returned, so a
/// claim with a permit must never be refused.
#[test]
fn a_free_slot_is_always_found() {
    // Nearly full, so that claims scan for long; half empty, so that pages go; and as small as it gets.
    Churn::new(4_000, 3, 20_000).run(false);
    Churn::new(192, 150, 5_000).run(true);
    Churn::new(3, 3, 5_000).run(true);
}

/// While one thread scans, another frees a slot behind it and takes the free one before it.
#[test]
fn a_slot_that_slips_past_a_scan_is_found_all_the_same() {
    const ROUNDS: usize = 300;
    // One less than a magazine holds. A magazine of stale hints sends the next hint to the bitmap, so
    // that the mover's claim takes its older hint and not the slot that it freed a moment ago.
    const STALE: usize = 63;
    let slab = slab(20_000);
    // By index, and without a gap.
    let mut held: Vec<_> = (0..20_000).map(|_| slab.claim().unwrap()).collect();
    held.sort_unstable();
    let (low, high) = (0, held.len() - 1);
    let (go, started, mut delay) = (AtomicUsize::new(0), AtomicUsize::new(0), 0_usize);
    let (send, keys) = mpsc::channel();
    thread::scope(|scope| {
        let _go_on = OnDrop(|| go.store(usize::MAX, Ordering::Release));
        let (ask, asked) = mpsc::channel::<usize>();
        let (slab, go, started) = (&slab, &go, &started);
        let scanner = scope.spawn(move || {
            for (round, stale) in asked.iter().enumerate() {
                (0..stale).for_each(|_| send.send(slab.claim().expect("free by the hints")).unwrap());
                while go.load(Ordering::Acquire) <= round {
                    thread::yield_now();
                }
                started.store(round + 1, Ordering::Relaxed);
                send.send(slab.claim().expect("one slot is free at any time")).unwrap();
            }
        });
        for round in 1..=ROUNDS {
            held[1..=STALE].iter().for_each(|&key| drop(slab.abort(key).unwrap()));
            ask.send(STALE).unwrap();
            keys.iter().take(STALE).for_each(|key| held[key.index() as usize] = key);
            drop(slab.abort(held[high]).unwrap());
            go.store(round, Ordering::Release);
            while started.load(Ordering::Relaxed) < round && !scanner.is_finished() {
                thread::yield_now();
            }
            (0..delay).for_each(|_| hint::spin_loop());
            drop(slab.abort(held[low]).unwrap());
            let moved = slab.claim().expect("the scan takes one of two");
            // Aims at the moment just before the scan comes to the higher slot, wherever that is on
            // this machine.
            let is_early = moved.index() as usize == high;
            delay = if is_early { delay * 9 / 8 + 16 } else { delay * 7 / 8 };
            for key in [moved, keys.recv().unwrap()] {
                held[key.index() as usize] = key;
            }
            assert_eq!(slab.claim(), Err(Full), "and the stale hints are used up");
        }
    });
}

/// Two traders release what they are sent, and claim what they released: the hints are in their
/// magazines. The taker only claims, so it finds nothing but by scanning, while a slot behind it comes
/// free and the one before it goes.
struct Churn {
    slab: Slab<Pads>,
    permits: CachePadded<AtomicUsize>,
    most_free: usize,
    /// Of the taker.
    claims: usize,
    is_over: AtomicBool,
}

impl Churn {
    fn new(capacity: usize, most_free: usize, claims: usize) -> Self {
        let permits = CachePadded::new(AtomicUsize::new(0));
        Self { slab: slab(capacity), permits, most_free, claims, is_over: AtomicBool::new(false) }
    }

    fn run(&self, is_shrinking: bool) {
        let held = fill(&self.slab);
        let (to_one, mut one) = mpsc::channel();
        let (to_other, mut other) = mpsc::channel();
        held.chunks(2).for_each(|keys| {
            keys.iter().zip([&to_one, &to_other]).for_each(|(&key, to)| to.send(key).unwrap());
        });
        thread::scope(|scope| {
            scope.spawn(|| self.take(&to_one));
            scope.spawn(|| self.trade(&mut one, &to_other));
            scope.spawn(|| self.trade(&mut other, &to_one));
            while is_shrinking && !self.is_over() {
                self.slab.shrink(0);
                self.slab.refresh_hints();
                thread::yield_now();
            }
        });
        one.try_iter().chain(other.try_iter()).for_each(|key| close(&self.slab, key));
        assert_eq!(self.slab.occupied(), 0);
        fill(&self.slab);
    }

    fn take(&self, to: &mpsc::Sender<Key>) {
        let _end = OnDrop(|| self.is_over.store(true, Ordering::Relaxed));
        for _ in 0..self.claims {
            while !self.is_over() && !self.claim(to) {
                thread::yield_now();
            }
        }
    }

    fn trade(&self, given: &mut mpsc::Receiver<Key>, to: &mpsc::Sender<Key>) {
        let _end = OnDrop(|| self.is_over.store(true, Ordering::Relaxed));
        for turn in 0_usize.. {
            if self.is_over() {
                break;
            }
            if self.permits.load(Ordering::Relaxed) < self.most_free {
                given.try_iter().take(1).for_each(|key| {
                    close(&self.slab, key);
                    self.permits.fetch_add(1, Ordering::Release);
                });
            }
            // The permit that the next claim takes may be the other trader's.
            thread::yield_now();
            if turn.is_multiple_of(2) {
                self.claim(to);
            }
        }
    }

    /// `false`: there was no permit.
    fn claim(&self, to: &mpsc::Sender<Key>) -> bool {
        let take = |permits: usize| permits.checked_sub(1);
        let is_permitted = self.permits.fetch_update(Ordering::Acquire, Ordering::Relaxed, take).is_ok();
        if is_permitted {
            let key = self.slab.claim().expect("a permit says that a slot is free");
            to.send(reopen(&self.slab, key, 1).key()).unwrap();
        }
        is_permitted
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// Also when the thread panics, so that the others end.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
