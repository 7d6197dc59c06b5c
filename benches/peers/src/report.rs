//! One report: everything measured in one run, beside each other.

use crate::goals::{self, Goal};
use crate::machine::Machine;
use crate::measure::contention::{self, Contended};
use crate::measure::instructions::{self, Instructions};
use crate::measure::latency::{self, Latency};
use crate::measure::memory::{self, Memory};
use crate::measure::samples::Summary;
use crate::measure::{Effort, hand_off, one_thread};
use crate::place::{Contender, Facts, Kind};
use crate::roster;
use serde::Serialize;
use std::path::Path;

/// All figures of one contender, in nanoseconds for one operation unless the name says otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub facts: Facts,
    pub lives: Option<Contended>,
    pub churn: Option<Summary>,
    pub get: Option<Summary>,
    pub walk: Option<Summary>,
    pub hand_off: Option<Summary>,
    pub latency: Option<Latency>,
    pub memory: Option<Memory>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub effort: Effort,
    /// The pool alone, and its peers.
    pub core: Vec<Line>,
    /// The whole pool, and what servers do without one.
    pub whole: Vec<Line>,
    /// What reading the clock adds to each latency.
    pub clock: Latency,
    /// Or what is missing to count them.
    pub instructions: Result<Vec<Instructions>, String>,
    pub goals: Vec<Goal>,
}

impl Report {
    /// `counting` is the program that counts allocations, `hot` the one whose instructions are counted.
    pub fn measure(effort: Effort, counting: &Path, hot: &Path) -> Self {
        let machine = Machine::now();
        say("memory");
        let memory = if effort == Effort::Try { Vec::new() } else { memory::compare(counting) };
        let (core, clock) = lines(&roster::core(roster::CAPACITY), &memory, effort);
        let (whole, _) = lines(&roster::whole(roster::CAPACITY), &memory, effort);
        say("instructions");
        let instructions = instructions::count(hot);
        let goals = goals::judge(&core, &whole);
        Self { machine: machine.at_the_end(), effort, core, whole, clock, instructions, goals }
    }
}

fn lines(contenders: &[Box<dyn Contender>], memory: &[Memory], effort: Effort) -> (Vec<Line>, Latency) {
    say("lives, alone and at once");
    let mut lives = contention::compare(contenders, effort).into_iter();
    say("churn");
    let mut churn = one_thread::churn(contenders, effort).into_iter();
    say("get and walk");
    let mut get = one_thread::gets(contenders, effort).into_iter();
    let mut walk = one_thread::walks(contenders, effort).into_iter();
    say("hand-off");
    let mut hand_off = hand_off::compare(contenders, effort).into_iter();
    say("latency");
    let (clock, latency) = latency::compare(contenders, effort);
    let mut latency = latency.into_iter();
    let lines = contenders.iter().map(|contender| Line {
        facts: contender.facts(),
        lives: lives.next().flatten(),
        churn: churn.next().flatten(),
        get: get.next().flatten(),
        walk: walk.next().flatten(),
        hand_off: hand_off.next().flatten(),
        latency: latency.next().flatten(),
        memory: memory.iter().find(|memory| memory.name == contender.name()).cloned(),
    });
    (lines.collect(), clock)
}

/// Where it is, for who waits; the report goes to the other stream.
fn say(what: &str) {
    eprintln!("measuring: {what}");
}

impl Line {
    pub fn is_peer(&self) -> bool {
        self.facts.kind == Kind::Peer
    }
}
