//! Everything at once, on real threads: each verb of a pool, and each of a slab, with nothing to order
//! them but what the crate does itself. Afterwards the account is balanced and everything is zero.
//!
//! The sanitizers run this (`.ci/run asan`, `.ci/run tsan`), so nothing here may order the threads by
//! accident: keys go from thread to thread through relaxed mailboxes, and the run is bounded by the number
//! of operations, not by time.

mod common;

use common::{assert_counts, builder, context};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;
use ws_manager_pool::slab::{Cursor, Fate, Key, Options, Resident, Slab, Vacated};
use ws_manager_pool::{
    AtLimit, Clock, Config, DuplicatePolicy, EndReason, EventData, Lease, ManagerKey, ManualClock, Message,
    OutboundLimits, OverflowPolicy, Pool, Reservation, Run, Scope, Session, SweepPolicy,
    UserExecutionContext, UserId,
};

/// Under Miri, which is some thousand times slower, just enough to pass through each verb.
const OPERATIONS: usize = if cfg!(miri) { 20 } else { 6_000 };

const USERS: [&str; 6] = ["ada", "bob", "eve", "joe", "kim", "lea"];
const THREADS: [&str; 5] = ["thread_1", "thread_2", "thread_3", "thread_4", "thread_5"];
const MAILBOXES: usize = 64;

/// The same numbers each time: what differs from run to run is the threads' timing alone.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// An application's state, whose content belongs to one connection.
#[derive(Default)]
struct Notes(Vec<u8>);

impl Session for Notes {
    fn reset(&mut self) {
        self.0.clear();
    }
}

struct Stage {
    pool: Pool<Notes>,
    hand: ManualClock,
    /// Keys on their way to other threads. Relaxed: a key orders nothing.
    mailboxes: [AtomicU64; MAILBOXES],
}

#[test]
fn every_verb_of_a_pool_at_once_leaves_nothing() {
    let (clock, hand) = Clock::manual();
    let pool = builder("stress", 400)
        .max_managers_per_user(40)
        .duplicates(DuplicatePolicy::Replace)
        .at_limit(AtLimit::EvictOldest)
        .outbound(limits(8))
        .replay_events(16)
        .clock(clock)
        .build()
        .unwrap();
    let stage = Stage { pool, hand, mailboxes: [const { AtomicU64::new(0) }; MAILBOXES] };
    thread::scope(|scope| {
        for number in 0..3 {
            let stage = &stage;
            scope.spawn(move || Connections::new(stage, number).run());
        }
        scope.spawn(|| stage.send());
        scope.spawn(|| stage.run_agents());
        scope.spawn(|| stage.look_after());
    });
    let pool = &stage.pool;
    pool.set_user_limit(&user(&mut Dice(1)), None);
    assert_counts(pool, 0, 0, 0);
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.waiting, snapshot.agents.runs), (0, 0));
    assert_eq!(snapshot.inbound.leased_bytes, 0);
    let tally = &snapshot.ledger.tally;
    assert_eq!(tally.opened, tally.ended);
    assert_eq!(tally.reserved, tally.opened + tally.given_back + tally.expired);
    let delivery = &snapshot.delivery;
    assert_eq!(delivery.accepted, delivery.delivered + delivery.displaced + delivery.unsent);
    let happened = [tally.opened, tally.inherited, delivery.accepted, delivery.delivered];
    assert!(cfg!(miri) || happened.iter().all(|&count| count > 100), "{happened:?}");
    // And it goes on.
    drop(pool.reserve(&context("ada", None)).unwrap().open().unwrap());
    assert_counts(pool, 0, 0, 0);
}

fn limits(messages: usize) -> OutboundLimits {
    OutboundLimits::default().with_messages(messages).with_overflow(OverflowPolicy::DropOldest)
}

fn user(dice: &mut Dice) -> UserId {
    dice.of(&USERS).parse().unwrap()
}

fn somebody(dice: &mut Dice) -> UserExecutionContext {
    let user = *dice.of(&USERS);
    context(user, *dice.of(&THREADS))
}

/// What one thread holds.
struct Connections<'a> {
    stage: &'a Stage,
    dice: Dice,
    places: Vec<Reservation<Notes>>,
    leases: Vec<Lease<Notes>>,
}

impl<'a> Connections<'a> {
    fn new(stage: &'a Stage, number: u64) -> Self {
        Self { stage, dice: Dice(number), places: Vec::new(), leases: Vec::new() }
    }

    fn run(mut self) {
        for turn in 0..OPERATIONS {
            match self.dice.below(12) {
                0..4 => self.reserve(),
                4..7 => self.open(),
                7 => drop(self.some_place()),
                8 => self.wait(),
                9 => self.close(),
                _ => self.work(),
            }
            // A peak, and what it leaves behind, so that pages come and go.
            if turn % 1_500 == 1_499 {
                self.places.clear();
                self.leases.clear();
            }
        }
    }

    fn reserve(&mut self) {
        let context = somebody(&mut self.dice);
        self.places.extend(self.stage.pool.reserve(&context));
    }

    fn wait(&mut self) {
        let mut wait = self.stage.pool.reserve_wait(&somebody(&mut self.dice));
        let mut task = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(place)) = Pin::new(&mut wait).poll(&mut task) {
            self.places.push(place);
        }
    }

    fn some_place(&mut self) -> Option<Reservation<Notes>> {
        let place = self.dice.below(self.places.len().max(1));
        (place < self.places.len()).then(|| self.places.swap_remove(place))
    }

    fn open(&mut self) {
        let Some(Ok(mut lease)) = self.some_place().map(Reservation::open) else { return };
        let fresh = lease.with_session(|notes| std::mem::replace(&mut notes.0, vec![7; 100]).is_empty());
        assert_ne!(fresh, Ok(false), "another connection's notes");
        let mailbox = self.dice.of(&self.stage.mailboxes);
        mailbox.store(lease.key().to_bits(), Ordering::Relaxed);
        self.leases.push(lease);
    }

    fn close(&mut self) {
        let place = self.dice.below(self.leases.len().max(1));
        if place < self.leases.len() {
            let lease = self.leases.swap_remove(place);
            if self.dice.below(2) == 0 {
                // Late: it was evicted, swept or taken over.
                let _ = lease.close(EndReason::Closed);
            }
        }
    }

    /// Errors: the lease is over, as it may be at any time.
    fn work(&mut self) {
        for lease in &mut self.leases {
            let _ = match self.dice.below(8) {
                0 => lease.connected().is_ok(),
                1 => lease.errored().is_ok(),
                2 => lease.received(10).is_ok(),
                3 => lease.with(|manager| manager.queued() > 1_000) == Ok(true),
                4 => lease.with_session(|notes| notes.0.iter().any(|&byte| byte != 7)) == Ok(true),
                5 => lease.begin_run().is_ok(),
                6 => lease.poll_message(&mut Context::from_waker(Waker::noop())).is_ready(),
                _ => lease.next_message().is_ok(),
            };
        }
        if self.dice.below(8) == 0 {
            // Those that are over make room.
            self.leases.retain(Lease::is_live);
        }
    }
}

impl Stage {
    fn mailed(&self, dice: &mut Dice) -> ManagerKey {
        ManagerKey::from_bits(dice.of(&self.mailboxes).load(Ordering::Relaxed))
    }

    fn send(&self) {
        let mut dice = Dice(11);
        for turn in 0..OPERATIONS {
            let message = Message::text(format!("message {turn}"));
            match dice.below(8) {
                0 => drop(self.pool.send_to_user(&user(&mut dice), message)),
                1 => drop(self.pool.send_to_thread(&somebody(&mut dice).isolation_key(), message)),
                2 => {
                    let keys: Vec<_> = (0..5).map(|_| self.mailed(&mut dice)).collect();
                    drop(self.pool.send_many(&keys, message));
                }
                3 if turn % 4 == 0 => drop(self.pool.broadcast(message)),
                _ => drop(self.pool.send(self.mailed(&mut dice), message)),
            }
        }
    }

    fn run_agents(&self) {
        let mut dice = Dice(12);
        let mut runs: Vec<Run<Notes>> = Vec::new();
        for _ in 0..OPERATIONS {
            match dice.below(8) {
                0 => runs.push(self.pool.start_run(&somebody(&mut dice), EventData::NONE)),
                1 if !runs.is_empty() => {
                    let run = runs.swap_remove(dice.below(runs.len()));
                    let _ = run.complete(EventData::NONE);
                }
                2 if runs.len() > 10 => runs.clear(),
                3 => {
                    let key = self.mailed(&mut dice);
                    // Late, or spared.
                    let _ = self.pool.evict_if(key, EndReason::Operator, |manager| manager.queued() == 0);
                }
                4 => {
                    let key = self.mailed(&mut dice);
                    let seen = self.pool.inspect(key, |manager| USERS.contains(&manager.user_id().as_str()));
                    assert_ne!(seen, Some(false));
                }
                5 => drop(self.pool.keys_of(&user(&mut dice))),
                _ => {
                    for run in &mut runs {
                        let _ = run.thinking(EventData::NONE);
                    }
                }
            }
        }
    }

    fn look_after(&self) {
        let mut dice = Dice(13);
        for turn in 0..OPERATIONS / 10 {
            let now = self.pool.clock().now();
            match dice.below(12) {
                0..4 => {
                    self.hand.advance(Duration::from_millis(300));
                    drop(self.pool.maintain(self.pool.clock().now()));
                }
                4 => drop(self.pool.snapshot()),
                5 => drop(self.pool.managers(50)),
                6 => drop(self.pool.check_user(&user(&mut dice))),
                7 => {
                    let policy =
                        *dice.of(&[SweepPolicy::Proactive, SweepPolicy::Emergency, SweepPolicy::Background]);
                    drop(self.pool.sweep(Scope::Pool, policy, now, Duration::from_millis(5)));
                }
                8 => drop(self.pool.shrink_to(Scope::User(&user(&mut dice)), 5)),
                9 => self.reconfigure(turn),
                10 => drop(self.pool.cleanup_manager_by_context(&somebody(&mut dice), EndReason::Operator)),
                _ => self.pool.set_user_limit(&user(&mut dice), Some(20 + turn % 20)),
            }
            let _ = (self.pool.check(), self.pool.last_ends(10));
        }
    }

    fn reconfigure(&self, turn: usize) {
        let mut config = Config::clone(&self.pool.config());
        config.max_managers_per_user = 30 + turn % 10;
        config.outbound = limits(4 + turn % 8);
        self.pool.reconfigure(config).unwrap();
        if turn.is_multiple_of(3) {
            self.pool.rollback_config().unwrap();
        }
        assert!(!self.pool.config_versions().is_empty());
    }
}

/// A slab whose values show who is in them.
struct Marks {
    ended: AtomicUsize,
}

#[derive(Default)]
struct Glance {
    mark: AtomicU64,
    _room: [u64; 8],
}

impl Resident for Marks {
    type Glance = Glance;
    type Shared = u64;
    type Owned = Vec<u64>;
    type Residue = ();

    fn clean(&self, vacated: Vacated<'_, Self>) -> (Fate, ()) {
        vacated.glance.mark.store(0, Ordering::Relaxed);
        *vacated.shared = 0;
        vacated.owned.clear();
        self.ended.fetch_add(1, Ordering::Relaxed);
        (Fate::Free, ())
    }

    fn freed(&self, (): ()) {}
}

/// Here pages go as soon as they are empty, which a pool leaves to its maintenance.
#[test]
fn every_verb_of_a_slab_at_once_leaves_nothing() {
    let slab = Slab::new(Marks { ended: AtomicUsize::new(0) }, Options::with_capacity(300));
    let mailboxes = [const { AtomicU64::new(0) }; MAILBOXES];
    let begun = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (slab, mailboxes, begun) = (&slab, &mailboxes, &begun);
        for number in 1..=2 {
            scope.spawn(move || begun.fetch_add(come_and_go(slab, mailboxes, number), Ordering::Relaxed));
        }
        scope.spawn(move || pin_and_close(slab, mailboxes));
        scope.spawn(move || walk(slab));
        scope.spawn(move || {
            for _ in 0..OPERATIONS / 4 {
                slab.shrink(0);
                slab.refresh_hints();
                thread::yield_now();
            }
        });
    });
    assert_eq!(slab.occupied(), 0);
    assert_eq!(slab.census().occupied(), 0);
    assert_eq!(slab.resident().ended.load(Ordering::Relaxed), begun.load(Ordering::Relaxed));
}

/// The walk is in the middle of a look while everything ends around it. Fails under AddressSanitizer, and
/// Miri, with the faults `page_freed_at_once` and `walk_without_guard`.
#[test]
fn a_page_outlives_the_walk_that_reads_it() {
    let slab = Slab::new(Marks { ended: AtomicUsize::new(0) }, Options::with_capacity(64));
    for _ in 0..if cfg!(miri) { 2 } else { 50 } {
        let owner = slab.start().expect("a slot is free").publish();
        let (is_looking, is_gone) = (AtomicBool::new(false), AtomicBool::new(false));
        let wait_for = |flag: &AtomicBool| {
            while !flag.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                let read = |glance: &Glance| {
                    is_looking.store(true, Ordering::Relaxed);
                    wait_for(&is_gone);
                    glance.mark.load(Ordering::Relaxed)
                };
                slab.walk(&mut Cursor::default(), usize::MAX, read, |_, _, _| {
                    panic!("it was closed meanwhile")
                });
            });
            wait_for(&is_looking);
            drop(slab.close(owner.key()).expect("nobody else closes"));
            assert_eq!(slab.shrink(0), 64);
            (0..8).for_each(|_| assert_eq!(slab.shrink(0), 0)); // the epochs move on, if nobody holds them
            is_gone.store(true, Ordering::Relaxed);
        });
    }
}

/// How many lives it began.
fn come_and_go(slab: &Slab<Marks>, mailboxes: &[AtomicU64], number: u64) -> usize {
    let mut dice = Dice(number);
    let mut begun = 0;
    let mut owners = Vec::new();
    for turn in 0..OPERATIONS * 2 {
        match dice.below(6) {
            0 => {
                let Ok(key) = slab.claim() else { continue };
                begun += 1;
                drop(slab.abort(key).expect("nobody else knows it"));
            }
            1 | 2 => {
                let Ok(mut starting) = slab.start() else { continue };
                begun += 1;
                starting.value(|glance, shared, owned| {
                    assert_eq!((*shared, owned.len()), (0, 0), "the slot was cleaned");
                    glance.mark.store(number, Ordering::Relaxed);
                    *shared = number;
                    owned.push(number);
                });
                let owner = starting.publish();
                dice.of(mailboxes).store(owner.key().to_bits(), Ordering::Relaxed);
                owners.push(owner);
            }
            3 => {
                for owner in &mut owners {
                    // An error: the other thread has closed it.
                    let seen = slab.pin_owned(owner, |_, &shared, owned| (shared, owned.first().copied()));
                    assert!(seen.is_err() || seen == Ok((number, Some(number))));
                }
                owners.retain(|owner| slab.is_live(owner.key()));
            }
            _ if owners.len() > dice.below(200) => {
                let owner = owners.swap_remove(dice.below(owners.len()));
                drop(slab.close(owner.key()));
            }
            _ => {}
        }
        // A peak, and what it leaves behind, so that pages come and go.
        if turn % 300 == 299 {
            owners.drain(..).for_each(|owner| drop(slab.close(owner.key())));
        }
    }
    owners.into_iter().for_each(|owner| drop(slab.close(owner.key())));
    begun
}

fn pin_and_close(slab: &Slab<Marks>, mailboxes: &[AtomicU64]) {
    let mut dice = Dice(21);
    for _ in 0..OPERATIONS * 2 {
        let key = Key::from_bits(dice.of(mailboxes).load(Ordering::Relaxed));
        let is_slow = dice.below(16) == 0;
        let seen = slab.pin(key, |glance, &shared| {
            if is_slow {
                thread::yield_now(); // under a pin, so that others close it meanwhile
            }
            (glance.mark.load(Ordering::Relaxed), shared)
        });
        if let Ok(seen) = seen {
            assert!(matches!(seen, (1, 1) | (2, 2)), "{seen:?}");
        }
        if dice.below(20) == 0
            && let Ok(closing) = slab.close(key)
        {
            assert!(closing.value(|_, &shared| shared) > 0, "not cleaned before its winner lets go");
        }
    }
}

fn walk(slab: &Slab<Marks>) {
    let mut keys = Vec::new();
    for turn in 0..OPERATIONS / 10 {
        let mut looks = 0;
        let mut read = |glance: &Glance| {
            looks += 1;
            if looks % 16 == 0 {
                thread::yield_now(); // under a guard, so that others take the page out meanwhile
            }
            glance.mark.load(Ordering::Relaxed)
        };
        let mut cursor = Cursor::default();
        let batch = [1, 100, usize::MAX][turn % 3];
        keys.clear();
        while slab.walk(&mut cursor, batch, &mut read, |key, _, mark| {
            assert!(mark <= 2);
            keys.push(key);
        }) {}
        for &key in &keys {
            // What a walk found is pinned without anything else that would order it.
            if let Ok(seen) = slab.pin(key, |_, &shared| shared) {
                assert!(seen > 0);
            }
            slab.glance(key.index(), |glance| assert!(glance.mark.load(Ordering::Relaxed) <= 2));
        }
    }
}
