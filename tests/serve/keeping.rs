//! A pool without `serve` can be looked after by a task of its own.

use super::support::{PATIENCE, context, eventually};
use std::time::Duration;
use ws_manager_pool::{Config, EndReason, Environment, Pool, PoolBuilder};

fn builder(name: &str) -> PoolBuilder<()> {
    Pool::builder().name(name).environment(Environment::Ci)
}

#[tokio::test]
async fn spawned_maintenance_takes_back_what_was_forgotten_and_ends_with_the_pool() {
    let pool = builder("spawned").reservation_deadline(Duration::from_millis(50)).build().unwrap();
    assert!(pool.spawn_maintenance());
    assert!(!pool.spawn_maintenance(), "there is one already");
    std::mem::forget(pool.reserve(&context("ada", None)).unwrap());
    eventually("the reservation is taken back", || pool.snapshot().reserved == 0).await;
    drop(pool);
    // What was forgotten keeps a stripe of the pool alive, so the name of this one stays taken: another
    // one is free again as soon as its last handle is gone, though its task sleeps.
    let pool = builder("spawned-again").build().unwrap();
    assert!(pool.spawn_maintenance());
    drop(pool);
    eventually("the pool is gone", || builder("spawned-again").build().is_ok()).await;
}

#[tokio::test]
async fn spawned_maintenance_sweeps_and_heeds_other_numbers() {
    let pool = builder("spawned-sweeps").build().unwrap();
    assert!(pool.spawn_maintenance());
    let lease = pool.reserve(&context("ada", None)).unwrap().open().unwrap();
    let mut config = Config::clone(&pool.config());
    config.background_interval = Duration::from_millis(100);
    config.idle_background = Some(Duration::from_millis(100));
    (config.idle_proactive, config.idle_emergency) = (Duration::from_millis(100), Duration::from_millis(100));
    pool.reconfigure(config).unwrap();
    eventually("the idle manager is gone", || !lease.is_live()).await;
    assert_eq!(lease.revoked().unwrap().reason(), EndReason::Idle);
    assert!(pool.snapshot().maintenance.last_ms_ago < PATIENCE.as_millis() as u64);
}

#[test]
fn when_its_runtime_ends_another_one_can_take_over() {
    let pool = builder("spawned-twice").build().unwrap();
    for _ in 0..2 {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            eventually("the post is vacant", || pool.spawn_maintenance()).await;
        });
    }
}
