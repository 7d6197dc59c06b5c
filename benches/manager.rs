//! What a manager costs: from the slab alone, and from the whole pool with ids, quota and registry.
//!
//! `cargo bench --bench manager`. What others take for the same work is measured beside it, in one run, by
//! the package in `benches/peers`:
//! `cargo bench --manifest-path benches/peers/Cargo.toml --bench table`.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::collections::VecDeque;
use std::hint::black_box;
use ws_manager_pool::slab::{Fate, Options, Resident, Slab, Vacated};
use ws_manager_pool::{EndReason, IdGenerator, Message, Pool, UserExecutionContext};

const CAPACITY: usize = 10_000;

/// What a server keeps for a connection.
struct Record {
    user: String,
    thread: String,
    run: String,
    read: Vec<u8>,
    write: Vec<u8>,
    queue: VecDeque<Message>,
    received: u64,
    sent: u64,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            user: String::with_capacity(48),
            thread: String::with_capacity(48),
            run: String::with_capacity(48),
            read: Vec::with_capacity(4_096),
            write: Vec::with_capacity(4_096),
            queue: VecDeque::with_capacity(64),
            received: 0,
            sent: 0,
        }
    }
}

impl Record {
    fn begin(&mut self) {
        self.user.push_str("user-4711");
        self.thread.push_str("thread_0123456789abcdef0123456789abcdef");
        self.run.push_str("0123456789abcdef0123456789abcdef");
        self.received += 1;
    }

    fn clear(&mut self) {
        self.user.clear();
        self.thread.clear();
        self.run.clear();
        self.read.clear();
        self.write.clear();
        self.queue.clear();
        (self.received, self.sent) = (0, 0);
    }
}

struct Records;

impl Resident for Records {
    type Glance = ();
    type Shared = Record;
    type Owned = ();
    type Residue = ();

    fn clean(&self, vacated: Vacated<'_, Self>) -> (Fate, ()) {
        vacated.shared.clear();
        (Fate::Free, ())
    }

    fn freed(&self, (): ()) {}
}

/// The same work on one thread: take a manager, write its ids, clear it, give it back.
fn life(c: &mut Criterion) {
    let mut group = c.benchmark_group("life");

    let mut floor = Record::default();
    group.bench_function("floor: reset only, no pool", |b| {
        b.iter(|| {
            black_box(&mut floor).begin();
            floor.clear();
        });
    });

    let slab = Slab::new(Records, Options::with_capacity(CAPACITY));
    group.bench_function("slab: start, open, close", |b| {
        b.iter(|| {
            let mut starting = slab.start().expect("the slab is not full");
            starting.value(|_, record, _| record.begin());
            let owner = starting.publish();
            drop(slab.close(black_box(owner).key()));
        });
    });
    group.finish();
}

/// Acquire and release apart, in batches, so that neither hides in the other.
fn acquire_and_release(c: &mut Criterion) {
    const BATCH: usize = 1_000;
    let slab = Slab::new(Records, Options::with_capacity(CAPACITY));
    let open = || {
        let mut starting = slab.start().expect("the slab is not full");
        starting.value(|_, record, _| record.begin());
        starting.publish().key()
    };
    // Warm: the pages are there.
    for key in std::iter::repeat_with(open).take(BATCH).collect::<Vec<_>>() {
        drop(slab.close(key));
    }

    let mut group = c.benchmark_group("acquire x1000");
    group.bench_function("slab", |b| {
        b.iter_batched(
            || Vec::with_capacity(BATCH),
            |mut keys| {
                keys.extend(std::iter::repeat_with(open).take(BATCH));
                Release(&slab, keys)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();

    let mut group = c.benchmark_group("release x1000");
    group.bench_function("slab", |b| {
        b.iter_batched(
            || std::iter::repeat_with(open).take(BATCH).collect::<Vec<_>>(),
            |keys| keys.iter().for_each(|&key| drop(slab.close(key))),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Gives the keys back after the clock has stopped.
struct Release<'a>(&'a Slab<Records>, Vec<ws_manager_pool::ManagerKey>);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.1.iter().for_each(|&key| drop(self.0.close(key)));
    }
}

/// The whole pool: ids, quota, registry, lease, a message, and the end.
fn whole(c: &mut Criterion) {
    let pool: Pool = Pool::builder().name("bench").capacity(CAPACITY).build().expect("the numbers are valid");
    let mut group = c.benchmark_group("whole life");
    group.bench_function("ids, reserve, open, drop", |b| {
        b.iter(|| {
            let ids = IdGenerator::user_context_ids("user-4711", "bench");
            let context = UserExecutionContext::from_websocket_request("user-4711", ids).expect("valid");
            let lease = pool.reserve(&context).expect("room").open().expect("in time");
            drop(black_box(lease));
        });
    });
    group.bench_function("reserve, open, drop", |b| {
        let ids = IdGenerator::user_context_ids("user-4711", "bench");
        let context = UserExecutionContext::from_websocket_request("user-4711", ids).expect("valid");
        b.iter(|| {
            let lease = pool.reserve(&context).expect("room").open().expect("in time");
            lease.close(EndReason::Closed).expect("first");
        });
    });
    group.bench_function("send to a key, take", |b| {
        let ids = IdGenerator::user_context_ids("user-4711", "bench");
        let context = UserExecutionContext::from_websocket_request("user-4711", ids).expect("valid");
        let mut lease = pool.reserve(&context).expect("room").open().expect("in time");
        b.iter(|| {
            assert!(pool.send(lease.key(), Message::text_static("hello")).is_queued());
            black_box(lease.next_message()).expect("live");
        });
    });
    group.finish();
}

criterion_group!(benches, life, acquire_and_release, whole);
criterion_main!(benches);
