//! What the slab promises of alarms. Looks are counted, never timed. The races are in `tests/loom/alarm.rs`.
#![cfg(not(pool_loom))]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use ws_manager_pool::slab::{Alarm, Cursor, Fate, Key, Options, Resident, Slab, Vacated};

const SLOTS: usize = 100_000;

/// Slots whose glance is their deadline, 0 for "none".
struct Timed;

impl Resident for Timed {
    type Glance = AtomicU32;
    type Shared = ();
    type Owned = ();
    type Residue = ();

    fn clean(&self, vacated: Vacated<'_, Self>) -> (Fate, ()) {
        vacated.glance.store(0, Ordering::Relaxed);
        (Fate::Free, ())
    }

    fn freed(&self, (): ()) {}
}

fn slab(capacity: usize) -> Slab<Timed> {
    Slab::new(Timed, Options::with_capacity(capacity))
}

fn open(slab: &Slab<Timed>, deadline: u32) -> Key {
    let mut starting = slab.start().expect("a slot is free");
    starting.value(|glance, (), ()| glance.store(deadline, Ordering::Relaxed));
    starting.arm(Alarm::at(deadline));
    starting.publish().key()
}

/// Moves a deadline, and writes no alarm.
fn put_off(slab: &Slab<Timed>, key: Key, deadline: u32) {
    slab.pin(key, |glance, ()| glance.store(deadline, Ordering::Relaxed)).expect("it is live");
}

fn close(slab: &Slab<Timed>, key: Key) {
    drop(slab.close(key).expect("it is live"));
}

/// How many slots were looked at, and whose deadline has come.
fn scan(slab: &Slab<Timed>, now: u32) -> (usize, Vec<Key>) {
    let (mut looks, mut due) = (0, Vec::new());
    let mut cursor = Cursor::default();
    let mut has_more = true;
    while has_more {
        has_more = slab.walk_due(
            &mut cursor,
            4_096,
            now,
            |_, glance| {
                looks += 1;
                match glance.load(Ordering::Relaxed) {
                    0 => (Alarm::NONE, ()),
                    deadline => (Alarm::at(deadline), ()),
                }
            },
            |key, _, ()| due.push(key),
        );
    }
    (looks, due)
}

#[test]
fn a_scan_of_100_000_slots_looks_at_those_only_that_are_due() {
    let slab = slab(SLOTS);
    let deadline = |number| if number % 1_000 == 7 { 10 } else { 1_000 };
    let keys: Vec<_> = (0..SLOTS).map(|number| open(&slab, deadline(number))).collect();
    let mut due: Vec<_> = keys.iter().copied().skip(7).step_by(1_000).collect();
    due.sort_unstable();
    assert_eq!(scan(&slab, 9), (0, vec![]));
    assert_eq!(scan(&slab, 10), (100, due.clone()));
    assert_eq!(scan(&slab, 999), (100, due), "nobody has seen to them, so they stay due");
    let (looks, due) = scan(&slab, 1_000);
    assert_eq!((looks, due.len()), (SLOTS, SLOTS));
}

#[test]
fn activity_sets_no_alarm_and_the_one_that_is_early_costs_a_look() {
    let slab = slab(SLOTS);
    let mut keys: Vec<_> = (0..SLOTS).map(|_| open(&slab, 10)).collect();
    keys.sort_unstable();
    keys.iter().for_each(|&key| put_off(&slab, key, 20));
    put_off(&slab, keys[0], 0);
    assert_eq!(scan(&slab, 10), (2 * SLOTS, vec![]), "a first look, and one to move the alarm");
    assert_eq!(scan(&slab, 19), (0, vec![]));
    let (looks, due) = scan(&slab, 20);
    assert!(looks == SLOTS - 1 && due == keys[1..], "{looks} looks, {} are due", due.len());
}

#[test]
fn a_deadline_that_is_drawn_nearer_is_found() {
    let slab = slab(100);
    let key = open(&slab, 1_000);
    put_off(&slab, key, 10);
    slab.arm(key, Alarm::at(10));
    assert_eq!(scan(&slab, 9), (0, vec![]));
    assert_eq!(scan(&slab, 10), (1, vec![key]));
}

#[test]
fn a_slot_that_nobody_is_in_is_not_looked_at() {
    let slab = slab(1_000);
    let keys: Vec<_> = (0..1_000).map(|_| open(&slab, 10)).collect();
    keys.into_iter().for_each(|key| close(&slab, key));
    assert!(slab.shrink(100) > 500, "some are void");
    assert_eq!(scan(&slab, 10), (0, vec![]));
    assert_eq!(scan(&slab, u32::MAX), (0, vec![]));
    let mut keys: Vec<_> = (0..1_000).map(|_| open(&slab, 20)).collect();
    keys.sort_unstable();
    assert_eq!(scan(&slab, 19), (0, vec![]));
    assert_eq!(scan(&slab, 20), (1_000, keys));
}

#[test]
fn the_next_occupant_of_a_slot_shares_the_alarm_of_the_last() {
    let slab = slab(1);
    close(&slab, open(&slab, 10));
    let key = open(&slab, 20);
    slab.arm(Key::from_bits(u64::from(key.index()) << 32 | 1), Alarm::at(5)); // of a stale owner
    assert_eq!(scan(&slab, 5), (2, vec![]));
    assert_eq!(scan(&slab, 19), (0, vec![]));
    assert_eq!(scan(&slab, 20), (1, vec![key]));
}

#[test]
fn a_slot_that_is_being_started_keeps_the_alarm_that_it_relies_on() {
    let slab = slab(1);
    close(&slab, open(&slab, 10));
    let mut starting = slab.start().expect("it is free");
    starting.arm(Alarm::at(20)); // there is an earlier one
    assert_eq!(scan(&slab, 10), (1, vec![]));
    starting.value(|glance, (), ()| glance.store(20, Ordering::Relaxed));
    let key = starting.publish().key();
    assert_eq!(scan(&slab, 20), (1, vec![key]));
}

/// What the models show of one slot, on real threads and many slots.
#[test]
fn no_deadline_is_lost_while_slots_turn_over_under_two_scans() {
    const OWNED: usize = 150;
    let slab = slab(2 * OWNED + 100);
    let is_over = AtomicBool::new(false);
    let now = AtomicU32::new(1);
    thread::scope(|scope| {
        let scanners = [(); 2].map(|()| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    scan(&slab, now.load(Ordering::Relaxed));
                }
            })
        });
        let owners = [1_u32, 2].map(|owner| {
            let (slab, now) = (&slab, &now);
            scope.spawn(move || {
                let mut random = owner;
                let mut keys: Vec<_> = (0..OWNED).map(|_| open(slab, 1_000_000)).collect();
                for turn in 0..100_000 {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let at = turn % OWNED;
                    let deadline = now.load(Ordering::Relaxed) + 1 + (random >> 24);
                    match random >> 8 & 3 {
                        0 => put_off(slab, keys[at], 1_000_000),
                        1 => {
                            put_off(slab, keys[at], deadline);
                            slab.arm(keys[at], Alarm::at(deadline));
                        }
                        _ => {
                            close(slab, keys[at]);
                            keys[at] = open(slab, deadline);
                        }
                    }
                    if turn % 500 == 0 {
                        slab.shrink(10);
                    }
                    now.fetch_add(u32::from(turn % 8 == 0), Ordering::Relaxed);
                }
                keys
            })
        });
        let owned = owners.map(thread::ScopedJoinHandle::join);
        is_over.store(true, Ordering::Relaxed);
        let mut keys: Vec<_> = owned.into_iter().flat_map(Result::unwrap).collect();
        scanners.into_iter().for_each(|scanner| scanner.join().unwrap());
        keys.sort_unstable();
        assert_eq!(scan(&slab, 1_000_000), (2 * OWNED, keys));
    });
}
