//! What happens to one connection too many: by policy, by tenant, over several pools.

mod common;

use common::{assert_counts, builder, context};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::scope;
use std::time::Duration;
use ws_manager_pool::{
    AtLimit, Clock, DuplicatePolicy, EndReason, Environment, Lease, ManualClock, Pool, PoolBuilder,
    QuotaDomain, ReserveError, Session, UserId,
};

const SECOND: Duration = Duration::from_secs(1);

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn named<S: Session>(name: &str) -> (PoolBuilder<S>, ManualClock) {
    let (clock, hand) = Clock::manual();
    let builder = builder(name, 100).environment(Environment::Production).clock(clock);
    (builder.capacity(100).max_managers_per_user(3), hand)
}

fn open<S: Session>(pool: &Pool<S>, user: &str) -> Lease<S> {
    let lease = pool.reserve(&context(user, None)).unwrap().open().unwrap();
    lease.connected().unwrap();
    lease
}

/// Three connections of ada, a second apart; the first was active last.
fn full(pool: &Pool, hand: &ManualClock) -> Vec<Lease> {
    let leases: Vec<_> = (0..3)
        .map(|_| {
            hand.advance(SECOND);
            open(pool, "ada")
        })
        .collect();
    hand.advance(SECOND);
    leases[0].received(1).unwrap();
    hand.advance(SECOND);
    leases
}

fn live(leases: &[Lease]) -> Vec<usize> {
    (0..leases.len()).filter(|&at| leases[at].is_live()).collect()
}

#[test]
fn the_victim_is_chosen_at_reserve_and_ends_at_open_only() {
    for (policy, victim) in [(AtLimit::EvictOldest, 0), (AtLimit::EvictIdlest, 1)] {
        let (builder, hand) = named("at-limit-victim");
        let pool: Pool = builder.at_limit(policy).build().unwrap();
        let leases = full(&pool, &hand);
        let reservation = pool.reserve(&context("ada", None)).unwrap();
        assert_eq!(live(&leases), [0, 1, 2], "a handshake that fails harms nobody");
        drop(reservation);
        assert_eq!(live(&leases), [0, 1, 2]);
        assert_counts(&pool, 3, 0, 0);

        let new = pool.reserve(&context("ada", None)).unwrap().open().unwrap();
        let rest: Vec<_> = [0, 1, 2].into_iter().filter(|&at| at != victim).collect();
        assert_eq!(live(&leases), rest, "{policy:?}");
        let revoked = leases[victim].revoked().unwrap();
        assert_eq!((revoked.reason(), revoked.close_code()), (EndReason::Limit, 4008));
        assert!(new.is_live());
        assert_counts(&pool, 3, 0, 0);
        let tally = pool.ledger().tally;
        assert_eq!(tally.begins_by_cause, [("fresh", 3), ("limit", 1)].into());
    }
}

#[test]
fn under_reject_the_one_too_many_is_refused() {
    let (builder, hand) = named("at-limit-reject");
    let pool: Pool = builder.build().unwrap();
    let leases = full(&pool, &hand);
    let refused = pool.reserve(&context("ada", None)).unwrap_err();
    assert_eq!(refused, ReserveError::UserFull { max_managers: 3 });
    assert_eq!(refused.http_status(), 429);
    assert_eq!(live(&leases), [0, 1, 2]);
}

#[test]
fn a_user_s_own_policy_goes_before_the_pool_s() {
    let (builder, hand) = named("at-limit-own");
    let pool: Pool = builder.at_limit(AtLimit::EvictOldest).build().unwrap();
    let leases = full(&pool, &hand);
    pool.set_user_policy(&user("ada"), Some(AtLimit::Reject));
    assert!(pool.reserve(&context("ada", None)).is_err());
    pool.set_user_policy(&user("ada"), None);
    assert!(pool.reserve(&context("ada", None)).is_ok());
    pool.set_user_policy(&user("ada"), Some(AtLimit::EvictIdlest));
    let _new = pool.reserve(&context("ada", None)).unwrap().open().unwrap();
    assert_eq!(live(&leases), [0, 2]);
}

#[test]
fn each_place_is_claimed_once() {
    let (builder, hand) = named("at-limit-once");
    let pool: Pool = builder.at_limit(AtLimit::EvictOldest).build().unwrap();
    let leases = full(&pool, &hand);
    let claims: Vec<_> = (0..3).map(|_| pool.reserve(&context("ada", None)).unwrap()).collect();
    assert!(pool.reserve(&context("ada", None)).is_err(), "all three are promised");
    let new: Vec<_> = claims.into_iter().map(|claim| claim.open().unwrap()).collect();
    assert!(live(&leases).is_empty());
    assert_eq!(new.len(), 3);
    assert_counts(&pool, 3, 0, 0);
}

#[test]
fn a_manager_in_a_run_makes_room_only_if_all_are_in_one() {
    let (builder, hand) = named("at-limit-run");
    let pool: Pool = builder.at_limit(AtLimit::EvictOldest).build().unwrap();
    let leases = full(&pool, &hand);
    let _run = leases[0].begin_run().unwrap();
    let first = open(&pool, "ada");
    assert_eq!(live(&leases), [0, 2]);
    let _more = (leases[2].begin_run().unwrap(), first.begin_run().unwrap());
    let _second = open(&pool, "ada");
    assert_eq!(live(&leases), [2]);
}

#[test]
fn a_full_pool_ends_nobody_s_connection() {
    let (builder, _) = named("at-limit-pool");
    let pool: Pool = builder.capacity(2).at_limit(AtLimit::EvictOldest).build().unwrap();
    let leases = [open(&pool, "ada"), open(&pool, "bob")];
    assert_eq!(pool.reserve(&context("ada", None)).unwrap_err(), ReserveError::PoolFull { capacity: 2 });
    assert_eq!(live(&leases), [0, 1]);
}

#[test]
fn the_dead_go_before_anybody_active_does() {
    let (builder, hand) = named("at-limit-dead");
    let pool: Pool = builder.at_limit(AtLimit::EvictOldest).build().unwrap();
    let leases = full(&pool, &hand);
    leases[2].closing().unwrap();
    leases[2].disconnected().unwrap();
    let _new = open(&pool, "ada");
    assert_eq!(live(&leases), [0, 1]);
    assert_eq!(leases[2].revoked().unwrap().reason(), EndReason::Disconnected);
}

#[test]
fn a_tenant_s_limit_holds_over_its_users_whatever_interleaves() {
    let quotas = QuotaDomain::new();
    quotas.set_tenant("acme", 7, None);
    let (builder, _) = named("tenant-race");
    let pool: Pool = builder.quotas(&quotas).build().unwrap();
    let users = ["ada", "bob", "eve", "mallory"];
    for name in users {
        quotas.assign(&user(name), Some("acme")).unwrap();
    }
    scope(|threads| {
        for name in users {
            let (pool, quotas) = (pool.clone(), quotas.clone());
            threads.spawn(move || {
                for _ in 0..300 {
                    let held: Vec<_> = (0..3)
                        .filter_map(|_| pool.reserve(&context(name, None)).ok())
                        .filter_map(|reservation| reservation.open().ok())
                        .collect();
                    let figures = quotas.tenant_figures("acme").unwrap();
                    assert!(figures.manager_count <= 7, "{figures:?}");
                    assert!(figures.manager_count >= held.len());
                }
            });
        }
    });
    assert_eq!(quotas.tenant_figures("acme").unwrap().manager_count, 0);
    assert!(users.iter().all(|name| quotas.count_of(&user(name)) == 0));
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn a_full_tenant_makes_room_among_the_user_s_own_only() {
    let quotas = QuotaDomain::new();
    quotas.set_tenant("acme", 3, Some(AtLimit::EvictOldest));
    let (builder, hand) = named("tenant-own");
    let pool: Pool = builder.quotas(&quotas).build().unwrap();
    quotas.assign(&user("ada"), Some("acme")).unwrap();
    quotas.assign(&user("bob"), Some("acme")).unwrap();
    let first = open(&pool, "ada");
    hand.advance(SECOND);
    let ada = [open(&pool, "ada"), open(&pool, "ada")];
    let refused = pool.reserve(&context("bob", None)).unwrap_err();
    assert_eq!(refused, ReserveError::TenantFull { max_managers: 3 }, "bob has nothing to give");
    assert_eq!(refused.http_status(), 429);
    let new = open(&pool, "ada");
    assert!(!first.is_live() && live(&ada) == [0, 1] && new.is_live());
    assert_eq!(quotas.tenant_figures("acme").unwrap().manager_count, 3);
    assert_eq!(pool.snapshot().refused.tenant_full, 1);
    drop((first, ada, new));
    assert_eq!(quotas.tenant_figures("acme").unwrap().manager_count, 0);
}

#[test]
fn who_changes_tenant_takes_along_what_it_holds() {
    let quotas = QuotaDomain::new();
    quotas.set_tenant("acme", 2, None);
    quotas.set_tenant("initech", 1, None);
    let unknown = quotas.assign(&user("ada"), Some("hooli")).unwrap_err();
    assert!(unknown.to_string().contains("hooli"), "{unknown}");
    let (builder, _) = named("tenant-change");
    let pool: Pool = builder.quotas(&quotas).build().unwrap();
    let count = |tenant| quotas.tenant_figures(tenant).unwrap().manager_count;
    let leases = [open(&pool, "ada"), open(&pool, "ada")];
    quotas.assign(&user("ada"), Some("acme")).unwrap();
    assert_eq!(count("acme"), 2);
    quotas.assign(&user("ada"), Some("initech")).unwrap();
    assert_eq!((count("acme"), count("initech")), (0, 2), "a limit that is exceeded so closes nobody");
    assert!(pool.reserve(&context("ada", None)).is_err());
    drop(leases);
    assert_eq!(count("initech"), 0);
    quotas.assign(&user("ada"), None).unwrap();
    let _free = open(&pool, "ada");
    assert_eq!((count("acme"), count("initech")), (0, 0));
}

#[derive(Default)]
struct Feed;

impl Session for Feed {
    fn reset(&mut self) {}
}

#[test]
fn one_domain_counts_a_user_over_several_pools() {
    let quotas = QuotaDomain::new();
    let chat: Pool = named("domain-chat").0.quotas(&quotas).build().unwrap();
    let feed: Pool<Feed> = named("domain-feed").0.quotas(&quotas).build().unwrap();
    let (first, _second, _third) = (open(&chat, "ada"), open(&feed, "ada"), open(&feed, "ada"));
    assert_eq!(quotas.count_of(&user("ada")), 3);
    assert_eq!(chat.reserve(&context("ada", None)).unwrap_err(), ReserveError::UserFull { max_managers: 3 });
    let _bob = open(&chat, "bob");
    drop(first);
    let _fourth = open(&feed, "ada");
    assert!(
        chat.check_user(&user("ada")).manager_count == 0 && feed.check_user(&user("ada")).manager_count == 3
    );
}

#[test]
fn who_waits_in_one_pool_is_served_by_an_end_in_another() {
    let quotas = QuotaDomain::new();
    let chat: Pool = named("domain-wait-chat").0.quotas(&quotas).build().unwrap();
    let feed: Pool<Feed> = named("domain-wait-feed").0.quotas(&quotas).build().unwrap();
    let held: Vec<_> = (0..3).map(|_| open(&feed, "ada")).collect();
    let context_of_ada = context("ada", None);
    let mut wait = pin!(chat.reserve_wait(&context_of_ada));
    let mut look = Context::from_waker(Waker::noop());
    assert!(wait.as_mut().poll(&mut look).is_pending());
    drop(held);
    let Poll::Ready(Ok(reservation)) = wait.as_mut().poll(&mut look) else { panic!("not served") };
    drop(reservation);
    assert_eq!(quotas.count_of(&user("ada")), 0);
}

#[test]
fn a_takeover_keeps_the_domain_s_count() {
    let quotas = QuotaDomain::new();
    let (builder, _) = named("domain-takeover");
    let pool: Pool = builder.quotas(&quotas).duplicates(DuplicatePolicy::Replace).build().unwrap();
    let mut leases: Vec<_> = (0..3)
        .map(|at| pool.reserve(&context("ada", &*format!("thread_{at}"))).unwrap().open().unwrap())
        .collect();
    for _ in 0..20 {
        let claim = pool.reserve(&context("ada", "thread_1")).unwrap();
        assert_eq!(quotas.count_of(&user("ada")), 3);
        leases[1] = claim.open().unwrap();
        let claim = pool.reserve(&context("ada", "thread_2")).unwrap();
        drop(leases.pop()); // ends while it is claimed
        assert_eq!(quotas.count_of(&user("ada")), 3);
        leases.push(claim.open().unwrap());
        drop(pool.reserve(&context("ada", "thread_0")).unwrap());
        assert_eq!(quotas.count_of(&user("ada")), 3);
    }
    drop(leases);
    assert_eq!(quotas.count_of(&user("ada")), 0);
    assert_counts(&pool, 0, 0, 0);
}

#[test]
fn the_limit_holds_while_claims_ends_and_sweeps_race() {
    let (builder, _) = named("at-limit-race");
    let pool: Arc<Pool> = Arc::new(builder.at_limit(AtLimit::EvictOldest).build().unwrap());
    scope(|threads| {
        for number in 0..4 {
            let pool = pool.clone();
            threads.spawn(move || {
                let mut held = Vec::new();
                for round in 0..500 {
                    if let Ok(Ok(lease)) = pool.reserve(&context("ada", None)).map(|claim| claim.open()) {
                        held.push(lease);
                    }
                    if round % 3 == number % 3 {
                        held.clear();
                    }
                    assert!(pool.check_user(&user("ada")).manager_count <= 3);
                }
            });
        }
    });
    assert_counts(&pool, 0, 0, 0);
}
