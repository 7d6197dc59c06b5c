//! Many real sockets: a server in a process of its own, the clients in another.

use crate::loopback::{Process, Result, Server, raise_file_limit};
use crate::memory::Memory;
use crate::options::{Effort, Way};
use crate::table::Figures;
use rustix::process::{Resource, getrlimit};
use serde_json::Value;
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Files of a process that are no sockets of connections.
const OTHER_FILES: usize = 100;

/// Sockets that are usual, where the limit allows them.
const USUAL: [usize; 3] = [1_000, 5_000, 15_000];
const MOST: usize = 50_000;

/// Handshakes under way while the rate is measured.
const AT_ONCE: usize = 100;

/// Connections that come and go before the first look, so that what is built once is not counted.
const WARM_UP: usize = 16;

/// Memory that has not changed for so many looks has settled.
const STILL: usize = 4;
const LOOK: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);

/// How many sockets are tried: those that were asked for, or are usual, as far as the machine allows it.
pub(crate) fn sizes(asked: Option<&[usize]>) -> Result<Vec<usize>> {
    let wanted = asked.map_or(MOST, |sizes| sizes.last().copied().unwrap_or_default());
    let most = allowed_files(wanted + OTHER_FILES)?.saturating_sub(OTHER_FILES);
    let mut sizes = match asked {
        Some(asked) => asked.to_vec(),
        None => USUAL.into_iter().chain([MOST]).collect(),
    };
    sizes.iter_mut().for_each(|size| *size = (*size).min(most));
    sizes.dedup();
    Ok(sizes)
}

/// As many as are wanted, or fewer, with a word.
fn allowed_files(wanted: usize) -> Result<usize> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    match (raise_file_limit(wanted as u64), maximum) {
        (Err(why), Some(maximum)) => {
            eprintln!("{why}; fewer sockets are tried");
            raise_file_limit(maximum)?;
            Ok(maximum as usize)
        }
        (raised, _) => raised.map(|()| wanted),
    }
}

/// Measures one size, one way.
pub(crate) fn measure(way: Way, sockets: usize, effort: Effort) -> Result<Figures> {
    eprintln!("{sockets} sockets, way {way} …");
    let mut run = Run::start(way, sockets)?;
    let outcome = run.measure(effort.choose(7, 2));
    outcome.map_err(|error| format!("{sockets} sockets, way {way}: {error}").into())
}

struct Run {
    server: Server,
    clients: Process,
    sockets: usize,
    /// Connections that the server has had, and how many are there now.
    opened: usize,
    /// Numbers that were said to all.
    said: u64,
    figures: Figures,
}

impl Run {
    fn start(way: Way, sockets: usize) -> Result<Self> {
        let server = Server::start(&format!("server {way} {sockets}"))?;
        let clients = Process::start(&format!("client {}", server.address))?;
        Ok(Self { server, clients, sockets, opened: 0, said: 0, figures: Figures::default() })
    }

    fn measure(&mut self, broadcasts: usize) -> Result<Figures> {
        self.figures.set("sockets", self.sockets as f64);
        self.warm_up()?;
        let before = self.settled()?;
        self.connect()?;
        let with = self.settled()?.since(&before);
        self.each("", &with);
        self.figures.set("allocations_per_connect", with.allocations / self.sockets as f64);

        self.broadcast(broadcasts)?;
        let with = self.settled()?.since(&before);
        self.each("_after_broadcasts", &with);

        self.storm()?;
        let with = self.settled()?.since(&before);
        self.each("_after_storm", &with);
        self.broadcast(1)?;
        self.account(self.sockets)?;

        self.drain()?;
        let left = self.settled()?.since(&before);
        self.figures.set("left_kib", left.resident / 1_024.0);
        self.figures.set("left_kib_allocated", left.allocated / 1_024.0);
        Ok(self.figures.clone())
    }

    fn warm_up(&mut self) -> Result<()> {
        let address = self.server.address;
        let connect = |number| crate::handshake::connect(address, &format!("warm-up/thread_{number}"));
        let clients = (0..WARM_UP).map(connect).collect::<Result<Vec<TcpStream>>>()?;
        self.opened += clients.len();
        self.until_live(WARM_UP)?;
        drop(clients);
        self.until_live(0)
    }

    /// A hundred at a time.
    fn connect(&mut self) -> Result<()> {
        let cpu = self.cpu_micros()?;
        let start = Instant::now();
        let sockets = self.sockets;
        let answer = ask(&mut self.clients, &format!("connect {sockets} {AT_ONCE}"))?;
        self.opened += sockets;
        self.until_live(sockets)?;
        let took = start.elapsed().as_secs_f64();
        let cpu = self.cpu_micros()? - cpu;
        self.figures.set("connects_per_second", sockets as f64 / took);
        self.figures.set("server_cpu_us_per_connect", cpu / sockets as f64);
        self.figures.set("connect_p50_us", number(&answer, "p50_us")?);
        self.figures.set("connect_p99_us", number(&answer, "p99_us")?);
        self.no_failures("connect", &answer)
    }

    /// The next numbers, each to everybody, who hears it before the next.
    fn broadcast(&mut self, times: usize) -> Result<()> {
        let (mut enqueued, mut heard) = (f64::MAX, f64::MAX);
        for _ in 0..times {
            self.said += 1;
            let start = Instant::now();
            let answer = ask(&mut self.server, &format!("broadcast {}", self.said))?;
            if answer["is_complete"] != true || answer["addressed"] != self.sockets {
                return Err(format!("not everybody was told: {answer}").into());
            }
            enqueued = enqueued.min(number(&answer, "us")?);
            let answer = ask(&mut self.clients, &format!("heard {}", self.said))?;
            heard = heard.min(start.elapsed().as_secs_f64() * 1e3);
            if answer["heard"] != self.said * self.sockets as u64 || answer["mistakes"] != 0 {
                return Err(format!("not everybody has heard number {}: {answer}", self.said).into());
            }
        }
        if times > 1 {
            self.figures.set("broadcast_enqueue_us", enqueued);
            self.figures.set("broadcast_enqueue_ns_each", enqueued * 1e3 / self.sockets as f64);
            self.figures.set("broadcast_heard_ms", heard);
        }
        Ok(())
    }

    /// All lines are cut at once, and all clients come back at once.
    fn storm(&mut self) -> Result<()> {
        let start = Instant::now();
        let answer = ask(&mut self.clients, "storm")?;
        self.opened += self.sockets;
        self.until_live(self.sockets)?;
        let took = start.elapsed().as_secs_f64();
        self.figures.set("storm_ms", took * 1e3);
        self.figures.set("storm_per_second", self.sockets as f64 / took);
        self.figures.set("storm_p50_us", number(&answer, "p50_us")?);
        self.figures.set("storm_p99_us", number(&answer, "p99_us")?);
        self.figures.set("storm_retries", number(&answer, "retries")?);
        self.no_failures("storm", &answer)
    }

    fn drain(&mut self) -> Result<()> {
        let answer = ask(&mut self.server, "drain")?;
        self.figures.set("drain_ms", number(&answer, "ms")?);
        let sockets = self.sockets;
        if answer["evicted"] != sockets || answer["finished"] != sockets || answer["remaining"] != 0 {
            return Err(format!("not everybody was drained: {answer}").into());
        }
        let answer = ask(&mut self.clients, "gone")?;
        if answer["is_over"] != true || answer["told"] != sockets || answer["mistakes"] != 0 {
            return Err(format!("not everybody was told why: {answer}").into());
        }
        self.account(0)
    }

    fn no_failures(&mut self, what: &str, answer: &Value) -> Result<()> {
        let failures = number(answer, "failures")?;
        self.figures.set(&format!("{what}_failures"), failures);
        if failures > 0.0 { Err(format!("{what}: {answer}").into()) } else { Ok(()) }
    }

    fn account(&mut self, live: usize) -> Result<()> {
        let account = ask(&mut self.server, "account")?;
        let is_right = account["balanced"] == true
            && account["leases"] == live
            && account["occupied_slots"] == live
            && account["inbound_leased_bytes"] == 0;
        if is_right { Ok(()) } else { Err(format!("the account is wrong with {live}: {account}").into()) }
    }

    fn until_live(&mut self, live: usize) -> Result<()> {
        ask(&mut self.server, &format!("until {live} {}", self.opened)).map(drop)
    }

    fn cpu_micros(&mut self) -> Result<f64> {
        number(&ask(&mut self.server, "cpu")?, "us")
    }

    fn each(&mut self, when: &str, with: &Memory) {
        let sockets = self.sockets as f64;
        self.figures.set(&format!("bytes_each{when}"), with.resident / sockets);
        self.figures.set(&format!("allocated_each{when}"), with.allocated / sockets);
    }

    /// The server's memory, once it does not change any more.
    fn settled(&mut self) -> Result<Memory> {
        let begun = Instant::now();
        let (mut kib, mut still) = (self.server.memory_kib()?, 0);
        while still < STILL && begun.elapsed() < PATIENCE {
            sleep(LOOK);
            let now = self.server.memory_kib()?;
            still = if now == kib { still + 1 } else { 0 };
            kib = now;
        }
        let counted = ask(&mut self.server, "memory")?;
        Ok(Memory {
            resident: kib as f64 * 1_024.0,
            allocated: number(&counted, "allocated")?,
            allocations: number(&counted, "allocations")?,
        })
    }
}

fn ask(process: &mut Process, question: &str) -> Result<Value> {
    let answer: Value = serde_json::from_str(&process.ask(question)?)?;
    match answer.get("error") {
        Some(error) => Err(format!("{question}: {error}").into()),
        None => Ok(answer),
    }
}

fn number(answer: &Value, name: &str) -> Result<f64> {
    answer[name].as_f64().ok_or_else(|| format!("no {name} in {answer}").into())
}
