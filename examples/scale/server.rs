//! The measured side: accepts connections, serves them, and does what it is asked.

use crate::loopback::Result;
use crate::managers::ROUNDS;
use crate::memory::counted;
use crate::options::Way;
use crate::ways;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::io::stdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::runtime::Handle;
use tokio::time::sleep;
use ws_manager_pool::serve::{application, drain};
use ws_manager_pool::{Environment, Message, Pool};

/// How long what is waited for may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// No ping, and nothing else to do, while the memory is looked at.
const SILENCE: Duration = Duration::from_secs(3_600);

/// Handshakes that the kernel keeps for us, as far as it wants to.
const BACKLOG: u32 = 65_535;

/// Serves until the process is killed. The first line it prints is its address.
pub(crate) fn run(way: Way, sockets: usize) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let pool = Pool::builder()
            .name("scale")
            .environment(Environment::Production)
            .capacity(sockets + 1_000)
            .heartbeat_interval(SILENCE)
            .idle_background(None)
            .build()?;
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind("127.0.0.1:0".parse()?)?;
        let listener = socket.listen(BACKLOG)?;
        println!("{}", listener.local_addr()?);
        let refused = Arc::new(AtomicU64::new(0));
        let gate = ways::gate(&pool);
        answer(pool.clone(), refused.clone());
        loop {
            let vacancy = if way == Way::Own { Some(gate.vacancy().await) } else { None };
            let Ok((stream, _)) = listener.accept().await else {
                // No file is left: some of those who were cut off have not been noticed yet.
                refused.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(1)).await;
                continue;
            };
            stream.set_nodelay(true)?;
            match vacancy {
                Some(vacancy) => drop(tokio::spawn(vacancy.accept(stream, application(|_, _| Ok(()))))),
                None => drop(tokio::spawn(ways::enter(way, stream, pool.clone()))),
            }
        }
    })
}

/// Answers questions, each a line, on a thread of its own.
fn answer(pool: Pool, refused: Arc<AtomicU64>) {
    let runtime = Handle::current();
    std::thread::spawn(move || {
        for question in stdin().lines().map_while(std::result::Result::ok) {
            let answer = match question.split(' ').collect::<Vec<_>>()[..] {
                ["until", live, opened] => runtime.block_on(until(&pool, number(live), number(opened))),
                ["broadcast", count] => broadcast(&pool, count),
                ["cpu"] => json!({ "us": cpu_micros() }),
                ["memory"] => {
                    let (allocated, allocations) = counted();
                    json!({ "allocated": allocated, "allocations": allocations })
                }
                ["account"] => account(&pool, &refused),
                ["drain"] => runtime.block_on(drained(&pool)),
                _ => json!({ "error": format!("{question:?}?") }),
            };
            println!("{answer}");
        }
    });
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(u64::MAX)
}

/// Waits until so many are live, of so many that have been opened since the beginning, and the account is
/// balanced.
async fn until(pool: &Pool, live: u64, opened: u64) -> serde_json::Value {
    let begun = Instant::now();
    loop {
        let ledger = pool.ledger();
        if ledger.balanced && ledger.leases as u64 == live && ledger.tally.opened >= opened {
            return json!({ "live": live });
        }
        if begun.elapsed() > PATIENCE {
            return json!({ "error": format!("{live} live of {opened} opened, in vain: {ledger:?}") });
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// Says a number to everybody.
fn broadcast(pool: &Pool, count: &str) -> serde_json::Value {
    let message = Message::text(count.to_owned());
    let start = Instant::now();
    let report = pool.broadcast(message);
    json!({
        "us": start.elapsed().as_nanos() as f64 / 1e3,
        "addressed": report.addressed(),
        "is_complete": report.is_complete(),
    })
}

fn account(pool: &Pool, refused: &AtomicU64) -> serde_json::Value {
    let snapshot = pool.snapshot();
    json!({
        "balanced": snapshot.ledger.balanced,
        "leases": snapshot.ledger.leases,
        "occupied_slots": snapshot.ledger.occupied_slots,
        "inbound_leased_bytes": snapshot.inbound.leased_bytes,
        "accepts_without_a_file": refused.load(Ordering::Relaxed),
    })
}

/// As fast as it goes: the rate is for servers that others take over from.
async fn drained(pool: &Pool) -> serde_json::Value {
    let start = Instant::now();
    let report = drain(pool).rate(usize::MAX).timeout(PATIENCE).await;
    let took = start.elapsed();
    for _ in 0..ROUNDS {
        pool.maintain(pool.clock().now());
    }
    json!({
        "ms": took.as_secs_f64() * 1e3,
        "evicted": report.evicted,
        "finished": report.finished,
        "remaining": report.remaining,
    })
}

/// What the process has used of all cores, in microseconds.
fn cpu_micros() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 * 1e6 + spent.tv_nsec as f64 / 1e3
}
