//! What all scenarios have in common: the stage that they play on, and that they leave it empty.

use crate::support::{Count, PATIENCE, Server, eventually};
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::{read_dir, read_link};
use std::sync::Once;
use tokio::runtime::Builder;
use ws_manager_pool::{
    EndReason, Environment, Pool, PoolBuilder, Session, Timestamp, UserExecutionContext, UserId,
};

/// One scenario over sockets at a time, so that the sockets that are open are its own.
static STAGE: Mutex<()> = Mutex::new(());

/// A pool that gives its clients all the time they want.
pub(crate) fn pool(name: &str) -> PoolBuilder<Count> {
    let builder = Pool::builder().name(name).environment(Environment::Ci);
    builder.heartbeat_interval(10 * PATIENCE).reservation_deadline(10 * PATIENCE)
}

/// Plays a scenario on a server with this pool. At its end nothing is left, in the pool or open.
pub(crate) fn play(pool: PoolBuilder<Count>, scenario: impl AsyncFnOnce(&mut Server)) {
    let _alone = STAGE.lock();
    expect_commanded_panics();
    raise_file_limit();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let sockets = open_sockets();
        let pool = pool.build().unwrap();
        let mut server = Server::start(pool.clone()).await;
        scenario(&mut server).await;
        server.is_empty().await;
        assert_nothing_is_left(&pool);
        drop(server);
        eventually("as many open sockets as before", || open_sockets() == sockets).await;
    });
}

/// Every figure of the account is back at zero.
#[track_caller]
pub(crate) fn assert_nothing_is_left<S: Session>(pool: &Pool<S>) {
    let snapshot = pool.snapshot();
    let ledger = &snapshot.ledger;
    assert!(ledger.balanced, "{ledger:#?}");
    let figures = [
        ("leases", ledger.leases),
        ("places of users", ledger.users_sum),
        ("reservations", ledger.reserved),
        ("occupied slots", ledger.occupied_slots),
        ("live slots", ledger.live_slots),
        ("closing slots", ledger.closing),
        ("isolation keys", ledger.isolation_keys),
        ("slots out of use", ledger.quarantined),
        ("users", snapshot.users),
        ("waiters", snapshot.waiting),
        ("queued bytes", snapshot.outbound_bytes),
    ];
    let left: Vec<_> = figures.into_iter().filter(|&(_, figure)| figure > 0).collect();
    assert_eq!(left, [], "{ledger:#?}");
    assert_eq!(snapshot.free, snapshot.capacity);
    let tally = &ledger.tally;
    assert_eq!(tally.opened, tally.ended, "{tally:#?}");
    assert_eq!(tally.reserved, tally.opened + tally.given_back + tally.expired, "{tally:#?}");
}

/// The pool's housekeeping at a moment.
pub(crate) fn maintain<S: Session>(pool: &Pool<S>, now: Timestamp) {
    let done = pool.maintain(now);
    assert_eq!(done.panics, 0, "{done:?}");
}

/// Ends what a context names, its user and its thread, as an operator would. Returns how many.
pub(crate) fn clean_up<S: Session>(pool: &Pool<S>, context: &UserExecutionContext) -> usize {
    pool.cleanup_manager_by_context(context, EndReason::Operator).cleaned
}

/// A send and a [`clean_up`] under ids that were made twice count so many mismatches together.
pub(crate) const MISMATCHES: u64 = 2;

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// Sockets of this process.
fn open_sockets() -> usize {
    let files = read_dir("/proc/self/fd").unwrap();
    // One that is gone by now is none.
    let targets = files.filter_map(|file| read_link(file.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// Handlers panic when a client says so. That needs no report.
fn expect_commanded_panics() {
    static EXPECTED: Once = Once::new();
    EXPECTED.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some("as commanded") {
                hook(info);
            }
        }));
    });
}

/// Both ends of a thousand connections are in this process.
fn raise_file_limit() {
    const NEEDED: u64 = 3_000;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < NEEDED) {
        let raised = Rlimit { current: Some(NEEDED), maximum };
        setrlimit(Resource::Nofile, raised).expect("a hard limit of 3,000 open files or more");
    }
}
