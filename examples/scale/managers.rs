//! Many managers in one process, without sockets. Each size has a process of its own, so that no memory
//! is left of the one before.

use crate::loopback::{Process, Result};
use crate::memory::Memory;
use crate::options::Effort;
use crate::table::Figures;
use hdrhistogram::Histogram;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::hint::black_box;
use std::time::{Duration, Instant};
use ws_manager_pool::{
    Environment, IdGenerator, Lease, ManagerKey, Pool, Reservation, Scope, SweepPolicy, UserExecutionContext,
};

/// Connections of a user, each on a thread of its own.
const PER_USER: usize = 10;

/// Rounds of maintenance after which everything that can be given back has been: what is kept for a peak
/// that comes again is halved in each, and pages go when no walk can see them any more.
pub(crate) const ROUNDS: usize = 300;

/// Bytes that go through the caches to have nothing else in them.
const FLUSHING: usize = 256 << 20;

/// Measures one size in a process of its own.
pub(crate) fn measure(managers: usize, effort: Effort) -> Result<Figures> {
    eprintln!("{managers} managers …");
    let quick = effort.choose("full", "quick");
    let answer = Process::start(&format!("managers {managers} {quick}"))?.ask("figures")?;
    Figures::from_json(&answer).map_err(|_| format!("{managers} managers could not be measured").into())
}

/// The other side of [`measure`].
pub(crate) fn run(managers: usize, effort: Effort) -> Result<()> {
    std::io::stdin().read_line(&mut String::new())?;
    let house = House::build(managers, effort.choose(200_000, 10_000))?;
    println!("{}", house.measure(effort.choose(7, 2))?.to_json());
    Ok(())
}

struct House {
    pool: Pool,
    leases: Vec<Option<Lease>>,
    chance: ChaCha8Rng,
    /// How often a single operation is timed.
    probes: usize,
    figures: Figures,
}

impl House {
    fn build(managers: usize, probes: usize) -> Result<Self> {
        let pool = Pool::builder()
            .name("scale")
            .environment(Environment::Production)
            .capacity(managers + 1_000)
            .idle_background(None)
            .build()?;
        // In memory before anything is counted.
        let leases = std::iter::repeat_with(|| None).take(managers).collect();
        let chance = ChaCha8Rng::seed_from_u64(7);
        Ok(Self { pool, leases, chance, probes, figures: Figures::default() })
    }

    fn measure(mut self, rounds: usize) -> Result<Figures> {
        drop(self.acquire_timed("warm-up").1?);
        self.figures.set("managers", self.leases.len() as f64);
        let before = Memory::now()?;
        let took = self.fill()?;
        let full = Memory::now()?.since(&before);
        self.figures.quantiles("fill", &took);
        let managers = self.leases.len() as f64;
        self.figures.set("bytes_each_resident", full.resident / managers);
        self.figures.set("bytes_each_allocated", full.allocated / managers);
        self.figures.set("allocations_each", full.allocations / managers);
        self.account(self.leases.len())?;

        self.acquire_hot()?;
        self.acquire_any("acquire_any", usize::MAX, || {})?;
        let mut other = vec![1_u8; FLUSHING];
        self.acquire_any("acquire_flushed", 3 * rounds, || {
            other.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
            black_box(&other);
        })?;
        drop(other);
        self.look_up(rounds)?;
        self.figures.set("miss_ns", cache_miss(full.allocated as usize, &mut self.chance));
        self.walk(rounds)?;
        self.account(self.leases.len())?;
        self.release(&before, &full)?;
        self.fill()?;
        let again = Memory::now()?.since(&before);
        self.figures.set("again_percent_resident", 100.0 * again.resident / full.resident);
        Ok(self.figures)
    }

    /// Opens all, one after the other. Returns how long each took.
    fn fill(&mut self) -> Result<Histogram<u64>> {
        let mut took = histogram();
        for number in 0..self.leases.len() {
            let (span, lease) = self.acquire_timed(&user(number));
            took.saturating_record(span);
            self.leases[number] = Some(lease?);
        }
        Ok(took)
    }

    /// One user who comes and goes: everything that is touched is in the cache.
    fn acquire_hot(&mut self) -> Result<()> {
        let mut took = histogram();
        for _ in 0..self.probes {
            let (span, lease) = self.acquire_timed("comes-and-goes");
            took.saturating_record(span);
            drop(lease?);
        }
        self.figures.quantiles("acquire_hot", &took);
        Ok(())
    }

    /// One in a hundred of the connections ends, and comes back after the others of these.
    fn acquire_any(&mut self, name: &str, rounds: usize, mut before: impl FnMut()) -> Result<()> {
        let mut took = histogram();
        let mut order: Vec<usize> = (0..self.leases.len()).collect();
        let at_once = (order.len() / 100).clamp(1, 10_000);
        for _ in 0..rounds {
            if took.len() as usize >= self.probes {
                break;
            }
            let (batch, _) = order.partial_shuffle(&mut self.chance, at_once);
            for &mut number in &mut *batch {
                self.leases[number] = None;
            }
            before();
            for &mut number in batch {
                let (span, lease) = self.acquire_timed(&user(number));
                took.saturating_record(span);
                self.leases[number] = Some(lease?);
            }
        }
        self.figures.quantiles(name, &took);
        Ok(())
    }

    fn look_up(&mut self, rounds: usize) -> Result<()> {
        let mut keys: Vec<ManagerKey> = self.leases.iter().flatten().map(Lease::key).collect();
        keys.shuffle(&mut self.chance);
        let found = |keys: &mut dyn Iterator<Item = ManagerKey>| {
            keys.filter(|&key| self.pool.inspect(key, |it| black_box(it.messages_in())).is_some()).count()
        };
        if found(&mut keys.iter().copied()) != keys.len() {
            return Err("a manager was not found by its key".into());
        }
        let probes = self.probes;
        let hot = fastest(rounds, || found(&mut std::iter::repeat_n(keys[0], probes)));
        let mut all = keys.iter().copied().cycle();
        let cold = fastest(rounds, || found(&mut all.by_ref().take(probes)));
        self.figures.set("get_hot_ns", hot.as_nanos() as f64 / probes as f64);
        self.figures.set("get_cold_ns", cold.as_nanos() as f64 / probes as f64);
        Ok(())
    }

    /// What visits everything.
    fn walk(&mut self, rounds: usize) -> Result<()> {
        let (pool, managers) = (&self.pool, self.leases.len());
        let now = pool.clock().now();
        let sweep = || pool.sweep(Scope::Pool, SweepPolicy::Background, now, Duration::MAX);
        if sweep().found > 0 {
            return Err("a sweep found somebody dead".into());
        }
        let walks = [
            ("sweep", fastest(rounds, sweep)),
            ("check", fastest(rounds, || pool.check())),
            ("ledger", fastest(rounds, || pool.ledger())),
            ("snapshot", fastest(rounds, || pool.snapshot())),
        ];
        for (name, took) in walks {
            self.figures.set(&format!("{name}_us"), took.as_nanos() as f64 / 1e3);
            self.figures.set(&format!("{name}_ns_each"), took.as_nanos() as f64 / managers as f64);
        }
        Ok(())
    }

    /// Everybody goes, and what they needed as well.
    fn release(&mut self, before: &Memory, full: &Memory) -> Result<()> {
        let managers = self.leases.len() as f64;
        self.leases.shuffle(&mut self.chance);
        let start = Instant::now();
        self.leases.iter_mut().for_each(|lease| *lease = None);
        self.figures.set("release_ns_each", start.elapsed().as_nanos() as f64 / managers);
        let start = Instant::now();
        for _ in 0..ROUNDS {
            self.pool.maintain(self.pool.clock().now());
        }
        self.figures.set("tidy_ms", start.elapsed().as_secs_f64() * 1e3);
        self.account(0)?;
        let left = Memory::now()?.since(before);
        self.figures.set("left_kib_allocated", left.allocated / 1_024.0);
        self.figures.set("left_percent_allocated", 100.0 * left.allocated / full.allocated);
        self.figures.set("left_percent_resident", 100.0 * left.resident / full.resident);
        Ok(())
    }

    /// The account is balanced, and holds so many.
    fn account(&self, managers: usize) -> Result<()> {
        let ledger = self.pool.ledger();
        if ledger.balanced && (ledger.leases, ledger.occupied_slots) == (managers, managers) {
            return Ok(());
        }
        Err(format!("{managers} managers, and the account says: {ledger:?}").into())
    }

    /// Nanoseconds from reserving to being open.
    fn acquire_timed(&self, user: &str) -> (u64, Result<Lease>) {
        let context = match context(user) {
            Ok(context) => context,
            Err(error) => return (0, Err(error)),
        };
        let start = Instant::now();
        let lease = self.pool.reserve(&context).map(Reservation::open);
        let span = start.elapsed().as_nanos() as u64;
        (span, lease.map_err(Into::into).and_then(|opened| opened.map_err(Into::into)))
    }
}

fn user(number: usize) -> String {
    format!("user-{}", number / PER_USER)
}

fn context(user: &str) -> Result<UserExecutionContext> {
    let ids = IdGenerator::user_context_ids(user, "scale");
    Ok(UserExecutionContext::from_websocket_request(user, ids)?)
}

fn fastest<T>(rounds: usize, mut work: impl FnMut() -> T) -> Duration {
    let timed = || {
        let start = Instant::now();
        drop(black_box(work()));
        start.elapsed()
    };
    std::iter::repeat_with(timed).take(rounds).min().unwrap_or_default()
}

/// Up to a minute, in nanoseconds, three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("a valid range")
}

/// What one read of a place takes that nobody has looked at for long, in as much memory: each place is
/// only known when the one before has been read.
fn cache_miss(bytes: usize, chance: &mut ChaCha8Rng) -> f64 {
    const READS: u32 = 2_000_000;
    // Not zeroed pages, which the system would share.
    let mut memory = vec![0_u64; bytes.next_multiple_of(64) / 8];
    memory.iter_mut().step_by(8).for_each(|word| *word = chance.random());
    let lines = memory.len() / 8;
    let (mut at, start) = (0, Instant::now());
    for read in 0..READS {
        let word = memory[at * 8].rotate_left(read & 63) ^ u64::from(read);
        at = (word.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize % lines;
    }
    black_box(at);
    start.elapsed().as_nanos() as f64 / f64::from(READS)
}
