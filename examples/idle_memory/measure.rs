//! The measuring side: connects, waits until nothing moves, and looks at the server's memory.

use crate::handshake::connect;
use crate::loopback::{Result, Server};
use crate::options::{Layer, Options, Subject};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Connections that come and go before the first look, so that what is built once is not counted.
const WARM_UP: usize = 16;

/// How long a server may take to do what is awaited.
const PATIENCE: Duration = Duration::from_secs(60);

/// Memory that has not changed for so many looks has settled.
const STILL: usize = 4;
const LOOK: Duration = Duration::from_millis(100);

/// Bytes for each connection, with each layer and all those before it.
pub(crate) struct Footprint([f64; Layer::ALL.len()]);

impl Footprint {
    /// What a layer adds.
    pub(crate) fn of(&self, layer: Layer) -> f64 {
        let index = layer as usize;
        self.0[index] - index.checked_sub(1).map_or(0.0, |before| self.0[before])
    }

    /// A connection as `serve` drives it: the sum of the layers.
    pub(crate) fn whole(&self) -> f64 {
        self.0[Layer::Serve as usize]
    }
}

/// Measures each subject. The first layer has no library in it, and is the same for all.
pub(crate) fn footprints(options: &Options) -> Result<Vec<(Subject, Footprint)>> {
    let mut floor = None;
    let mut footprints = Vec::new();
    for &subject in &options.subjects {
        let mut footprint = Footprint([0.0; Layer::ALL.len()]);
        for layer in Layer::ALL {
            footprint.0[layer as usize] = match (layer, floor) {
                (Layer::Task, Some(floor)) => floor,
                _ => median(options.repetitions, || bytes_each(subject, layer, options.connections))?,
            };
        }
        floor = Some(footprint.of(Layer::Task));
        footprints.push((subject, footprint));
    }
    Ok(footprints)
}

/// Whose task is freed when decides where the next one lies, so that one measurement is not like the
/// next.
fn median(repetitions: usize, measure: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut measured = std::iter::repeat_with(measure).take(repetitions).collect::<Result<Vec<_>>>()?;
    measured.sort_by(f64::total_cmp);
    Ok(measured[measured.len() / 2])
}

fn bytes_each(subject: Subject, layer: Layer, connections: usize) -> Result<f64> {
    let what = format!("{} {} {}", subject.adapter.name(), subject.way as u8, layer.name());
    let mut server = Server::start(&what)?;
    drop(open(&mut server, layer, WARM_UP, &what)?);
    until_open(&mut server, 0)?;
    let without = settled(&server)?;
    let clients = open(&mut server, layer, connections, &what)?;
    let with = settled(&server)?;
    until_open(&mut server, connections)?; // still
    drop(clients);
    eprintln!("{what}: {without} KiB without, {with} KiB with {connections}");
    Ok((with as f64 - without as f64) * 1_024.0 / connections as f64)
}

/// Opens connections and waits until the server has them all.
fn open(server: &mut Server, layer: Layer, connections: usize, what: &str) -> Result<Vec<TcpStream>> {
    let mut clients = Vec::with_capacity(connections);
    for number in 0..connections {
        let client = match layer {
            Layer::Task => TcpStream::connect(server.address)?,
            Layer::Library | Layer::Manager | Layer::Serve => connect(server.address, "")?,
        };
        clients.push(client);
        if number > 0 && number % 2_000 == 0 {
            eprintln!("{what}: {number} of {connections} connected");
        }
    }
    until_open(server, connections)?;
    Ok(clients)
}

fn until_open(server: &mut Server, connections: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let open = server.ask("open")?;
        if open == connections.to_string() {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("{open} connections are open at the server, not {connections}").into());
        }
        sleep(LOOK);
    }
}

/// The server's memory in KiB, once it does not change any more.
fn settled(server: &Server) -> Result<u64> {
    let begun = Instant::now();
    let mut memory = server.memory_kib()?;
    let mut still = 0;
    while still < STILL {
        sleep(LOOK);
        let now = server.memory_kib()?;
        still = if now == memory { still + 1 } else { 0 };
        memory = now;
        if begun.elapsed() > PATIENCE {
            return Err("the server's memory does not settle".into());
        }
    }
    Ok(memory)
}
