//! The measured side: accepts connections and lets them wait.

use crate::loopback::Result;
use crate::options::{Adapter, Layer, Subject, Way};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, TcpStream};

/// Serves until the process is killed. The first line it prints is its address.
pub(crate) fn run(role: &str) -> Result<()> {
    let [adapter, way, layer] = role.split(' ').collect::<Vec<_>>()[..] else {
        return Err("a server is started by the example itself".into());
    };
    let adapter = Adapter::named(adapter).ok_or("an unknown adapter")?;
    let subject = Subject { adapter, way: Way::named(way).ok_or("an unknown way")? };
    let layer = Layer::named(layer).ok_or("an unknown layer")?;
    // One thread: what a second one keeps in its own caches would blur the figures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        answer();
        match layer {
            Layer::Task => sockets(listener).await,
            Layer::Library | Layer::Manager | Layer::Serve => library(subject, layer, listener).await,
        }
    })
}

/// A connection that is waiting.
pub(crate) struct Open(());

static OPEN: AtomicUsize = AtomicUsize::new(0);

impl Open {
    pub(crate) fn new() -> Self {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says how many connections are open, whenever it is asked.
fn answer() {
    std::thread::spawn(|| {
        for question in std::io::stdin().lines() {
            match question.as_deref() {
                Ok("open") => println!("{}", OPEN.load(Ordering::Relaxed)),
                _ => println!("what?"),
            }
        }
    });
}

/// The floor: a task that waits until its socket can be read.
async fn sockets(listener: TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(until_closed(stream, Open::new()));
    }
}

async fn until_closed(stream: TcpStream, _open: Open) {
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut [0; 64]) {
            Ok(1..) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}

async fn library(subject: Subject, layer: Layer, listener: TcpListener) -> Result<()> {
    #[cfg(any(
        feature = "axum",
        feature = "tungstenite",
        feature = "tokio-websockets",
        feature = "fastwebsockets"
    ))]
    return crate::libraries::run(subject, layer, listener).await;
    #[cfg(not(any(
        feature = "axum",
        feature = "tungstenite",
        feature = "tokio-websockets",
        feature = "fastwebsockets"
    )))]
    {
        drop((layer, listener));
        Err(crate::options::NotCompiledIn(subject.adapter.name()).into())
    }
}
