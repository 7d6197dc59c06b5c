//! Handing one message to thousands of connections: the time of that call alone.
//!
//! Each connection has a task that waits for its messages, as in a server. The payload is shared in
//! all contenders. *Parked*: every task sleeps and is woken by the message. *Awake*: every task has
//! been woken and has not run yet, so what is left is the queueing; the difference is what waking
//! costs.

use crate::Effort;
use crate::loopback::Result;
use crate::table::{Better, GAIN, Samples, heading, lines};
use bytes::Bytes;
use dashmap::DashMap;
use futures_util::task::AtomicWaker;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message as Wire;
use ws_manager_pool::{IdGenerator, Lease, Message, Pool, UserExecutionContext};

/// The bound of the usual channel; the pool's queues have the same.
const QUEUE: usize = 64;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn compare(effort: Effort) -> Result<()> {
    let one_thread = || Builder::new_current_thread().enable_time().build();
    let two_threads = || Builder::new_multi_thread().worker_threads(2).enable_time().build();
    for connections in effort.choose([2_000, 10_000], [50, 100]) {
        println!("enqueue: one message to each of {connections} connections");
        for (threads, runtime) in [("one thread", one_thread()?), ("two threads", two_threads()?)] {
            let ways = ways(&runtime, connections)?;
            for size in [16, 128, 512] {
                measure(&runtime, &ways, threads, connections, size, effort)?;
            }
            drop(runtime); // and with it all tasks
            for way in ways.iter() {
                way.finish()?;
            }
        }
        println!();
    }
    Ok(())
}

/// A way to hand a message to everybody.
struct Way {
    name: &'static str,
    /// Returns how many took it.
    broadcast: Box<dyn Fn(Bytes) -> usize + Send + Sync>,
    received: Arc<AtomicUsize>,
    sent: AtomicUsize,
}

impl Way {
    fn timed(&self, payload: Bytes, connections: usize) -> Result<f64> {
        let begun = Instant::now();
        let taken = (self.broadcast)(payload);
        let took = begun.elapsed();
        self.sent.fetch_add(taken, Ordering::Relaxed);
        if taken != connections {
            return Err(format!("{}: only {taken} of {connections} took the message", self.name).into());
        }
        Ok(took.as_secs_f64() * 1e6)
    }

    /// Waits until every task has had its messages and sleeps again.
    async fn settle(&self) -> Result<()> {
        let everybody_has_all = async {
            while self.received.load(Ordering::Relaxed) < self.sent.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(1)).await;
            }
            // The last ones have counted, and are about to wait.
            sleep(Duration::from_millis(1)).await;
        };
        Ok(timeout(PATIENCE, everybody_has_all).await?)
    }

    fn finish(&self) -> Result<()> {
        let (sent, received) = (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed));
        if sent == received {
            return Ok(());
        }
        Err(format!("{}: {sent} messages were taken, {received} arrived", self.name).into())
    }
}

fn measure(
    runtime: &Runtime,
    ways: &Arc<[Way]>,
    threads: &str,
    connections: usize,
    size: usize,
    effort: Effort,
) -> Result<()> {
    let rounds = effort.choose(41, 3);
    let is_alone = threads == "one thread";
    let (ways_of_task, payload) = (ways.clone(), vec![b'x'; size]);
    // In a task, as a handler would: not from outside of the runtime.
    let measured = runtime.spawn(async move {
        let figures = || ways_of_task.iter().map(|way| (way.name, Samples::default())).collect::<Vec<_>>();
        let (mut parked, mut awake) = (figures(), figures());
        for round in 0..=rounds {
            for (index, way) in ways_of_task.iter().enumerate() {
                let first =
                    way.timed(Bytes::from(payload.clone()), connections).map_err(|e| e.to_string())?;
                let second = if is_alone {
                    // Nobody has run since: one thread, and it is this one.
                    way.timed(Bytes::from(payload.clone()), connections).map_err(|e| e.to_string())?
                } else {
                    0.0
                };
                way.settle().await.map_err(|e| e.to_string())?;
                // The first round warms up.
                if round > 0 {
                    parked[index].1.add(first);
                    awake[index].1.add(second);
                }
            }
        }
        Ok::<_, String>((parked, awake))
    });
    let (parked, awake) = runtime.block_on(measured)??;
    heading(&format!("{size} B, {threads}, parked"), "µs", GAIN);
    lines(&parked, Better::Less);
    if is_alone {
        heading(&format!("{size} B, {threads}, awake"), "µs", GAIN);
        lines(&awake, Better::Less);
    }
    Ok(())
}

fn ways(runtime: &Runtime, connections: usize) -> Result<Arc<[Way]>> {
    Ok([
        pool(runtime, connections)?,
        map(runtime, connections),
        dashmap(runtime, connections),
        wakes(runtime, connections),
    ]
    .into())
}

fn pool(runtime: &Runtime, connections: usize) -> Result<Way> {
    let pool: Pool = Pool::builder().name("bench-enqueue").capacity(connections).build()?;
    let received = Arc::new(AtomicUsize::new(0));
    for number in 0..connections {
        let user = user(number);
        let context = UserExecutionContext::from_websocket_request(
            &user,
            IdGenerator::user_context_ids(&user, "bench"),
        )?;
        let lease = pool.reserve(&context)?.open()?;
        runtime.spawn(receive_from_pool(lease, received.clone()));
    }
    let broadcast = move |payload| pool.broadcast(Message::binary(payload)).queued;
    Ok(Way { name: "pool.broadcast", broadcast: Box::new(broadcast), received, sent: AtomicUsize::new(0) })
}

async fn receive_from_pool(mut lease: Lease, received: Arc<AtomicUsize>) {
    while poll_fn(|cx| lease.poll_message(cx)).await.is_ok() {
        received.fetch_add(1, Ordering::Relaxed);
    }
}

fn map(runtime: &Runtime, connections: usize) -> Way {
    let received = Arc::new(AtomicUsize::new(0));
    let senders: HashMap<_, _> =
        (0..connections).map(|number| (user(number), channel(runtime, &received))).collect();
    let senders = RwLock::new(senders);
    let broadcast = move |payload| {
        let message = Wire::Binary(payload);
        senders.read().values().filter(|sender| sender.try_send(message.clone()).is_ok()).count()
    };
    Way {
        name: "mpsc + RwLock<HashMap>",
        broadcast: Box::new(broadcast),
        received,
        sent: AtomicUsize::new(0),
    }
}

fn dashmap(runtime: &Runtime, connections: usize) -> Way {
    let received = Arc::new(AtomicUsize::new(0));
    let senders: DashMap<_, _> =
        (0..connections).map(|number| (user(number), channel(runtime, &received))).collect();
    let broadcast = move |payload| {
        let message = Wire::Binary(payload);
        senders.iter().filter(|sender| sender.try_send(message.clone()).is_ok()).count()
    };
    Way { name: "mpsc + DashMap", broadcast: Box::new(broadcast), received, sent: AtomicUsize::new(0) }
}

/// No message at all: what it takes to wake each task, which nobody who wakes it himself goes below.
fn wakes(runtime: &Runtime, connections: usize) -> Way {
    let received = Arc::new(AtomicUsize::new(0));
    let sleepers: Vec<_> = (0..connections)
        .map(|_| {
            let sleeper = Arc::new(Sleeper::default());
            let (asleep, received) = (sleeper.clone(), received.clone());
            runtime.spawn(async move {
                loop {
                    asleep.signalled().await;
                    received.fetch_add(1, Ordering::Relaxed);
                }
            });
            sleeper
        })
        .collect();
    let broadcast = move |_payload| {
        for sleeper in &sleepers {
            sleeper.signals.fetch_add(1, Ordering::Relaxed);
            sleeper.waker.wake();
        }
        sleepers.len()
    };
    Way {
        name: "floor: the wakes alone",
        broadcast: Box::new(broadcast),
        received,
        sent: AtomicUsize::new(0),
    }
}

#[derive(Default)]
struct Sleeper {
    waker: AtomicWaker,
    signals: AtomicUsize,
}

impl Sleeper {
    async fn signalled(&self) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            let taken = self.signals.try_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            if taken.is_ok() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

fn channel(runtime: &Runtime, received: &Arc<AtomicUsize>) -> mpsc::Sender<Wire> {
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    let received = received.clone();
    runtime.spawn(async move {
        while receiver.recv().await.is_some() {
            received.fetch_add(1, Ordering::Relaxed);
        }
    });
    sender
}

fn user(number: usize) -> String {
    format!("user-{number}")
}
