//! The whole pool (ids, quota, registry, ledger) against what a server usually does for a connection:
//! strings, an `Arc`, a channel of 64 and a `DashMap`, on one thread:
//! `cargo bench --manifest-path benches/peers/Cargo.toml --bench usual`.
//!
//! For two threads see `contention`.

use criterion::{Criterion, criterion_group, criterion_main};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use ws_manager_pool_peers::record::Ids;
use ws_manager_pool_peers::roster::{CAPACITY, LIVE, whole};

fn lives(c: &mut Criterion) {
    let mut group = c.benchmark_group("whole life");
    for contender in whole(CAPACITY) {
        let mut ids = Ids::new(0);
        group.bench_function(contender.name(), |b| {
            b.iter_custom(|lives| {
                let stretch = contender.lives(&mut ids, lives, &AtomicBool::new(false));
                stretch.took().mul_f64(lives as f64 / stretch.operations as f64)
            });
        });
    }
    group.finish();
}

fn churn(c: &mut Criterion) {
    let mut group = c.benchmark_group("whole churn");
    for contender in whole(CAPACITY) {
        if let Some(mut timed) = contender.churn(LIVE) {
            group.bench_function(contender.name(), |b| b.iter_custom(&mut timed));
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = lives, churn
}
criterion_main!(benches);
