//! The other side of many sockets: connects, listens, cuts the lines, and does what it is asked.

use crate::loopback::Result;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::io::{self, ErrorKind, stdin};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections of a user, each on a thread of its own.
const PER_USER: usize = 10;

/// Sockets of one address: all have the same server, and a port can't be used twice.
const PER_ADDRESS: usize = 10_000;

/// How long one handshake may take, and all of them; and how long a client waits before it tries again.
const ATTEMPT: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);

/// Does what it is asked until the process is killed.
pub(crate) fn run(server: SocketAddr) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut crowd = Crowd::new(server);
        let (questions, mut asked) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            stdin().lines().map_while(io::Result::ok).try_for_each(|line| questions.send(line))
        });
        while let Some(question) = asked.recv().await {
            let answer = match question.split(' ').collect::<Vec<_>>()[..] {
                ["connect", count, at_once] => crowd.connect(0, count.parse()?, at_once.parse()?).await,
                ["storm"] => crowd.storm().await,
                ["heard", count] => crowd.heard(count.parse()?).await,
                ["gone"] => crowd.gone().await,
                _ => json!({ "error": format!("{question:?}?") }),
            };
            println!("{answer}");
        }
        Ok(())
    })
}

struct Crowd {
    place: Arc<Place>,
    connections: JoinSet<()>,
    /// Every time that all connect they come from other addresses: the ports of the last time may be kept
    /// by the kernel for a while.
    round: u8,
}

/// What all connections share.
struct Place {
    server: SocketAddr,
    /// Numbers that were heard, in order, by all together.
    heard: AtomicU64,
    /// Connections that were told 1001.
    told: AtomicU64,
    /// Whatever should not have happened.
    mistakes: AtomicU64,
    changed: Notify,
}

impl Crowd {
    fn new(server: SocketAddr) -> Self {
        let (heard, told, mistakes) = Default::default();
        let place = Place { server, heard, told, mistakes, changed: Notify::new() };
        Self { place: Arc::new(place), connections: JoinSet::new(), round: 0 }
    }

    /// Opens so many, at most `at_once` of them at a time.
    async fn connect(&mut self, heard: u64, count: usize, at_once: usize) -> Value {
        self.round += 1;
        let (gate, round) = (Arc::new(Semaphore::new(at_once)), self.round);
        let mut opening = JoinSet::new();
        let begun = Instant::now();
        for number in 0..count {
            let (place, gate) = (self.place.clone(), gate.clone());
            opening.spawn(async move {
                let _turn = gate.acquire_owned().await;
                open(&place, round, number).await
            });
        }
        let (mut took, mut retries) = (histogram(), 0);
        let mut failures = Vec::new();
        while let Some(opened) = opening.join_next().await {
            match opened {
                Ok(Ok(opened)) => {
                    took.saturating_record(opened.took.as_micros() as u64);
                    retries += opened.retries;
                    self.connections.spawn(listen(self.place.clone(), opened.stream, heard));
                }
                Ok(Err(error)) => failures.push(error.to_string()),
                Err(error) => failures.push(error.to_string()),
            }
        }
        json!({
            "ms": begun.elapsed().as_secs_f64() * 1e3,
            "p50_us": took.value_at_quantile(0.5),
            "p99_us": took.value_at_quantile(0.99),
            "max_us": took.max(),
            "retries": retries,
            "failures": failures.len(),
            "first_failure": failures.first(),
        })
    }

    /// All lines are cut, and everybody comes back at once.
    async fn storm(&mut self) -> Value {
        let count = self.connections.len();
        let heard = self.place.heard.load(Ordering::Relaxed) / count.max(1) as u64;
        self.connections.shutdown().await;
        self.connect(heard, count, count).await
    }

    /// Waits until everybody has heard the numbers up to this one.
    async fn heard(&self, count: u64) -> Value {
        let all = count * self.connections.len() as u64;
        self.until(|place| place.heard.load(Ordering::Relaxed) >= all).await;
        json!({
            "heard": self.place.heard.load(Ordering::Relaxed),
            "mistakes": self.place.mistakes.load(Ordering::Relaxed),
        })
    }

    /// Waits until the server has ended all.
    async fn gone(&mut self) -> Value {
        let ending = async { while self.connections.join_next().await.is_some() {} };
        let is_over = timeout(PATIENCE, ending).await.is_ok();
        json!({
            "is_over": is_over,
            "told": self.place.told.load(Ordering::Relaxed),
            "mistakes": self.place.mistakes.load(Ordering::Relaxed),
        })
    }

    async fn until(&self, is_so: impl Fn(&Place) -> bool) {
        let waiting = async {
            // Notified or not since the last look.
            while !is_so(&self.place) {
                self.place.changed.notified().await;
            }
        };
        // Too late: the figures will tell.
        let _elapsed = timeout(PATIENCE, waiting).await;
    }
}

struct Opened {
    stream: TcpStream,
    took: Duration,
    retries: u64,
}

/// Opens one connection. Whoever is refused, or cut off, tries again.
async fn open(place: &Place, round: u8, number: usize) -> io::Result<Opened> {
    let begun = Instant::now();
    let mut retries = 0;
    loop {
        let attempt = timeout(ATTEMPT, handshake(place.server, round, number)).await;
        match attempt.unwrap_or_else(|_elapsed| Err(ErrorKind::TimedOut.into())) {
            Ok(stream) => return Ok(Opened { stream, took: begun.elapsed(), retries }),
            Err(error) if begun.elapsed() > PATIENCE => return Err(error),
            Err(_) => retries += 1,
        }
        sleep(PAUSE).await;
    }
}

async fn handshake(server: SocketAddr, round: u8, number: usize) -> io::Result<TcpStream> {
    let address = Ipv4Addr::new(127, 1, round, 1 + (number / PER_ADDRESS) as u8);
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(address.into(), 0))?;
    let mut stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    // Dropped, it is cut and not closed.
    stream.set_zero_linger()?;
    let request = format!(
        "GET /?user-{}/thread_{number} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        number / PER_USER
    );
    stream.write_all(request.as_bytes()).await?;
    // Nothing is said to anybody before all are there, so nothing is behind the answer.
    let (mut answer, mut length) = ([0; 1_024], 0);
    while !answer[..length].ends_with(b"\r\n\r\n") {
        match stream.read(&mut answer[length..]).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => length += read,
        }
    }
    if answer.starts_with(b"HTTP/1.1 101 ") { Ok(stream) } else { Err(ErrorKind::ConnectionRefused.into()) }
}

/// Hears numbers, one after the other, until it is told to go.
async fn listen(place: Arc<Place>, mut stream: TcpStream, mut heard: u64) {
    const TEXT: u8 = 0x81;
    const CLOSE: u8 = 0x88;
    let mut head = [0; 2];
    // Of a server: no mask, and what is said here is short.
    while stream.read_exact(&mut head).await.is_ok() {
        let mut payload = [0; 125];
        let payload = &mut payload[..usize::from(head[1]).min(125)];
        if stream.read_exact(payload).await.is_err() {
            break;
        }
        match head[0] {
            TEXT => {
                heard += 1;
                if payload != heard.to_string().as_bytes() {
                    place.mistakes.fetch_add(1, Ordering::Relaxed);
                }
                place.heard.fetch_add(1, Ordering::Relaxed);
                place.changed.notify_one();
            }
            CLOSE if payload.starts_with(&1001_u16.to_be_bytes()) => {
                place.told.fetch_add(1, Ordering::Relaxed);
                // The answer, masked by zeros.
                let _ = stream.write_all(&[CLOSE, 0x82, 0, 0, 0, 0, 3, 0xE9]).await;
                return;
            }
            _ => break,
        }
    }
    place.mistakes.fetch_add(1, Ordering::Relaxed);
}

/// Up to five minutes, in microseconds, three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 300_000_000, 3).expect("a valid range")
}
