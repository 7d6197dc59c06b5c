//! What cleaning costs, and whom it disturbs:
//!
//! ```text
//! cargo bench --bench sweep
//! ```
//!
//! Prints the figures of one run, side by side. Nothing is asserted: times are the machine's.

#![allow(clippy::disallowed_methods)] // a benchmark reads the precise clock

use hdrhistogram::Histogram;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};
use ws_manager_pool::{
    Environment, IdGenerator, Lease, ManualClock, Pool, Scope, SweepPolicy, UserExecutionContext, UserId,
};

const MANAGERS: usize = 100_000;
const PER_USER: usize = 20;
const ROUNDS: usize = 15;

fn main() {
    // `cargo test --benches` only looks whether it runs.
    let managers = if std::env::args().any(|argument| argument == "--bench") { MANAGERS } else { 2_000 };
    println!("{} threads, {managers} managers of {} users\n", threads(), managers / PER_USER);
    let (pool, hand) = build(managers);
    let leases: Vec<_> = (0..managers).map(|number| open(&pool, number / PER_USER)).collect();

    println!("background round, nobody is due:");
    per_manager("  the regular one, of maintenance", quiet_round(managers), managers);
    let quiet = median(|| time(|| sweep(&pool, SweepPolicy::Background, 0)));
    per_manager("  by hand, which looks at each", quiet, managers);
    let (with_expiry, without) = refusals(managers);
    per_manager("a refusal that looks for forgotten reservations", with_expiry, managers);
    println!("{:<52} {:>14}", "  the refusal alone", micros(without));
    let listed = median(|| time(|| pool.check()));
    per_manager("check()", listed, managers);
    per_manager("ledger()", median(|| time(|| pool.ledger())), managers);
    per_manager("snapshot(), suspects included", median(|| time(|| pool.snapshot())), managers);

    // Half of every user's managers die; what is cleaned is opened again for the next round.
    println!();
    let mut leases: Vec<_> = leases.into_iter().map(Some).collect();
    let emergency = median(|| {
        revive(&pool, &hand, &mut leases, |number| number % 2 == 0);
        time(|| sweep(&pool, SweepPolicy::Emergency, managers / 2))
    });
    per_manager("emergency clean of the pool, half are dead", emergency, managers);
    let budget = pool.config().emergency_budget;
    println!("{:>70}", format!("{:.1} % of its budget of {budget:?}", percent(emergency, budget)));

    let background = median(|| {
        revive(&pool, &hand, &mut leases, |_| true);
        time(|| sweep(&pool, SweepPolicy::Background, managers))
    });
    per_manager("background round, all are due (all are cleaned)", background, managers);

    let user = user_id(0);
    let of_user = median(|| {
        revive(&pool, &hand, &mut leases, |number| number < PER_USER);
        let now = pool.clock().now();
        let (took, report) = time(|| pool.sweep(Scope::User(&user), SweepPolicy::Emergency, now, budget));
        assert_eq!(report.cleaned, PER_USER);
        (took, report)
    });
    println!("{:<52} {:>14}", "emergency clean of a user with 20 dead managers", micros(of_user));

    println!("\nacquire and release by other users, one thread, ns:       p50      p99    p99.9      max");
    revive(&pool, &hand, &mut leases, |_| false);
    let alone = acquires(&pool, || {});
    let beside = acquires_beside(&pool, &hand, &mut leases);
    for (name, histogram) in [("alone", &alone), ("while the pool is cleaned all the time", &beside)] {
        let at = |quantile| histogram.value_at_quantile(quantile);
        println!("{name:<52} {:>8} {:>8} {:>8} {:>8}", at(0.5), at(0.99), at(0.999), histogram.max());
    }
}

fn build(managers: usize) -> (Pool, ManualClock) {
    let (clock, hand) = ws_manager_pool::Clock::manual();
    let pool = Pool::builder()
        .name("bench-sweep")
        .environment(Environment::Production)
        .capacity(managers + 1_000)
        .clock(clock)
        .build();
    (pool.expect("the numbers are in range"), hand)
}

/// Maintenance remembers when each manager can be due, and need not look before.
fn quiet_round(managers: usize) -> Duration {
    let pool: Pool = Pool::builder()
        .name("bench-round")
        .capacity(managers)
        .background_interval(Duration::from_millis(1))
        .sample_interval(Duration::from_secs(3_600))
        .build()
        .expect("the numbers are in range");
    let _leases: Vec<_> = (0..managers).map(|number| open(&pool, number / PER_USER)).collect();
    let round = || loop {
        std::thread::sleep(Duration::from_millis(1));
        let report = pool.maintain(pool.clock().now()).sweeps.pop();
        if let Some(report) = report.filter(|report| report.is_complete) {
            assert_eq!((report.visited, report.found), (managers, 0));
            return (report.took, ());
        }
    };
    round();
    median(round)
}

/// In a full pool: what a refusal costs that looks for forgotten reservations, and one that need not, since that
/// has just been done.
fn refusals(managers: usize) -> (Duration, Duration) {
    let (clock, hand) = ws_manager_pool::Clock::manual();
    let pool: Pool = Pool::builder()
        .name("bench-refusal")
        .environment(Environment::Production)
        .capacity(managers)
        .clock(clock)
        .build()
        .expect("the numbers are in range");
    let _leases: Vec<_> = (0..managers).map(|number| open(&pool, number / PER_USER)).collect();
    hand.advance(pool.config().reservation_deadline);
    let ids = IdGenerator::user_context_ids("late", "bench");
    let context = UserExecutionContext::from_websocket_request("late", ids).expect("a valid id");
    let refuse = || time(|| assert!(pool.reserve(&context).is_err()));
    let with_expiry = || {
        hand.advance(Duration::from_millis(100));
        refuse()
    };
    with_expiry(); // the alarms of the handshakes are early by now
    (median(with_expiry), median(refuse))
}

fn user_id(number: usize) -> UserId {
    UserId::new(format!("user-{number}")).expect("a valid id")
}

fn open(pool: &Pool, user: usize) -> Lease {
    let user = format!("user-{user}");
    let ids = IdGenerator::user_context_ids(&user, "bench");
    let context = UserExecutionContext::from_websocket_request(&user, ids).expect("a valid id");
    let lease = pool.reserve(&context).expect("there is room").open().expect("at once");
    lease.connected().expect("it is new");
    lease
}

/// Opens again what was cleaned, lets the time pass that makes an idle manager dead, and keeps the
/// others active.
fn revive(pool: &Pool, hand: &ManualClock, leases: &mut [Option<Lease>], dies: impl Fn(usize) -> bool) {
    for (number, lease) in leases.iter_mut().enumerate() {
        if lease.as_ref().is_none_or(|lease| !lease.is_live()) {
            drop(lease.take()); // before, so that the user is never over its limit
            *lease = Some(open(pool, number / PER_USER));
        }
    }
    hand.advance(Duration::from_secs(600));
    for (number, lease) in leases.iter().enumerate() {
        if let Some(lease) = lease.as_ref().filter(|_| !dies(number)) {
            lease.received(1).expect("it is live");
        }
    }
}

fn sweep(pool: &Pool, policy: SweepPolicy, expected: usize) -> usize {
    let report = pool.sweep(Scope::Pool, policy, pool.clock().now(), Duration::MAX);
    assert_eq!((report.found, report.cleaned), (expected, expected), "{policy:?}");
    report.cleaned
}

/// A thread's acquires while `beside` is done once.
fn acquires(pool: &Pool, beside: impl FnOnce()) -> Histogram<u64> {
    let is_over = AtomicBool::new(false);
    let mut acquired = histogram();
    scope(|threads| {
        let acquiring = threads.spawn(|| {
            let mut histogram = histogram();
            while !is_over.load(Ordering::Relaxed) || histogram.len() < 100_000 {
                let start = Instant::now();
                drop(black_box(open(pool, usize::MAX)));
                histogram.saturating_record(start.elapsed().as_nanos() as u64);
            }
            histogram
        });
        beside();
        is_over.store(true, Ordering::Relaxed);
        acquired = acquiring.join().expect("it does not panic");
    });
    acquired
}

/// Up to a minute, in nanoseconds, three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("a valid range")
}

fn acquires_beside(pool: &Pool, hand: &ManualClock, leases: &mut [Option<Lease>]) -> Histogram<u64> {
    let mut sum = histogram();
    for _ in 0..ROUNDS {
        revive(pool, hand, leases, |number| number % 2 == 0);
        let clean = || assert!(black_box(sweep(pool, SweepPolicy::Emergency, leases.len() / 2)) > 0);
        sum.add(acquires(pool, clean)).expect("of one kind");
    }
    sum
}

fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

fn median<T>(mut round: impl FnMut() -> (Duration, T)) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS).map(|_| round().0).collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

fn per_manager(what: &str, took: Duration, managers: usize) {
    let each = took.as_nanos() as f64 / managers as f64;
    println!("{what:<52} {:>14} {:>10.2} ns each", micros(took), each);
}

fn micros(took: Duration) -> String {
    format!("{:.1} µs", took.as_nanos() as f64 / 1e3)
}

fn percent(part: Duration, whole: Duration) -> f64 {
    100.0 * part.as_secs_f64() / whole.as_secs_f64()
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
