//! End to end over loopback sockets: the server in a process and on a core of its own, the clients on
//! another.
//!
//! - *broadcast*: one client speaks, everybody hears it; up to 16 messages are under way.
//! - *relay*: every client sends to the next one; up to 4 messages a client are under way.
//! - *latency*: the same two at a fixed rate well below saturation, from the moment at which a message
//!   was due.

use crate::Effort;
use crate::client::{Crowd, Heard, Note, To};
use crate::contender::Contender;
use crate::loopback::{Result, Server, raise_file_limit};
use crate::process::{Cores, cpu_of, pin};
use crate::table::{Better, GAIN, Samples, heading, lines};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Bytes of a message.
const PAYLOAD: usize = 128;

/// Broadcasts under way, less than a queue holds.
const BROADCASTS: u64 = 16;

/// Messages of a client that are under way, and how many may wait for one client.
const MESSAGES: u64 = 4;
const WAITING: u64 = 32;

/// Longest silence while messages are under way.
const PATIENCE: Duration = Duration::from_secs(20);

/// Deliveries a second, for the latency.
const RATE: usize = 10_000;

pub(crate) fn compare(effort: Effort, cores: Cores) -> Result<()> {
    let repetitions = effort.choose(7, 1);
    raise_file_limit(16_000)?;
    pin(cores.client)?;
    for clients in effort.choose([500, 2_000], [20, 40]) {
        println!("sockets: {clients} clients, messages of {PAYLOAD} B, {repetitions} repetitions");
        let deliveries = effort.choose(200_000, 1_000);
        let seconds = effort.choose(2.0, 0.1);
        let mut figures = Figures::default();
        for repetition in 0..repetitions {
            for turn in 0..Contender::ALL.len() {
                // Nobody is always the first.
                let index = (turn + repetition) % Contender::ALL.len();
                let server = Contender::ALL[index].start(cores.server)?;
                let run = run(&server, clients, deliveries, seconds);
                figures
                    .add(index, &run.map_err(|error| format!("{}: {error}", Contender::ALL[index].label()))?);
            }
        }
        figures.print();
        println!();
    }
    Ok(())
}

/// What one server did.
struct Run {
    broadcast: Rate,
    relay: Rate,
    broadcast_latency: Histogram<u64>,
    relay_latency: Histogram<u64>,
}

struct Rate {
    /// Messages that arrived, a second.
    a_second: f64,
    /// The server's own time for one of them, in microseconds.
    cpu: f64,
}

fn run(server: &Server, clients: usize, deliveries: usize, seconds: f64) -> Result<Run> {
    let mut hall = Hall { crowd: Crowd::connect(server.address, clients, PAYLOAD)?, clients };
    hall.broadcast(deliveries / clients / 10)?;
    hall.relay(deliveries / clients / 10)?;
    Ok(Run {
        broadcast: rate(server, || hall.broadcast(deliveries / clients))?,
        relay: rate(server, || hall.relay(deliveries / clients / 2))?,
        broadcast_latency: hall.paced_broadcast(RATE / clients, seconds)?,
        relay_latency: hall.paced_relay(RATE, seconds)?,
    })
}

/// `deliver` returns how many messages arrived.
fn rate(server: &Server, deliver: impl FnOnce() -> Result<u64>) -> Result<Rate> {
    let (begun, cpu) = (Instant::now(), cpu_of(server)?);
    let delivered = deliver()? as f64;
    let (took, cpu) = (begun.elapsed(), cpu_of(server)? - cpu);
    Ok(Rate { a_second: delivered / took.as_secs_f64(), cpu: cpu.as_secs_f64() * 1e6 / delivered })
}

/// The clients and what they do together. Every message is counted: one that is missing, doubled or out
/// of order is an error.
struct Hall {
    crowd: Crowd,
    clients: usize,
}

impl Hall {
    /// The first client speaks `messages` times, as fast as everybody hears it.
    fn broadcast(&mut self, messages: usize) -> Result<u64> {
        let (messages, clients) = (messages.max(1) as u64, self.clients);
        let mut order = Order::new(clients);
        let mut heard_by = vec![0; messages as usize];
        let mut sent = 0;
        let mut complete = 0;
        while complete < messages {
            while sent < messages && sent < complete + BROADCASTS {
                self.crowd.send(0, To::All, Note { number: sent, due: 0 })?;
                sent += 1;
            }
            self.hear(PATIENCE, true, |_, client, note| {
                order.check(client, note)?;
                let by = &mut heard_by[note.number as usize];
                *by += 1;
                complete += u64::from(*by == clients);
                Ok(())
            })?;
        }
        Ok(messages * clients as u64)
    }

    /// Each client sends `messages` to the next one, as fast as they arrive.
    fn relay(&mut self, messages: usize) -> Result<u64> {
        let messages = messages.max(1) as u64;
        let clients = self.clients;
        let mut order = Order::new(clients);
        let mut sent = vec![0; clients];
        let all = messages * clients as u64;
        // A client that has heard something may go on, and so may the one before it.
        let go_on = |crowd: &mut Crowd, order: &Order, sent: &mut [u64], client: usize| -> Result<()> {
            let next = (client + 1) % clients;
            while sent[client] < messages
                && sent[client] < order.heard(client) + MESSAGES
                && sent[client] < order.heard(next) + WAITING
            {
                crowd.send(client, To::User(next), Note { number: sent[client], due: 0 })?;
                sent[client] += 1;
            }
            Ok(())
        };
        for client in 0..clients {
            go_on(&mut self.crowd, &order, &mut sent, client)?;
        }
        while order.total() < all {
            self.hear(PATIENCE, true, |crowd, client, note| {
                order.check(client, note)?;
                go_on(crowd, &order, &mut sent, client)?;
                go_on(crowd, &order, &mut sent, (client + clients - 1) % clients)
            })?;
        }
        Ok(all)
    }

    /// The first client speaks at a fixed rate.
    fn paced_broadcast(&mut self, a_second: usize, seconds: f64) -> Result<Histogram<u64>> {
        let heard_by = self.clients as u64;
        self.paced(a_second.max(1), seconds, heard_by, |crowd, number, due| {
            crowd.send(0, To::All, Note { number, due })
        })
    }

    /// The clients take turns in sending to the next one, at a fixed rate of all together.
    fn paced_relay(&mut self, a_second: usize, seconds: f64) -> Result<Histogram<u64>> {
        let clients = self.clients;
        self.paced(a_second, seconds, 1, |crowd, number, due| {
            let from = number as usize % clients;
            crowd.send(from, To::User((from + 1) % clients), Note { number: number / clients as u64, due })
        })
    }

    fn paced(
        &mut self,
        a_second: usize,
        seconds: f64,
        heard_by: u64,
        mut send: impl FnMut(&mut Crowd, u64, u64) -> Result<()>,
    ) -> Result<Histogram<u64>> {
        let messages = ((a_second as f64 * seconds) as u64).max(1);
        let interval = 1_000_000_000 / a_second as u64;
        let mut order = Order::new(self.clients);
        let mut latency = Histogram::new(3)?;
        let begun = self.crowd.now();
        let mut sent = 0;
        while order.total() < messages * heard_by {
            while sent < messages && begun + sent * interval <= self.crowd.now() {
                send(&mut self.crowd, sent, begun + sent * interval)?;
                sent += 1;
            }
            // Not asleep while something is to be sent: a sleep is too coarse for what is measured.
            let patience = if sent < messages { Duration::ZERO } else { PATIENCE };
            self.hear(patience, sent == messages, |crowd, client, note| {
                order.check(client, note)?;
                latency += crowd.now().saturating_sub(note.due) / 1_000;
                Ok(())
            })?;
        }
        Ok(latency)
    }

    fn hear(
        &mut self,
        patience: Duration,
        is_due: bool,
        mut tell: impl FnMut(&mut Crowd, usize, Note) -> Result<()>,
    ) -> Result<()> {
        let heard = self.crowd.hear(patience)?;
        if heard.is_empty() && is_due {
            return Err(format!("messages are missing: nothing came for {patience:?}").into());
        }
        for &(client, said) in &heard {
            match said {
                Heard::Note(note) => tell(&mut self.crowd, client, note)?,
                Heard::End(code) => return Err(format!("client {client} was closed: {code:?}").into()),
            }
        }
        self.crowd.reuse(heard);
        Ok(())
    }
}

/// How many messages each client has heard. They must come one after the other.
struct Order {
    next: Vec<u64>,
    total: u64,
}

impl Order {
    fn new(clients: usize) -> Self {
        Self { next: vec![0; clients], total: 0 }
    }

    fn check(&mut self, client: usize, note: Note) -> Result<()> {
        let next = &mut self.next[client];
        if note.number != *next {
            return Err(format!("client {client} waits for message {next} and got {}", note.number).into());
        }
        *next += 1;
        self.total += 1;
        Ok(())
    }

    fn heard(&self, client: usize) -> u64 {
        self.next[client]
    }

    fn total(&self) -> u64 {
        self.total
    }
}

/// All repetitions, by figure and contender.
#[derive(Default)]
struct Figures([[Samples; Contender::ALL.len()]; FIGURES.len()]);

/// A figure's name and unit, which end of it is good, and how it is read off.
type Figure = (&'static str, &'static str, Better, fn(&Run) -> f64);

/// What is printed of a run.
const FIGURES: [Figure; 10] = [
    ("broadcast rate", "deliveries/s", Better::More, |run| run.broadcast.a_second),
    ("broadcast, the server's CPU", "µs a delivery", Better::Less, |run| run.broadcast.cpu),
    ("relay rate", "messages/s", Better::More, |run| run.relay.a_second),
    ("relay, the server's CPU", "µs a message", Better::Less, |run| run.relay.cpu),
    ("broadcast latency p50", "µs", Better::Less, |run| at(&run.broadcast_latency, 0.5)),
    ("broadcast latency p99", "µs", Better::Less, |run| at(&run.broadcast_latency, 0.99)),
    ("broadcast latency p99.9", "µs", Better::Less, |run| at(&run.broadcast_latency, 0.999)),
    ("relay latency p50", "µs", Better::Less, |run| at(&run.relay_latency, 0.5)),
    ("relay latency p99", "µs", Better::Less, |run| at(&run.relay_latency, 0.99)),
    ("relay latency p99.9", "µs", Better::Less, |run| at(&run.relay_latency, 0.999)),
];

fn at(latency: &Histogram<u64>, quantile: f64) -> f64 {
    latency.value_at_quantile(quantile) as f64
}

impl Figures {
    fn add(&mut self, contender: usize, run: &Run) {
        for (samples, (_, _, _, figure)) in self.0.iter_mut().zip(FIGURES) {
            samples[contender].add(figure(run));
        }
    }

    fn print(self) {
        for (samples, (what, unit, better, _)) in self.0.into_iter().zip(FIGURES) {
            heading(what, unit, GAIN);
            let labels = Contender::ALL.map(Contender::label);
            lines(&labels.into_iter().zip(samples).collect::<Vec<_>>(), better);
        }
    }
}
