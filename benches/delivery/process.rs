//! The machine: which core for whom, and what was used of it.

use crate::Result;
use crate::loopback::Server;
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};
use std::fs::read_to_string;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a server used of its core, in its one thread that serves.
pub(crate) fn cpu_of(server: &Server) -> Result<Duration> {
    let schedstat = read_to_string(format!("/proc/{}/schedstat", server.process()))?;
    let nanoseconds = schedstat.split_whitespace().next().ok_or("an empty schedstat")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

/// Where the two processes run: the first and the last core that this one may use. With a single core
/// they share it.
#[derive(Clone, Copy)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) client: usize,
}

impl Cores {
    /// To be asked before anything is pinned: what is started later inherits the pin.
    pub(crate) fn allowed() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let server = allowed.next().ok_or("there is no core to run on")?;
        Ok(Self { server, client: allowed.next_back().unwrap_or(server) })
    }
}

/// Keeps the calling thread, and those it starts, on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut one = CpuSet::new();
    one.set(core);
    Ok(sched_setaffinity(None, &one)?)
}

/// The lowest there is: whoever has something to do goes first.
const LOWEST_PRIORITY: i32 = 19;

/// Keeps both cores from falling asleep, until it is dropped. A core of a virtual machine that sleeps takes
/// some 40 µs to wake, as long as all the work of a set-up; a server that has something to do has no part in it.
pub(crate) struct Awake {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<rustix::io::Result<()>>>,
}

impl Awake {
    pub(crate) fn keep(cores: Cores) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let watch = |core: usize| {
            let is_over = is_over.clone();
            std::thread::spawn(move || {
                setpriority_process(Some(gettid()), LOWEST_PRIORITY)?;
                let mut one = CpuSet::new();
                one.set(core);
                sched_setaffinity(None, &one)?;
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                Ok(())
            })
        };
        let mut threads = vec![watch(cores.server)];
        if cores.client != cores.server {
            threads.push(watch(cores.client));
        }
        Self { is_over, threads }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if !matches!(thread.join(), Ok(Ok(()))) {
                eprintln!("a core could not be kept awake: times include how long it takes to wake");
            }
        }
    }
}

/// What this was measured on.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown").to_owned();
    format!("{cores} cores, {}, load at the start {load}", model.trim_start_matches([' ', '\t', ':']))
}
