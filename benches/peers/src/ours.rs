//! This crate's rows: the slab alone, as a user of [`ws_manager_pool::slab`] has it, and the whole pool.

use crate::place::{Facts, Kind, Place};
use crate::record::{Ids, Record};
use crate::row::Row;
use std::sync::atomic::{AtomicU64, Ordering};
use ws_manager_pool::slab::{
    Cursor, Fate, Key, Options, Owner, Resident, Slab, Starting, State as Slot, Vacated,
};
use ws_manager_pool::{IdGenerator, Lease, ManagerKey, Pool, Session, UserExecutionContext};

/// The slab's slot: the manager, and one counter beside it that walks read.
pub struct Records;

impl Resident for Records {
    type Glance = AtomicU64;
    type Shared = Record;
    type Owned = ();
    type Residue = ();

    fn clean(&self, vacated: Vacated<'_, Self>) -> (Fate, ()) {
        vacated.shared.clear();
        (Fate::Free, ())
    }

    fn freed(&self, (): ()) {}
}

/// Takes a free slot for writing. The slab's shortest way to do it: the one place to change when there is a
/// shorter one.
#[inline]
fn start(slab: &Slab<Records>) -> Starting<'_, Records> {
    slab.start().expect("the slab is not full")
}

impl Place for Slab<Records> {
    type Held<'a> = Owner;
    type Key = Key;
    const HAS_KEYS: bool = true;
    const CAN_WALK: bool = true;

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> Owner {
        let mut starting = start(self);
        starting.value(|seen, record, _| {
            record.begin(ids.fresh());
            seen.store(1, Ordering::Relaxed);
        });
        starting.publish()
    }

    #[inline]
    fn release(&self, held: Owner) {
        drop(self.close(held.key()).expect("only the owner closes"));
    }

    fn key(&self, held: &Owner) -> Key {
        held.key()
    }

    #[inline]
    fn get(&self, key: &Key) -> Option<u64> {
        self.pin(*key, |_, record| record.received).ok()
    }

    fn walk(&self) -> u64 {
        let mut sum = 0;
        let found = |_, state, seen| sum += if state == Slot::Live { seen } else { 0 };
        Slab::walk(self, &mut Cursor::default(), usize::MAX, |seen| seen.load(Ordering::Relaxed), found);
        sum
    }

    fn trim(&self) {
        // As the pool's own maintenance does, turn by turn: what one turn takes out, another may free.
        for _ in 0..3 {
            self.shrink(0);
            self.refresh_hints();
        }
    }
}

pub fn slab(capacity: usize) -> Row<Slab<Records>> {
    let facts =
        Facts::new("ws-manager-pool: Slab", Kind::Ours).frees("yes").stale("32 bit, then retired").waits();
    Row(facts, Slab::new(Records, Options::with_capacity(capacity)))
}

/// The application's state of a connection in the rows of whole pools.
pub trait State: Session {
    fn begin(&mut self, ids: &mut Ids);
}

/// No state: what the pool itself costs.
impl State for () {
    fn begin(&mut self, _: &mut Ids) {}
}

impl State for Record {
    fn begin(&mut self, ids: &mut Ids) {
        Record::begin(self, ids.fresh());
    }
}

/// The whole pool: ids, quota, registry, ledger, lease.
pub struct Whole<S: Session> {
    pub pool: Pool<S>,
    users: Users,
}

impl<S: Session> Whole<S> {
    pub fn new(name: &str, capacity: usize) -> Self {
        // One user may have all: how its limit refuses is not measured here.
        let built = Pool::builder().name(name).capacity(capacity).max_managers_per_user(capacity).build();
        Self { pool: built.expect("the numbers are in range"), users: Users::all() }
    }
}

impl<S: State> Place for Whole<S> {
    type Held<'a> = Lease<S>;
    type Key = ManagerKey;
    const HAS_KEYS: bool = true;

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> Lease<S> {
        let user = self.users.any(ids);
        let fresh = IdGenerator::user_context_ids(user, "bench");
        let context = UserExecutionContext::from_websocket_request(user, fresh).expect("a valid id");
        let mut lease = self.pool.reserve(&context).expect("there is room").open().expect("at once");
        if size_of::<S>() > 0 {
            lease.with_session(|state| state.begin(ids)).expect("it is new");
        }
        lease
    }

    #[inline]
    fn release(&self, held: Lease<S>) {
        drop(held);
    }

    fn key(&self, held: &Lease<S>) -> ManagerKey {
        held.key()
    }

    #[inline]
    fn get(&self, key: &ManagerKey) -> Option<u64> {
        self.pool.inspect(*key, |manager| 1 + manager.messages_in())
    }

    fn trim(&self) {
        // A turn takes the pages that were at rest since the one before, and a later one may free them.
        for _ in 0..4 {
            self.pool.maintain(self.pool.clock().now());
        }
    }
}

/// As [`Whole`], but the context is there already: reserve, open, drop.
pub struct Given {
    pool: Pool,
    contexts: Box<[UserExecutionContext]>,
}

impl Given {
    pub fn new(name: &str, capacity: usize) -> Self {
        let context = |user: &String| {
            let fresh = IdGenerator::user_context_ids(user, "bench");
            UserExecutionContext::from_websocket_request(user, fresh).expect("a valid id")
        };
        let Whole { pool, users } = Whole::new(name, capacity);
        Self { pool, contexts: users.0.iter().map(context).collect() }
    }
}

impl Place for Given {
    type Held<'a> = Lease;
    type Key = ManagerKey;

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> Lease {
        let context = &self.contexts[Users::index(ids)];
        self.pool.reserve(context).expect("there is room").open().expect("at once")
    }

    #[inline]
    fn release(&self, held: Lease) {
        drop(held);
    }

    fn key(&self, held: &Lease) -> ManagerKey {
        held.key()
    }
}

/// The users of whole pools: each thread has its own, as connections of one user seldom come at once.
pub struct Users(Box<[String]>);

const LANES: usize = 4;
const USERS_OF_A_LANE: usize = 1_000;

impl Users {
    pub fn all() -> Self {
        Self((0..LANES * USERS_OF_A_LANE).map(|number| format!("user-{number}")).collect())
    }

    #[inline]
    pub fn any(&self, ids: &mut Ids) -> &str {
        &self.0[Self::index(ids)]
    }

    #[inline]
    fn index(ids: &mut Ids) -> usize {
        ids.lane() % LANES * USERS_OF_A_LANE + ids.below(USERS_OF_A_LANE)
    }
}
