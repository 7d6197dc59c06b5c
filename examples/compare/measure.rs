//! One repetition with one server: what is done to it, in which order, and what is looked at.

use crate::client::Crowd;
use crate::figures::{Figure, Figures, Samples};
use crate::loopback::{Result, Server};
use crate::process::cpu_of;
use crate::server::{Contender, Place};
use std::error::Error;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Connections that come and go before the first look, so that what is built once is not counted.
const WARM_UP: usize = 32;

/// Set-ups whose allocations are counted, after as many that are not: one is like the other.
const COUNTED: usize = 500;

/// Set-ups that a server has before it is the next one's turn.
const BLOCK: usize = 50;

/// The message of which the memory afterwards is looked at.
const MESSAGE: usize = 16 * 1_024;

/// A broadcast's bytes, and how often it is sent.
const BROADCAST: usize = 512;
const BROADCASTS: usize = 11;

/// Of so many connections one stays after a peak.
const PEAK: usize = 10;

/// How long a server may take to do what is awaited.
const PATIENCE: Duration = Duration::from_secs(60);

/// Memory that has not changed for so many looks has settled.
const STILL: usize = 3;
const LOOK: Duration = Duration::from_millis(15);

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// Idle connections.
    pub(crate) connections: usize,
    /// Set-ups that are timed one by one, and receivers of the broadcasts.
    pub(crate) setups: usize,
    pub(crate) per_user: usize,
    pub(crate) core: usize,
}

impl Plan {
    fn counted(self) -> usize {
        COUNTED.min(self.setups)
    }
}

/// Hears what is being done, and with which server.
pub(crate) type Tell<'a> = &'a dyn Fn(&str, &str);

/// Memory and CPU of one server, once.
pub(crate) fn load(contender: &'static Contender, plan: Plan, tell: Tell<'_>) -> Result<Figures<f64>> {
    let mut figures = Figures::default();
    let mut measure = || {
        let mut stage = Stage::set(contender, plan, WARM_UP)?;
        stage.load(&mut figures, tell)?;
        drop(stage);
        Stage::set(contender, plan, WARM_UP)?.peak(&mut figures, tell)
    };
    measure().map_err(|error| format!("{}: {error}", contender.name))?;
    Ok(figures)
}

/// Set-ups, allocations and broadcasts of all servers, once, added to their figures. They take turns
/// after every few set-ups, so that what else the machine does meets all of them alike.
pub(crate) fn setups(
    servers: &mut [(&'static Contender, Figures<f64>)],
    plan: Plan,
    tell: Tell<'_>,
) -> Result<()> {
    let mut stages = Vec::with_capacity(servers.len());
    for (contender, figures) in &mut *servers {
        let mut set = || {
            let mut stage = Stage::set(contender, plan, plan.counted())?;
            stage.allocations(figures, tell)?;
            stage.server.ask(&format!("note {}", plan.setups))?;
            Ok::<_, Box<dyn Error>>(stage)
        };
        stages.push(set().map_err(|error| format!("{}: {error}", contender.name))?);
    }
    let mut left = plan.setups;
    while left > 0 {
        let block = left.min(BLOCK);
        left -= block;
        for stage in &mut stages {
            stage.setups(block, tell).map_err(|error| format!("{}: {error}", stage.contender.name))?;
        }
    }
    for (stage, (contender, figures)) in stages.iter_mut().zip(servers) {
        stage.finish(figures, tell).map_err(|error| format!("{}: {error}", contender.name))?;
    }
    Ok(())
}

/// A server that has just been started, and its clients.
struct Stage {
    contender: &'static Contender,
    server: Server,
    crowd: Crowd,
    plan: Plan,
    /// How long the clients' handshakes took, in microseconds.
    connects: Vec<f64>,
}

impl Stage {
    /// `warm_up` connections have come and gone.
    fn set(contender: &'static Contender, plan: Plan, warm_up: usize) -> Result<Self> {
        let Plan { connections, setups, per_user, core } = plan;
        let connections = connections.max(setups).max(warm_up);
        let server = contender.start(Place { core, connections, per_user })?;
        let crowd = Crowd::new(server.address, per_user)?;
        let mut stage = Self { contender, server, crowd, plan, connects: Vec::new() };
        stage.crowd.connect(warm_up)?;
        if stage.crowd.open() == 0 {
            return Err("it lets nobody in".into());
        }
        stage.arrived()?;
        stage.crowd.each_says(1)?;
        stage.close_all()?;
        Ok(stage)
    }

    /// CPU and memory: everybody connects and is idle, then says something once and is idle again.
    fn load(&mut self, figures: &mut Figures<f64>, tell: Tell<'_>) -> Result<()> {
        let empty = self.memory()?;
        tell(self.contender.name, "connects");
        let before = cpu_of(&self.server)?;
        self.crowd.connect(self.plan.connections)?;
        self.arrived()?;
        let took = cpu_of(&self.server)?.saturating_sub(before);
        *figures.of_mut(Figure::Cpu) = took.as_secs_f64() * 1e6 / self.crowd.open() as f64;
        tell(self.contender.name, "is idle");
        *figures.of_mut(Figure::IdleMemory) = self.bytes_each(empty)?;
        tell(self.contender.name, "hears 16 KB of each");
        self.crowd.each_says(MESSAGE)?;
        *figures.of_mut(Figure::MemoryAfterMessage) = self.bytes_each(empty)?;
        *figures.of_mut(Figure::Failed) += self.crowd.failed() as f64;
        Ok(())
    }

    /// Memory once a peak is over, for each of those who stayed.
    fn peak(&mut self, figures: &mut Figures<f64>, tell: Tell<'_>) -> Result<()> {
        let empty = self.memory()?;
        tell(self.contender.name, "has a peak");
        self.crowd.connect(self.plan.connections)?;
        self.arrived()?;
        self.crowd.keep_every(PEAK)?;
        self.arrived()?;
        *figures.of_mut(Figure::MemoryAfterPeak) = self.bytes_each(empty)?;
        *figures.of_mut(Figure::Failed) += self.crowd.failed() as f64;
        Ok(())
    }

    /// Allocations, in a server that has had as many connections before.
    fn allocations(&mut self, figures: &mut Figures<f64>, tell: Tell<'_>) -> Result<()> {
        tell(self.contender.name, "allocates");
        let before = self.number("allocations")?;
        self.crowd.connect(self.plan.counted())?;
        self.arrived()?;
        let allocations = self.number("allocations")? - before;
        *figures.of_mut(Figure::Allocations) = allocations / self.crowd.open() as f64;
        self.close_all()
    }

    /// Times: one after the other connects, stays until all have, and goes.
    fn setups(&mut self, count: usize, tell: Tell<'_>) -> Result<()> {
        tell(self.contender.name, "sets up one by one");
        for _ in 0..count {
            let took = self.crowd.connect_one()?;
            self.connects.extend(took.map(|took| took.as_secs_f64() * 1e6));
        }
        self.close_all()
    }

    /// What the set-ups came to; and then everybody hears broadcasts.
    fn finish(&mut self, figures: &mut Figures<f64>, tell: Tell<'_>) -> Result<()> {
        *figures.of_mut(Figure::Connect) = self.connects.drain(..).collect::<Samples>().median();
        *figures.of_mut(Figure::Setup) = self.noted("setups")?.median();
        tell(self.contender.name, "broadcasts");
        self.crowd.connect(self.plan.setups)?;
        self.arrived()?;
        self.crowd.each_user_hears_itself()?;
        for _ in 0..BROADCASTS {
            self.crowd.broadcast(BROADCAST)?;
        }
        *figures.of_mut(Figure::Broadcast) = self.noted("broadcasts")?.median();
        *figures.of_mut(Figure::Failed) += self.crowd.failed() as f64;
        self.close_all()
    }

    fn close_all(&mut self) -> Result<()> {
        self.crowd.close_all()?;
        self.arrived()
    }

    /// Waits until the server has as many connections as there are.
    fn arrived(&mut self) -> Result<()> {
        let begun = Instant::now();
        while self.number("open")? != self.crowd.open() as f64 {
            if begun.elapsed() > PATIENCE {
                let (at_server, open) = (self.server.ask("open")?, self.crowd.open());
                return Err(format!("{at_server} connections are open at the server, not {open}").into());
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// What the server has more than when it was `empty`, for each connection.
    fn bytes_each(&mut self, empty: f64) -> Result<f64> {
        let more = self.memory()? - empty;
        self.arrived()?; // still
        Ok(more * 1_024.0 / self.crowd.open() as f64)
    }

    /// The server's memory in KiB, once it does not change any more. Meanwhile the server does what it
    /// does once a second anyway, so that seconds need not be waited for.
    fn memory(&mut self) -> Result<f64> {
        let begun = Instant::now();
        let (mut memory, mut still) = (0, 0);
        while still < STILL {
            sleep(LOOK);
            self.server.ask("maintain")?;
            let now = self.server.memory_kib()?;
            still = if now == memory { still + 1 } else { 0 };
            memory = now;
            if begun.elapsed() > PATIENCE {
                return Err("the server's memory does not settle".into());
            }
        }
        Ok(memory as f64)
    }

    fn number(&mut self, question: &str) -> Result<f64> {
        let answer = self.server.ask(question)?;
        answer.parse().map_err(|_| format!("{question:?} was answered by {answer:?}").into())
    }

    /// What the server noted, in microseconds.
    fn noted(&mut self, what: &str) -> Result<Samples> {
        let answer = self.server.ask(what)?;
        let nanoseconds = answer.split_whitespace().map(str::parse);
        let noted: std::result::Result<Vec<f64>, _> = nanoseconds.collect();
        Ok(noted?.into_iter().map(|nanoseconds| nanoseconds / 1e3).collect())
    }
}
