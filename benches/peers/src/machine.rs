//! The machine: which core for whom, whether somebody disturbed, and what a reader should know of it.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;
use serde::Serialize;
use std::fs::read_to_string;
use std::panic::{set_hook, take_hook};
use std::process::exit;

const THIS_THREAD: Pid = Pid::from_raw(0);

/// The cores that this process may use. To be asked before anything is pinned.
pub fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(THIS_THREAD).expect("a thread may ask for its own cores");
    (0..CpuSet::count()).filter(|&core| allowed.is_set(core) == Ok(true)).collect()
}

/// Keeps the calling thread, and those it starts, on one core.
pub fn pin(core: usize) {
    let mut one = CpuSet::new();
    one.set(core).and_then(|()| sched_setaffinity(THIS_THREAD, &one)).expect("the core is one of ours");
}

/// How often the calling thread was put off its core against its will.
pub fn involuntary_switches() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("a thread may ask for its own usage");
    usage.involuntary_context_switches()
}

/// Ends the process when any thread panics: the others would wait for it for ever.
pub fn exit_on_panic() {
    let print = take_hook();
    set_hook(Box::new(move |panic| {
        print(panic);
        exit(101);
    }));
}

/// What this was measured on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub processor: String,
    pub kernel: String,
    pub rustc: &'static str,
    pub allocator: &'static str,
    /// The load average of the last minute, at the start and at the end.
    pub load: [f64; 2],
}

impl Machine {
    pub fn now() -> Self {
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cores: cores().len(),
            processor: processor.map_or("unknown", |(_, name)| name).to_owned(),
            kernel: kernel.trim().to_owned(),
            rustc: env!("RUSTC_VERSION"),
            allocator: "glibc, unless a row names another",
            load: [load(); 2],
        }
    }

    pub fn at_the_end(self) -> Self {
        Self { load: [self.load[0], load()], ..self }
    }
}

fn load() -> f64 {
    let loads = read_to_string("/proc/loadavg").unwrap_or_default();
    loads.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}
