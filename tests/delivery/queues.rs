//! Whatever is done to a pool of few slots, in whatever order: a message comes out where it was
//! addressed to, in its order, or not at all.

use crate::letter::{Address, Letter, Whose};
use crate::log::Log;
use crate::{builder, context};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use ws_manager_pool::{EndReason, Lease, ManagerKey, OutboundLimits, Pool};

const USERS: usize = 2;
const THREADS: usize = 2;

/// Messages that wait for one connection at most.
const QUEUE: usize = 3;

/// Numbers choose, modulo their number, among the connections that there have ever been.
#[derive(Clone, Copy, Debug)]
enum Op {
    Open { user: usize, thread: usize },
    Close(usize),
    Evict(usize),
    Drop(usize),
    Pop(usize),
    SendToKey(usize),
    SendToKeys(usize, usize),
    SendToThread { user: usize, thread: usize },
    SendToUser(usize),
    SendToAll,
}

fn op() -> impl Strategy<Value = Op> {
    let (user, thread) = (0..USERS, 0..THREADS);
    let pair = || (user.clone(), thread.clone());
    prop_oneof![
        6 => pair().prop_map(|(user, thread)| Op::Open { user, thread }),
        1 => any::<usize>().prop_map(Op::Close),
        1 => any::<usize>().prop_map(Op::Evict),
        1 => any::<usize>().prop_map(Op::Drop),
        5 => any::<usize>().prop_map(Op::Pop),
        4 => any::<usize>().prop_map(Op::SendToKey),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Op::SendToKeys(one, other)),
        2 => pair().prop_map(|(user, thread)| Op::SendToThread { user, thread }),
        2 => user.prop_map(Op::SendToUser),
        1 => Just(Op::SendToAll),
    ]
}

struct Life {
    whose: Whose,
    is_live: bool,
    /// What it is to read.
    queue: VecDeque<Letter>,
    /// Kept by its owner, who may not know that it is over. `None` once it was dropped.
    lease: Option<Lease>,
}

struct Model {
    pool: Pool,
    log: Log,
    lives: Vec<Life>,
    order: u64,
}

impl Model {
    fn new(slots: usize) -> Self {
        static POOLS: AtomicUsize = AtomicUsize::new(0);
        let name = format!("queues-{}", POOLS.fetch_add(1, Relaxed));
        let limits = OutboundLimits::default().with_messages(QUEUE);
        let pool = builder(&name, slots).outbound(limits).build().unwrap();
        Self { pool, log: Log::default(), lives: Vec::new(), order: 0 }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Open { user, thread } => self.open(user, thread),
            Op::Close(at) => self.on(at, |life, _| {
                if let Some(lease) = life.lease.take() {
                    assert_eq!(lease.close(EndReason::Closed).is_ok(), life.is_live);
                    life.end();
                }
            }),
            Op::Evict(at) => self.on(at, |life, pool| {
                assert_eq!(pool.evict(life.whose.key, EndReason::Operator).is_ok(), life.is_live);
                life.end();
            }),
            Op::Drop(at) => self.on(at, |life, _| {
                if life.lease.take().is_some() {
                    life.end();
                }
            }),
            Op::Pop(at) => self.on(at, |life, _| life.pop()),
            Op::SendToKey(at) => self.send_to_keys(&[at]),
            Op::SendToKeys(one, other) => self.send_to_keys(&[one, other]),
            Op::SendToThread { user, thread } => self.send(Address::Thread { user, thread }),
            Op::SendToUser(user) => self.send(Address::User { user }),
            Op::SendToAll => self.send(Address::All),
        }
    }

    fn open(&mut self, user: usize, thread: usize) {
        let is_same = |life: &Life| life.is_live && (life.whose.user, life.whose.thread) == (user, thread);
        let old = self.lives.iter().position(is_same);
        let is_full = self.live() == self.pool.config().capacity;
        let reserved = self.pool.reserve(&context(&format!("user{user}"), &*format!("thread_{thread}")));
        assert_eq!(reserved.is_ok(), !is_full || old.is_some());
        let Ok(reservation) = reserved else { return };
        let lease = reservation.open().unwrap();
        // Taken over: its owner still has its lease.
        old.into_iter().for_each(|at| self.lives[at].end());
        let whose = Whose { user, thread, key: lease.key() };
        assert!(self.lives.iter().all(|life| life.whose.key != whose.key), "a key names one life");
        self.lives.push(Life { whose, is_live: true, queue: VecDeque::new(), lease: Some(lease) });
    }

    fn live(&self) -> usize {
        self.lives.iter().filter(|life| life.is_live).count()
    }

    fn on(&mut self, at: usize, f: impl FnOnce(&mut Life, &Pool)) {
        if !self.lives.is_empty() {
            let at = at % self.lives.len();
            f(&mut self.lives[at], &self.pool);
        }
    }

    fn send_to_keys(&mut self, at: &[usize]) {
        let Some(first) = at.first().filter(|_| !self.lives.is_empty()) else { return };
        let user = self.lives[first % self.lives.len()].whose.user;
        let known = at.iter().map(|at| self.lives[at % self.lives.len()].whose);
        let mut keys: Vec<ManagerKey> =
            known.filter(|whose| whose.user == user).map(|whose| whose.key).collect();
        keys.dedup();
        self.send(Address::Keys { user, keys });
    }

    fn send(&mut self, to: Address) {
        let letter = Letter { to, from: 0, order: self.order };
        self.order += 1;
        let stale = match &letter.to {
            Address::Keys { keys, .. } => keys.iter().filter(|&&key| !self.is_live(key)).count(),
            _ => 0,
        };
        let (mut queued, mut refused) = (0, 0);
        for life in self.lives.iter_mut().filter(|life| life.is_live && letter.to.names(&life.whose)) {
            if life.queue.len() < QUEUE {
                life.queue.push_back(letter.clone());
                queued += 1;
            } else {
                refused += 1;
            }
        }
        let outcome = self.log.send(&self.pool, letter, 0);
        assert_eq!((outcome.queued, outcome.refused, outcome.stale), (queued, refused, stale));
    }

    fn is_live(&self, key: ManagerKey) -> bool {
        self.lives.iter().any(|life| life.is_live && life.whose.key == key)
    }
}

impl Life {
    fn end(&mut self) {
        self.is_live = false;
        self.queue.clear();
    }

    fn pop(&mut self) {
        let Some(lease) = &mut self.lease else { return };
        let popped = lease.next_message();
        assert_eq!(popped.is_ok(), self.is_live, "who is over reads nothing, also not the next one's");
        let Ok(popped) = popped else { return };
        let letter = popped.map(|message| message.as_text().unwrap().parse::<Letter>().unwrap());
        let names = letter.iter().all(|letter| letter.to.names(&self.whose));
        assert!(names, "{:?} reads {letter:?}", self.whose);
        assert_eq!(letter, self.queue.pop_front());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_message_for_the_last_occupant_never_reaches_the_next(
        slots in 1..=3_usize,
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let mut model = Model::new(slots);
        for op in ops {
            model.apply(op);
        }
        for at in 0..model.lives.len() {
            // To the last message, and once more.
            (0..=QUEUE).for_each(|_| model.lives[at].pop());
        }
        let Model { pool, lives, .. } = model;
        drop(lives);
        crate::assert_counts(&pool, 0, 0, 0);
    }
}
