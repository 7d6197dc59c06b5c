//! The servers, each in a process of its own. One more is a row here, and a function that serves.

use crate::baselines::{Buffers, axum, fastwebsockets, tokio_tungstenite};
use crate::loopback::{Result, Server};
use crate::ours::{self, Chat};
use crate::process::pin;
use crate::stopwatch;
use std::fmt;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use tokio::net::TcpListener;
use ws_manager_pool::Pool;

/// Who is compared.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) side: Side,
    /// In a few words.
    pub(crate) description: &'static str,
    serve: Serve,
}

/// What a contender is in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// As its libraries come.
    Default,
    /// With small buffers.
    Tuned,
    /// A way of this crate, in a server of its own.
    Way(u8),
    /// A way of this crate, behind a route of axum.
    WayBehindAxum(u8),
}

impl Side {
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Way(_) | Self::WayBehindAxum(_))
    }
}

/// Accepts connections, and spawns a task for each, until it fails.
enum Serve {
    Baseline(fn(TcpListener) -> Serving),
    Ours(fn(TcpListener, Pool<Chat>) -> Serving),
}

type Serving = Pin<Box<dyn Future<Output = Result<()>>>>;

/// In the order of the tables.
pub(crate) static CONTENDERS: [Contender; 11] = [
    Contender {
        name: "axum-default",
        side: Side::Default,
        description: "axum with its default buffers, a writer task and channel, a registry",
        serve: Serve::Baseline(|listener| Box::pin(axum::run(listener, Buffers::Default))),
    },
    Contender {
        name: "tokio-tungstenite-default",
        side: Side::Default,
        description: "tokio-tungstenite with its default buffers, a writer task and channel, a registry",
        serve: Serve::Baseline(|listener| Box::pin(tokio_tungstenite::run(listener, Buffers::Default))),
    },
    Contender {
        name: "axum-tuned",
        side: Side::Tuned,
        description: "axum with 4 KiB buffers, a writer task and channel, a registry",
        serve: Serve::Baseline(|listener| Box::pin(axum::run(listener, Buffers::Tuned))),
    },
    Contender {
        name: TOKIO_TUNGSTENITE_TUNED,
        side: Side::Tuned,
        description: "tokio-tungstenite with 4 KiB buffers, a writer task and channel, a registry",
        serve: Serve::Baseline(|listener| Box::pin(tokio_tungstenite::run(listener, Buffers::Tuned))),
    },
    Contender {
        name: FASTWEBSOCKETS,
        side: Side::Tuned,
        description: "fastwebsockets and hyper, a writer task and channel, a registry",
        serve: Serve::Baseline(|listener| Box::pin(fastwebsockets::run(listener))),
    },
    Contender {
        name: "way-1",
        side: Side::Way(1),
        description: "the pool: serve over tokio-tungstenite with 4 KiB buffers",
        serve: Serve::Ours(|listener, pool| Box::pin(ours::way_1(listener, pool))),
    },
    Contender {
        name: "way-1-axum",
        side: Side::WayBehindAxum(1),
        description: "the pool: serve behind a route of axum with 4 KiB buffers",
        serve: Serve::Ours(|listener, pool| Box::pin(ours::way_1_behind_axum(listener, pool))),
    },
    Contender {
        name: "way-2",
        side: Side::Way(2),
        description: "the pool: serve over tokio-tungstenite over leased buffers",
        serve: Serve::Ours(|listener, pool| Box::pin(ours::way_2(listener, pool))),
    },
    Contender {
        name: "way-2-axum",
        side: Side::WayBehindAxum(2),
        description: "the pool: serve behind a route of axum over leased buffers",
        serve: Serve::Ours(|listener, pool| Box::pin(ours::way_2_behind_axum(listener, pool))),
    },
    Contender {
        name: "way-3",
        side: Side::Way(3),
        description: "the pool owns the connection: its own handshake and engine",
        serve: Serve::Ours(|listener, pool| Box::pin(ours::way_3(listener, pool))),
    },
    Contender {
        name: "way-3-axum",
        side: Side::WayBehindAxum(3),
        description: "the pool's own engine on a connection that axum has upgraded",
        serve: Serve::Ours(|listener, pool| Box::pin(ours::way_3_behind_axum(listener, pool))),
    },
];

/// The baselines that goals name.
pub(crate) const TOKIO_TUNGSTENITE_TUNED: &str = "tokio-tungstenite-tuned";
pub(crate) const FASTWEBSOCKETS: &str = "fastwebsockets";

impl Contender {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        CONTENDERS.iter().find(|contender| contender.name == name)
    }

    /// Starts it in a process of its own.
    pub(crate) fn start(&self, place: Place) -> Result<Server> {
        let Place { core, connections, per_user } = place;
        Server::start(&format!("{} {core} {connections} {per_user}", self.name))
    }
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What a server is started with.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The one core it runs on.
    pub(crate) core: usize,
    /// How many connections it is to hold at most, and how many of a user.
    pub(crate) connections: usize,
    pub(crate) per_user: usize,
}

/// Serves until the process is killed. The first line it prints is its address.
pub(crate) fn run(role: &str) -> Result<()> {
    let mut words = role.split(' ');
    let mut next = || words.next().ok_or("a server is started by the example itself");
    let contender = Contender::named(next()?).ok_or("there is no such server")?;
    pin(next()?.parse()?)?;
    let (connections, per_user) = (next()?.parse()?, next()?.parse()?);
    // One thread: what a second one keeps in its own caches would blur the figures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        wait_for_requests(&listener)?;
        println!("{}", listener.local_addr()?);
        stopwatch::answer();
        match contender.serve {
            Serve::Baseline(serve) => serve(listener).await,
            Serve::Ours(serve) => serve(listener, ours::pool(connections, per_user)?).await,
        }
    })
}

/// `accept` returns once the client's request has come, so that no server's set-up has the client's time in it.
fn wait_for_requests(listener: &TcpListener) -> Result<()> {
    let seconds: libc::c_int = 10;
    // SAFETY: the descriptor is open, and the value is an int that lives for the call, of the size that is told.
    let outcome = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}
