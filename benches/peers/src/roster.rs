//! Who is compared with whom.

use crate::floor::Floor;
use crate::ours::{self, Given, Whole};
use crate::peers::{fresh, keyed, queues};
use crate::place::{Contender, Facts, Kind};
use crate::record::Record;
use crate::row::{LivesOnly, Row};
use crate::usual::Usual;

/// Managers that are live in the rows of churn, get and walk.
pub const LIVE: usize = 10_000;

/// Room for the live ones and for what threads have on their way.
pub const CAPACITY: usize = LIVE + 1_000;

pub type Contenders = Vec<Box<dyn Contender>>;

/// The pool alone beside everything that a user would pick. Ours is the first, then the floors.
pub fn core(capacity: usize) -> Contenders {
    vec![
        Box::new(ours::slab(capacity)),
        Box::new(Floor::<false>),
        Box::new(Floor::<true>),
        Box::new(queues::opool(capacity)),
        Box::new(queues::array_queue(capacity)),
        Box::new(queues::lockfree_object_pool()),
        Box::new(queues::object_pool()),
        Box::new(queues::mutex_vec()),
        Box::new(keyed::sharded_slab()),
        Box::new(keyed::mutex_slab()),
        Box::new(fresh::glibc()),
        Box::new(fresh::mimalloc()),
        Box::new(fresh::jemalloc()),
        Box::new(queues::deadpool(capacity)),
        Box::new(keyed::dash_map()),
        Box::new(keyed::idr_ebr()),
        Box::new(keyed::papaya()),
    ]
}

/// The whole pool beside what servers do without one, with and without a manager of the application's own.
pub fn whole(capacity: usize) -> Contenders {
    const OURS: Facts = Facts::new("", Kind::Ours).frees("yes").stale("32 bit, then retired").waits();
    const USUAL: Facts = Facts::new("", Kind::Peer).frees("values; tables stay").stale("by name");
    let ours = |name| Facts { name, ..OURS };
    let usual = |name| Facts { name, ..USUAL };
    vec![
        // Its contexts are few, and a second connection of one takes the place of the first.
        Box::new(LivesOnly(Row(ours("Pool: reserve, open, drop"), Given::new("given", capacity)))),
        Box::new(Row(ours("Pool: ids, reserve, open, drop").bare(), Whole::<()>::new("bare", capacity))),
        Box::new(Row(usual("usual: ids, Arc, mpsc, DashMap").bare(), Usual::<()>::registry())),
        Box::new(Row(usual("usual, a count for each user").bare(), Usual::<()>::with_quota())),
        Box::new(Row(usual("usual, a count, fast ids").bare(), Usual::<()>::with_quota().with_fast_ids())),
        Box::new(Row(ours("Pool, a 10 KB state"), Whole::<Record>::new("stateful", capacity))),
        Box::new(Row(usual("usual, a count, a 10 KB state"), Usual::<Record>::with_quota())),
    ]
}
