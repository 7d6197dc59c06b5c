//! One connection's life in the pool, from the ids to the drop.

use ws_manager_pool::{
    DuplicatePolicy, EndReason, Environment, IdGenerator, IsolationKey, Message, OpenError, Pool,
    ReserveError, UserExecutionContext, UserId,
};

fn context(user: &str, thread: Option<&str>) -> UserExecutionContext {
    let ids = IdGenerator::user_context_ids(user, "test");
    let ids = match thread {
        Some(thread) => ids.with_client_thread(thread).unwrap(),
        None => ids,
    };
    UserExecutionContext::from_websocket_request(user, ids).unwrap()
}

fn pool(name: &str, capacity: usize, per_user: usize, duplicates: DuplicatePolicy) -> Pool {
    Pool::builder()
        .name(name)
        .environment(Environment::Ci)
        .capacity(capacity)
        .max_managers_per_user(per_user)
        .duplicates(duplicates)
        .build()
        .unwrap()
}

#[test]
fn a_connection_comes_and_goes() {
    let pool = pool("comes-and-goes", 10, 5, DuplicatePolicy::Replace);
    let context = context("ada", None);
    let mut lease = pool.reserve(&context).unwrap().open().unwrap();
    assert_eq!(pool.snapshot().live, 1);
    assert!(pool.send_to_user(context.user_id(), Message::from("hi")).is_complete());
    assert!(pool.send_to_thread(&context.isolation_key(), Message::from("ho")).is_complete());
    assert_eq!(lease.next_message().unwrap().unwrap().as_text(), Some("hi"));
    assert_eq!(lease.next_message().unwrap().unwrap().as_text(), Some("ho"));
    assert_eq!(lease.next_message().unwrap(), None);
    let stranger = UserId::new("eve").unwrap();
    let same_thread = IsolationKey::new(stranger, context.thread_id().clone());
    assert!(pool.send_to_thread(&same_thread, Message::from("psst")).is_nobody);
    drop(lease);
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.live, snapshot.users), (0, 0));
    assert!(snapshot.ledger.balanced, "{:?}", snapshot.ledger);
}

#[test]
fn a_user_at_the_limit_in_a_full_pool_reconnects_with_a_live_thread() {
    let pool = pool("reconnects", 20, 20, DuplicatePolicy::Replace);
    let mut leases: Vec<_> = (0..20)
        .map(|n| pool.reserve(&context("ada", Some(&format!("thread_{n}")))).unwrap().open().unwrap())
        .collect();
    assert_eq!(pool.reserve(&context("ada", None)).unwrap_err(), ReserveError::UserFull { max_managers: 20 });
    assert_eq!(pool.reserve(&context("bob", None)).unwrap_err(), ReserveError::PoolFull { capacity: 20 });
    let again = pool.reserve(&context("ada", Some("thread_7"))).unwrap();
    assert!(leases[7].is_live(), "a handshake that may fail harms nobody");
    let second_claim = pool.reserve(&context("ada", Some("thread_7")));
    assert_eq!(second_claim.unwrap_err(), ReserveError::UserFull { max_managers: 20 });
    let again = again.open().unwrap();
    assert_eq!(leases[7].revoked().unwrap().reason(), EndReason::Takeover);
    assert!(again.is_live());
    let snapshot = pool.snapshot();
    assert_eq!(snapshot.live, 20);
    assert!(snapshot.ledger.balanced, "{:?}", snapshot.ledger);
    leases.clear();
    drop(again);
    let snapshot = pool.snapshot();
    assert_eq!(snapshot.live, 0);
    assert!(snapshot.ledger.balanced, "{:?}", snapshot.ledger);
    assert_eq!(snapshot.ledger.occupied_slots, 0);
}

#[test]
fn a_claim_outlives_the_connection_that_it_claimed() {
    let pool = pool("claim-outlives", 1, 1, DuplicatePolicy::Replace);
    let old = pool.reserve(&context("ada", Some("thread_a"))).unwrap().open().unwrap();
    let claim = pool.reserve(&context("ada", Some("thread_a"))).unwrap();
    drop(old);
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.live, snapshot.reserved), (0, 1));
    assert!(snapshot.ledger.balanced, "{:?}", snapshot.ledger);
    assert!(pool.reserve(&context("bob", None)).is_err(), "the place is the claimant's");
    let lease = claim.open().unwrap();
    assert!(lease.is_live());
    drop(lease);
    assert!(pool.reserve(&context("bob", None)).is_ok());
}

#[test]
fn a_forgotten_reservation_expires_and_a_late_open_says_so() {
    let (clock, hand) = ws_manager_pool::Clock::manual();
    let pool: Pool = Pool::builder()
        .name("expires")
        .environment(Environment::Ci)
        .capacity(1)
        .clock(clock)
        .build()
        .unwrap();
    let late = pool.reserve(&context("ada", None)).unwrap();
    hand.advance(pool.config().reservation_deadline);
    let next = pool.reserve(&context("bob", None)).unwrap();
    assert_eq!(late.open().unwrap_err(), OpenError::Expired);
    std::mem::forget(next);
    hand.advance(pool.config().reservation_deadline);
    assert_eq!(pool.maintain(pool.clock().now()).expired, 1);
    let snapshot = pool.snapshot();
    assert_eq!(snapshot.reserved, 0);
    assert!(snapshot.ledger.balanced, "{:?}", snapshot.ledger);
}
