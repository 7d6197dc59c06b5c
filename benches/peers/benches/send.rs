//! A message to one of 10,000 connections by key, and its taking, on one thread:
//! `cargo bench --manifest-path benches/peers/Cargo.toml --bench send`.
//!
//! What handing one message to all costs, with tasks that wait for it, is in the crate's own bench:
//! `cargo bench --bench delivery --features tungstenite -- enqueue`.

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use dashmap::DashMap;
use std::hint::black_box;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use ws_manager_pool::{Lease, Message};
use ws_manager_pool_peers::ours::Whole;
use ws_manager_pool_peers::place::Place;
use ws_manager_pool_peers::record::Ids;
use ws_manager_pool_peers::roster::{CAPACITY, LIVE};

/// As the pool's queues.
const QUEUE: usize = 64;

const TEXT: &str = "hello";

fn send(c: &mut Criterion) {
    let mut group = c.benchmark_group("send to a key, take");
    let mut ids = Ids::new(0);

    let place = Whole::<()>::new("send", CAPACITY);
    let mut leases: Vec<Lease> = (0..LIVE).map(|_| place.acquire(&mut ids)).collect();
    group.bench_function("Pool", |b| {
        b.iter(|| {
            let lease = &mut leases[ids.below(LIVE)];
            assert!(place.pool.send(lease.key(), Message::text_static(TEXT)).is_queued());
            black_box(lease.next_message()).expect("live")
        });
    });

    let senders: DashMap<String, Sender<Bytes>> = DashMap::new();
    let mut receivers: Vec<(String, Receiver<Bytes>)> = (0..LIVE)
        .map(|number| {
            let (key, (sender, receiver)) = (format!("user-{number}:{}", ids.fresh()), channel(QUEUE));
            senders.insert(key.clone(), sender);
            (key, receiver)
        })
        .collect();
    group.bench_function("DashMap by string key, mpsc", |b| {
        b.iter(|| {
            let (key, receiver) = &mut receivers[ids.below(LIVE)];
            let sender = senders.get(key).expect("it is live");
            sender.try_send(Bytes::from_static(TEXT.as_bytes())).expect("there is room");
            black_box(receiver.try_recv()).expect("it was just sent")
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = send
}
criterion_main!(benches);
