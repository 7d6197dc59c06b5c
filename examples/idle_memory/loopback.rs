//! What a program needs that is server and client at once, each in a process of its own. `scale`, the
//! comparison and the benchmark of the delivery use it too.

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use std::error::Error;
use std::fs::read_to_string;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Tells a started program that it is a part of another, and which.
const ROLE: &str = "LOOPBACK_ROLE";

/// What this process is to be; `None`: it is the one that was started by a person. A part does not
/// outlive whoever started it.
pub(crate) fn role() -> Result<Option<String>> {
    let Ok(role) = std::env::var(ROLE) else { return Ok(None) };
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(Some(role))
}

/// This program once more, in another role: prints an answer to every line that it reads. Killed when
/// dropped.
pub(crate) struct Process {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(role: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let questions = child.stdin.take().ok_or("there is no way to ask the process")?;
        let answers = BufReader::new(child.stdout.take().ok_or("there is no way to hear the process")?);
        Ok(Self { child, questions, answers })
    }

    /// One line to the process, one line back.
    pub(crate) fn ask(&mut self, question: &str) -> Result<String> {
        writeln!(self.questions, "{question}")?;
        self.hear()
    }

    fn hear(&mut self) -> Result<String> {
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }

    /// Its own memory and its part of what it shares, in KiB: the proportional set size.
    pub(crate) fn memory_kib(&self) -> Result<u64> {
        let rollup = read_to_string(format!("/proc/{}/smaps_rollup", self.process()))?;
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = pss.and_then(|pss| pss.split_whitespace().next()).ok_or("smaps_rollup without Pss")?;
        Ok(kib.parse()?)
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already: so much the better.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that is a server: what it prints first is its address.
pub(crate) struct Server {
    process: Process,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(role: &str) -> Result<Self> {
        let mut process = Process::start(role)?;
        let address = process.hear()?.parse().map_err(|_| format!("the server {role:?} did not start"))?;
        Ok(Self { process, address })
    }
}

impl Deref for Server {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Room for so many sockets.
pub(crate) fn raise_file_limit(files: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= files) {
        return Ok(());
    }
    let Some(maximum) = limit.maximum.filter(|&maximum| maximum < files) else {
        return Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?);
    };
    // An administrator may.
    let beyond = Rlimit { current: Some(files), maximum: Some(files) };
    setrlimit(Resource::Nofile, beyond).map_err(|_| {
        format!("{files} open files are needed and {maximum} are allowed: raise `ulimit -Hn`").into()
    })
}
