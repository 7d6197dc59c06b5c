//! A manager's life on one thread, and its two halves apart, so that neither hides in the other:
//! `cargo bench --manifest-path benches/peers/Cargo.toml --bench life`.

use criterion::{Criterion, criterion_group, criterion_main};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use ws_manager_pool_peers::record::Ids;
use ws_manager_pool_peers::roster::{CAPACITY, core};

/// Managers that are held between the halves.
const HELD: usize = 1_000;

fn lives(c: &mut Criterion) {
    let mut group = c.benchmark_group("life");
    for contender in core(CAPACITY) {
        let mut ids = Ids::new(0);
        group.bench_function(contender.name(), |b| {
            b.iter_custom(|lives| {
                // They come in blocks of 32: what is measured is one.
                let stretch = contender.lives(&mut ids, lives, &AtomicBool::new(false));
                stretch.took().mul_f64(lives as f64 / stretch.operations as f64)
            });
        });
    }
    group.finish();
}

fn halves(c: &mut Criterion) {
    for (half, name) in ["acquire", "release"].into_iter().enumerate() {
        let mut group = c.benchmark_group(name);
        for contender in core(CAPACITY) {
            let mut ids = Ids::new(0);
            let mut of = |managers| {
                let halves = contender.halves(&mut ids, managers)?;
                Some([halves.0, halves.1][half])
            };
            if of(HELD).is_none() {
                continue; // a floor has one manager
            }
            group.bench_function(contender.name(), |b| {
                b.iter_custom(|managers| {
                    let batches = managers.div_ceil(HELD as u64);
                    let took: Duration = (0..batches).filter_map(|_| of(HELD)).sum();
                    took.mul_f64(managers as f64 / (batches * HELD as u64) as f64)
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = lives, halves
}
criterion_main!(benches);
