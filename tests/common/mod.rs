//! What the pool's tests say again and again.

use ws_manager_pool::{Environment, IdGenerator, Pool, PoolBuilder, Session, UserExecutionContext};

/// A connection's context, made as at the entry point. Without a thread a fresh one is generated.
pub(crate) fn context<'a>(user: &str, thread: impl Into<Option<&'a str>>) -> UserExecutionContext {
    let ids = IdGenerator::user_context_ids(user, "test");
    let ids = match thread.into() {
        Some(thread) => ids.with_client_thread(thread).expect("a valid thread id"),
        None => ids,
    };
    UserExecutionContext::from_websocket_request(user, ids).expect("a valid user id")
}

/// A pool of `capacity` managers that one user may hold all of.
pub(crate) fn builder<S: Session>(name: &str, capacity: usize) -> PoolBuilder<S> {
    Pool::builder().name(name).environment(Environment::Ci).capacity(capacity).max_managers_per_user(capacity)
}

/// The account is balanced, with so many live, reserved and closing.
#[track_caller]
pub(crate) fn assert_counts<S: Session>(pool: &Pool<S>, live: usize, reserved: usize, closing: usize) {
    let snapshot = pool.snapshot();
    let ledger = &snapshot.ledger;
    assert!(ledger.balanced, "{ledger:#?}");
    assert_eq!((ledger.leases, ledger.reserved, ledger.closing), (live, reserved, closing), "{ledger:#?}");
    assert_eq!(ledger.live_slots, live);
    assert_eq!(ledger.isolation_keys, live);
    assert_eq!(ledger.users_sum, live + reserved);
    assert_eq!(ledger.occupied_slots, live + reserved + closing);
    assert_eq!(snapshot.free + ledger.occupied_slots + ledger.quarantined, snapshot.capacity);
    if live + reserved == 0 {
        assert_eq!(snapshot.users, 0);
        assert_eq!(snapshot.outbound_bytes, 0);
    }
}
