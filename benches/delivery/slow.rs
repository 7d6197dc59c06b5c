//! One client that has stopped reading, beside two hundred that read.

use crate::Effort;
use crate::client::{Crowd, Heard, Note, To, name};
use crate::contender::Contender;
use crate::loopback::{Result, Server, raise_file_limit};
use crate::process::{Cores, pin};
use crate::server::QUEUE;
use crate::table::{Better, Samples, heading, lines};
use hdrhistogram::Histogram;
use std::time::Duration;

const READERS: usize = 200;
const PAYLOAD: usize = 4_096;
/// Messages to all, a second.
const RATE: u64 = 100;
/// The slow client has this long to be found, once the kernel's buffers are full.
const PATIENCE: u64 = 60 * SECOND;

const SECOND: u64 = 1_000_000_000;

pub(crate) fn compare(effort: Effort, cores: Cores) -> Result<()> {
    let repetitions = effort.choose(3, 1);
    let span = effort.choose(5 * SECOND, SECOND / 2);
    raise_file_limit(4_096)?;
    pin(cores.client)?;
    println!(
        "slow: {READERS} clients that read and one that does not, {PAYLOAD} B to all {RATE} times a second, \
         {repetitions} repetitions"
    );
    let labels = ["all read", "beside a slow one"];
    let mut figures: [[Samples; 2]; QUANTILES.len()] = Default::default();
    let mut ends = Vec::new();
    for _ in 0..repetitions {
        for (index, is_slow) in [false, true].into_iter().enumerate() {
            let (latency, end) = Run::start(span, cores)?.play_out(is_slow)?;
            for (samples, (_, quantile)) in figures.iter_mut().zip(QUANTILES) {
                samples[index].add(latency.value_at_quantile(quantile) as f64);
            }
            ends.extend(end);
        }
    }
    for (samples, (label, _)) in figures.into_iter().zip(QUANTILES) {
        heading(&format!("latency of those who read, {label}"), "µs", "better without");
        lines(&labels.into_iter().zip(samples).collect::<Vec<_>>(), Better::Less);
    }
    println!("\nthe slow one, by repetition:");
    for end in ends {
        println!("  {end}");
    }
    println!();
    Ok(())
}

const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// The client that stops reading.
const SLOW: usize = READERS;

struct Run {
    server: Server,
    crowd: Crowd,
    /// How long it lasts at least, in nanoseconds.
    span: u64,
    next_of: Vec<u64>,
    latency: Histogram<u64>,
}

impl Run {
    fn start(span: u64, cores: Cores) -> Result<Self> {
        let server = Contender::Pool.start(cores.server)?;
        let crowd = Crowd::connect(server.address, READERS + 1, PAYLOAD)?;
        Ok(Self { server, crowd, span, next_of: vec![0; READERS + 1], latency: Histogram::new(3)? })
    }

    /// Returns the latency of those who read, and what became of the one who did not.
    fn play_out(mut self, is_slow: bool) -> Result<(Histogram<u64>, Option<String>)> {
        let slow = name(SLOW);
        self.crowd.set_reading(SLOW, !is_slow)?;
        let begun = self.crowd.now();
        let mut most_queued = 0;
        let mut memory = Memory::default();
        let mut ended_after = None;
        let mut sent = 0;
        loop {
            let elapsed = self.crowd.now() - begun;
            let is_over = elapsed >= self.span && (!is_slow || ended_after.is_some());
            if is_over && (0..READERS).all(|client| self.next_of[client] == sent) {
                break;
            }
            if elapsed > PATIENCE {
                return Err("messages are missing, or nobody ended the slow client".into());
            }
            let due = sent * SECOND / RATE;
            if elapsed >= due && !is_over {
                self.crowd.send(0, To::All, Note { number: sent, due: begun + due })?;
                sent += 1;
                if sent % (RATE / 10) == 0 {
                    memory.note(self.server.memory_kib()?);
                    let queued: usize = self.server.ask(&format!("queued {slow}"))?.parse()?;
                    most_queued = most_queued.max(queued);
                    if is_slow && ended_after.is_none() && self.server.ask("live")? == READERS.to_string() {
                        ended_after = Some(Duration::from_nanos(self.crowd.now() - begun));
                    }
                }
            }
            self.hear()?;
        }
        let Some(ended_after) = ended_after else { return Ok((self.latency, None)) };
        let end = format!(
            "queued {most_queued} at most (bound {QUEUE}); server's memory {} to {} KiB; ended after {:.1} s; \
             last_ends_of: {}; its own socket: {}",
            memory.least,
            memory.most,
            ended_after.as_secs_f64(),
            self.server.ask(&format!("last_end {slow}"))?,
            self.last_words()?
        );
        Ok((self.latency, Some(end)))
    }

    /// Never sleeps: a sleep is too coarse for what is measured.
    fn hear(&mut self) -> Result<()> {
        let heard = self.crowd.hear(Duration::ZERO)?;
        let now = self.crowd.now();
        for &(client, said) in &heard {
            match said {
                Heard::Note(note) if note.number == self.next_of[client] => {
                    self.next_of[client] += 1;
                    if client < READERS {
                        self.latency += now.saturating_sub(note.due) / 1_000;
                    }
                }
                other => return Err(format!("client {client} did not expect {other:?}").into()),
            }
        }
        self.crowd.reuse(heard);
        Ok(())
    }

    /// The slow client reads at last: what it got, and how it learns of its end.
    fn last_words(&mut self) -> Result<String> {
        self.crowd.set_reading(SLOW, true)?;
        let mut messages = 0;
        loop {
            let heard = self.crowd.hear(Duration::from_secs(10))?;
            if heard.is_empty() {
                return Err("the slow client's socket was left open".into());
            }
            for &(client, said) in heard.iter().filter(|(client, _)| *client == SLOW) {
                match said {
                    Heard::Note(note) if note.number == messages => messages += 1,
                    Heard::Note(_) => return Err(format!("client {client} missed message {messages}").into()),
                    Heard::End(Some(code)) => return Ok(format!("{messages} messages, then {code}")),
                    Heard::End(None) => return Ok(format!("{messages} messages, then the end")),
                }
            }
            self.crowd.reuse(heard);
        }
    }
}

/// The server's memory over time, in KiB.
#[derive(Default)]
struct Memory {
    least: u64,
    most: u64,
}

impl Memory {
    fn note(&mut self, kib: u64) {
        self.least = if self.most == 0 { kib } else { self.least.min(kib) };
        self.most = self.most.max(kib);
    }
}
