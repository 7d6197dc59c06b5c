//! The pool against a plain model: whatever is done in whatever order, both say the same, and the
//! account is balanced after each step.

mod common;

use common::{assert_counts, builder, context};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;
use ws_manager_pool::{
    Clock, DuplicatePolicy, EndReason, Late, Lease, ManagerKey, ManualClock, Message, OpenError, Pool,
    Reservation, ReserveError, SendOutcome, UserId,
};

const USERS: [&str; 3] = ["a", "a:b", "b"];
const THREADS: [&str; 2] = ["thread_x", "thread_y"];
const CAPACITY: usize = 4;
const PER_USER: usize = 2;

/// `user` and `thread` are places in the lists above; the other numbers choose, modulo their number,
/// among the seats or leases that there are.
#[derive(Clone, Copy, Debug)]
enum Op {
    Reserve { user: usize, thread: usize },
    Open(usize),
    DropReservation(usize),
    ForgetReservation(usize),
    Drop(usize),
    Close(usize),
    Evict(usize),
    Leak(usize),
    TouchOver(usize),
    HalfADeadlinePasses,
    Maintain,
    SendToThread { user: usize, thread: usize },
    SendToUser { user: usize },
    Read(usize),
    SetUserLimit { user: usize, max_managers: Option<usize> },
}

fn op() -> impl Strategy<Value = Op> {
    let (user, thread) = (0..USERS.len(), 0..THREADS.len());
    prop_oneof![
        8 => (user.clone(), thread.clone()).prop_map(|(user, thread)| Op::Reserve { user, thread }),
        8 => any::<usize>().prop_map(Op::Open),
        2 => any::<usize>().prop_map(Op::DropReservation),
        1 => any::<usize>().prop_map(Op::ForgetReservation),
        2 => any::<usize>().prop_map(Op::Drop),
        1 => any::<usize>().prop_map(Op::Close),
        1 => any::<usize>().prop_map(Op::Evict),
        1 => any::<usize>().prop_map(Op::Leak),
        1 => any::<usize>().prop_map(Op::TouchOver),
        2 => Just(Op::HalfADeadlinePasses),
        1 => Just(Op::Maintain),
        4 => (user.clone(), thread).prop_map(|(user, thread)| Op::SendToThread { user, thread }),
        1 => user.clone().prop_map(|user| Op::SendToUser { user }),
        2 => any::<usize>().prop_map(Op::Read),
        1 => (user, proptest::option::of(0..4_usize))
            .prop_map(|(user, max_managers)| Op::SetUserLimit { user, max_managers }),
    ]
}

/// Counts seats and leases from 0, in the order in which they came.
type Number = usize;

struct Seat {
    user: usize,
    thread: usize,
    /// The lease whose place it takes, as long as that lives: then it holds no place of its own.
    claims: Option<Number>,
    deadline: u64,
    is_over: bool,
    real: Option<Reservation>,
}

struct Connection {
    user: usize,
    thread: usize,
    is_live: bool,
    queue: Vec<u64>,
    key: ManagerKey,
    /// `None` once it was leaked.
    real: Option<Lease>,
}

struct Model {
    pool: Pool,
    hand: ManualClock,
    policy: DuplicatePolicy,
    half_a_deadline: Duration,
    /// In halves of a deadline.
    now: u64,
    seats: Vec<Seat>,
    connections: Vec<Connection>,
    limits: BTreeMap<usize, usize>,
    sent: u64,
}

impl Model {
    fn new(policy: DuplicatePolicy) -> Self {
        static POOLS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = POOLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (clock, hand) = Clock::manual();
        let pool: Pool = builder(&format!("model-{number}"), CAPACITY)
            .max_managers_per_user(PER_USER)
            .duplicates(policy)
            .clock(clock)
            .build()
            .unwrap();
        let half_a_deadline = pool.config().reservation_deadline / 2;
        Self {
            pool,
            hand,
            policy,
            half_a_deadline,
            now: 0,
            seats: Vec::new(),
            connections: Vec::new(),
            limits: BTreeMap::new(),
            sent: 0,
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Reserve { user, thread } => self.reserve(user, thread),
            Op::Open(at) => self.on_seat(at, Self::open),
            Op::DropReservation(at) => self.on_seat(at, |model, seat| {
                drop(model.seats[seat].real.take());
                model.seats[seat].is_over = true;
            }),
            Op::ForgetReservation(at) => {
                self.on_seat(at, |model, seat| mem::forget(model.seats[seat].real.take()));
            }
            Op::Drop(at) => self.on_lease(at, |model, lease| {
                drop(model.connections[lease].real.take());
                model.end(lease);
            }),
            Op::Close(at) => self.on_lease(at, |model, lease| {
                let Some(real) = model.connections[lease].real.take() else { return };
                let expected = if model.connections[lease].is_live { Ok(()) } else { Err(Late) };
                assert_eq!(real.close(EndReason::Closed), expected);
                model.end(lease);
            }),
            Op::Evict(at) => self.on_connection(at, |model, lease| {
                let expected = if model.connections[lease].is_live { Ok(()) } else { Err(Late) };
                assert_eq!(model.pool.evict(model.connections[lease].key, EndReason::Operator), expected);
                model.end(lease);
            }),
            Op::Leak(at) => {
                self.on_lease(at, |model, lease| mem::forget(model.connections[lease].real.take()))
            }
            Op::TouchOver(at) => self.on_connection(at, Self::touch_over),
            Op::HalfADeadlinePasses => {
                self.hand.advance(self.half_a_deadline);
                self.now += 1;
            }
            Op::Maintain => {
                let expired = self.expire();
                assert_eq!(self.pool.maintain(self.pool.clock().now()).expired, expired);
            }
            Op::SendToThread { user, thread } => self.send(user, Some(thread)),
            Op::SendToUser { user } => self.send(user, None),
            Op::Read(at) => self.on_lease(at, Self::read),
            Op::SetUserLimit { user, max_managers } => {
                self.pool.set_user_limit(&UserId::new(USERS[user]).unwrap(), max_managers);
                match max_managers {
                    Some(max_managers) => drop(self.limits.insert(user, max_managers)),
                    None => drop(self.limits.remove(&user)),
                }
            }
        }
    }

    fn reserve(&mut self, user: usize, thread: usize) {
        let real = self.pool.reserve(&context(USERS[user], THREADS[thread]));
        let mut expected = self.admit(user, thread);
        let is_full = matches!(expected, Err(ReserveError::UserFull { .. } | ReserveError::PoolFull { .. }));
        if is_full && self.expire() > 0 {
            expected = self.admit(user, thread);
        }
        match (real, expected) {
            (Ok(real), Ok(claims)) => {
                let deadline = self.now + 2;
                self.seats.push(Seat { user, thread, claims, deadline, is_over: false, real: Some(real) });
            }
            (Err(real), Err(expected)) => assert_eq!(real, expected),
            (real, expected) => panic!("the pool says {real:?}, the model {expected:?}"),
        }
    }

    /// Whether there is a place, or a lease to be taken over.
    fn admit(&self, user: usize, thread: usize) -> Result<Option<Number>, ReserveError> {
        let twin = self.twin(user, thread);
        if self.policy == DuplicatePolicy::Reject && twin.is_some() {
            return Err(ReserveError::ThreadInUse);
        }
        let max_managers = self.limits.get(&user).copied().unwrap_or(PER_USER);
        let refusal = if self.count(user) >= max_managers {
            ReserveError::UserFull { max_managers }
        } else if self.places() >= CAPACITY {
            ReserveError::PoolFull { capacity: CAPACITY }
        } else {
            return Ok(None);
        };
        let can_claim = |lease: &Number| {
            self.policy == DuplicatePolicy::Replace
                && !self.seats.iter().any(|seat| !seat.is_over && seat.claims == Some(*lease))
        };
        twin.filter(can_claim).map(Some).ok_or(refusal)
    }

    fn open(&mut self, seat: Number) {
        let Some(real) = self.seats[seat].real.take() else { return };
        let opened = real.open();
        let Seat { user, thread, is_over, claims, deadline, .. } = self.seats[seat];
        let twin = self.twin(user, thread);
        if is_over || deadline <= self.now {
            self.seats[seat].is_over = true;
            assert_eq!(opened.unwrap_err(), OpenError::Expired);
            return;
        }
        self.seats[seat].is_over = true;
        if self.policy == DuplicatePolicy::Reject && twin.is_some() {
            assert_eq!(opened.unwrap_err(), OpenError::ThreadInUse);
            return;
        }
        if let Some(claimed) = claims {
            self.end(claimed);
        }
        if let Some(twin) = twin.filter(|_| self.policy == DuplicatePolicy::Replace) {
            self.end(twin);
        }
        let real = opened.expect("nothing is in the way");
        let key = real.key();
        let is_new = self.connections.iter().all(|other| other.key != key);
        assert!(is_new, "a key names one life");
        self.connections.push(Connection {
            user,
            thread,
            is_live: true,
            queue: Vec::new(),
            key,
            real: Some(real),
        });
    }

    /// The lease is over, if it was not before; a claim on it becomes a place of its own.
    fn end(&mut self, lease: Number) {
        if mem::replace(&mut self.connections[lease].is_live, false) {
            let claims = self.seats.iter_mut().filter(|seat| seat.claims == Some(lease));
            claims.for_each(|seat| seat.claims = None);
        }
    }

    fn expire(&mut self) -> usize {
        let now = self.now;
        let overdue = self.seats.iter_mut().filter(|seat| !seat.is_over && seat.deadline <= now);
        overdue.map(|seat| seat.is_over = true).count()
    }

    fn send(&mut self, user: usize, thread: Option<usize>) {
        self.sent += 1;
        let message = Message::text(self.sent.to_string());
        let report = match thread {
            Some(thread) => {
                self.pool.send_to_thread(&context(USERS[user], THREADS[thread]).isolation_key(), message)
            }
            None => self.pool.send_to_user(&UserId::new(USERS[user]).unwrap(), message),
        };
        let addressed = self.connections.iter_mut().filter(|connection| {
            connection.is_live
                && connection.user == user
                && thread.is_none_or(|thread| connection.thread == thread)
        });
        let queued = addressed.map(|connection| connection.queue.push(self.sent)).count();
        assert_eq!((report.queued, report.addressed(), report.is_nobody), (queued, queued, queued == 0));
    }

    fn read(&mut self, lease: Number) {
        let Connection { queue, real, is_live, .. } = &mut self.connections[lease];
        let Some(real) = real else { return };
        if !*is_live {
            assert!(real.next_message().is_err());
            return;
        }
        for expected in queue.drain(..) {
            let message = real.next_message().unwrap().expect("it was queued");
            assert_eq!(message.as_text(), Some(&*expected.to_string()));
        }
        assert_eq!(real.next_message(), Ok(None));
    }

    fn touch_over(&mut self, lease: Number) {
        let Connection { key, is_live, ref real, .. } = self.connections[lease];
        if is_live {
            return;
        }
        assert_eq!(self.pool.send(key, Message::from("lost")), SendOutcome::Stale);
        assert_eq!(self.pool.inspect(key, |_| ()), None);
        assert_eq!(self.pool.evict_if(key, EndReason::Idle, |_| true), Err(Late));
        assert!(real.as_ref().is_none_or(|real| real.revoked().is_some()));
    }

    fn assert_same(&self) {
        let live = self.connections.iter().filter(|connection| connection.is_live).count();
        assert_counts(&self.pool, live, self.places() - live, 0);
        let users: BTreeSet<_> = (0..USERS.len()).filter(|&user| self.count(user) > 0).collect();
        assert_eq!(self.pool.snapshot().users, users.len());
        for (number, user) in USERS.iter().enumerate() {
            let keys: BTreeSet<_> = self.pool.keys_of(&UserId::new(user).unwrap()).into_iter().collect();
            let of_user = |connection: &&Connection| connection.is_live && connection.user == number;
            assert_eq!(keys, self.connections.iter().filter(of_user).map(|of| of.key).collect());
        }
        for Connection { real, is_live, .. } in &self.connections {
            assert!(real.as_ref().is_none_or(|real| real.is_live() == *is_live));
        }
    }

    fn twin(&self, user: usize, thread: usize) -> Option<Number> {
        self.connections
            .iter()
            .position(|other| other.is_live && other.user == user && other.thread == thread)
    }

    /// Places that a user holds: reserved, not by a claim, and live.
    fn count(&self, user: usize) -> usize {
        let seats =
            self.seats.iter().filter(|seat| seat.user == user && !seat.is_over && seat.claims.is_none());
        seats.count() + self.connections.iter().filter(|other| other.user == user && other.is_live).count()
    }

    fn places(&self) -> usize {
        (0..USERS.len()).map(|user| self.count(user)).sum()
    }

    /// A seat whose reservation is held.
    fn on_seat(&mut self, at: usize, act: impl FnOnce(&mut Self, Number)) {
        let held: Vec<_> = (0..self.seats.len()).filter(|&seat| self.seats[seat].real.is_some()).collect();
        if !held.is_empty() {
            act(self, held[at % held.len()]);
        }
    }

    /// A connection whose lease is held, live or not.
    fn on_lease(&mut self, at: usize, act: impl FnOnce(&mut Self, Number)) {
        let all = 0..self.connections.len();
        let held: Vec<_> = all.filter(|&lease| self.connections[lease].real.is_some()).collect();
        if !held.is_empty() {
            act(self, held[at % held.len()]);
        }
    }

    fn on_connection(&mut self, at: usize, act: impl FnOnce(&mut Self, Number)) {
        if !self.connections.is_empty() {
            act(self, at % self.connections.len());
        }
    }
}

proptest! {
    #[test]
    fn the_pool_does_what_a_plain_model_does(
        policy in prop_oneof![
            3 => Just(DuplicatePolicy::Replace),
            1 => Just(DuplicatePolicy::Reject),
            2 => Just(DuplicatePolicy::Allow),
        ],
        ops in proptest::collection::vec(op(), 1..100),
    ) {
        let mut model = Model::new(policy);
        for op in ops {
            model.apply(op);
            model.assert_same();
        }
        // Whatever was leaked comes back: reservations at their deadline, leases by eviction.
        for lease in 0..model.connections.len() {
            model.apply(Op::Evict(lease));
        }
        model.apply(Op::HalfADeadlinePasses);
        model.apply(Op::HalfADeadlinePasses);
        model.apply(Op::Maintain);
        model.assert_same();
        assert_counts(&model.pool, 0, 0, 0);
        prop_assert_eq!(model.pool.snapshot().free, CAPACITY);
    }
}
