//! With 10,000 managers live, on one thread: random churn, get by key, and a walk over all of them:
//! `cargo bench --manifest-path benches/peers/Cargo.toml --bench live`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use ws_manager_pool_peers::place::{Contender, Timed};
use ws_manager_pool_peers::roster::{CAPACITY, LIVE, core};

fn churn(c: &mut Criterion) {
    each(c, "churn", 1, |contender| contender.churn(LIVE));
}

fn gets(c: &mut Criterion) {
    each(c, "get", 1, |contender| contender.gets(LIVE));
}

fn walks(c: &mut Criterion) {
    each(c, "walk", LIVE as u64, |contender| contender.walks(LIVE));
}

/// `elements` is how many managers one operation sees.
fn each(c: &mut Criterion, name: &str, elements: u64, prepare: fn(&dyn Contender) -> Option<Timed<'_>>) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(elements));
    for contender in core(CAPACITY) {
        if let Some(mut timed) = prepare(&*contender) {
            group.bench_function(contender.name(), |b| b.iter_custom(&mut timed));
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = churn, gets, walks
}
criterion_main!(benches);
