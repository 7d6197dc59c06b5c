//! The kernel's own count of the connections, from a list that neither the pool nor this server
//! keeps: the process's open files.
//!
//! A socket's inode is noted once it is upgraded, and stays noted for as long as `/proc/self/fd` has
//! a link to it. What our code believes about the connection plays no part in that.

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;

/// The inodes of the sockets that were upgraded to WebSockets. A handle to one set.
#[derive(Clone, Default)]
pub(crate) struct UpgradedSockets(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    /// Each inode with the last pass over the open files that saw it, or that had begun when it was
    /// noted: a pass need not see a file that was opened behind its back.
    seen_in: HashMap<u64, u64>,
    passes: u64,
    /// With more inodes than this it is time for a pass, though nobody asks for the count.
    enough: usize,
}

/// An accepted connection's inode. `None`: this system has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketInode(Option<u64>);

impl UpgradedSockets {
    /// A connection was accepted. If its number is noted, another socket had it before: the kernel
    /// uses them again.
    pub(crate) fn accepted(&self, stream: &TcpStream) {
        if let SocketInode(Some(inode)) = SocketInode::of(stream) {
            self.0.lock().seen_in.remove(&inode);
        }
    }

    /// The connection is a WebSocket from now on.
    pub(crate) fn upgraded(&self, socket: SocketInode) {
        let SocketInode(Some(inode)) = socket else { return };
        let mut noted = self.0.lock();
        let pass = noted.passes;
        noted.seen_in.insert(inode, pass);
        if noted.seen_in.len() > noted.enough {
            noted.enough = usize::MAX; // until that pass is over
            let sockets = self.clone();
            spawn_blocking(move || sockets.pass());
        }
    }

    /// How many upgraded sockets this process has open.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub(crate) async fn count(&self) -> io::Result<usize> {
        let sockets = self.clone();
        // A link takes a microsecond or two: not on a thread that connections wait for.
        spawn_blocking(move || sockets.pass()).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Goes over the open files once, and forgets the inodes that are none (any more).
    fn pass(&self) -> io::Result<usize> {
        let pass = {
            let mut noted = self.0.lock();
            noted.passes += 1;
            noted.passes
        };
        // Locked for each: connections open meanwhile.
        let outcome = each_open_socket(|inode| {
            if let Some(seen_in) = self.0.lock().seen_in.get_mut(&inode) {
                *seen_in = pass.max(*seen_in); // a later pass may have been here first
            }
        });
        let mut noted = self.0.lock();
        if outcome.is_ok() {
            noted.seen_in.retain(|_, seen_in| *seen_in >= pass);
        }
        let count = noted.seen_in.len();
        noted.enough = 2 * count + 1_000;
        outcome.map(|()| count)
    }
}

impl fmt::Debug for UpgradedSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradedSockets").field("noted", &self.0.lock().seen_in.len()).finish()
    }
}

impl SocketInode {
    #[cfg(target_os = "linux")]
    pub(crate) fn of(stream: &TcpStream) -> Self {
        Self(rustix::fs::fstat(stream).ok().map(|stat| stat.st_ino))
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of(_: &TcpStream) -> Self {
        Self(None)
    }
}

/// Tells the set of each connection before anything is served on it.
pub(crate) struct WatchedListener {
    pub(crate) listener: TcpListener,
    pub(crate) sockets: UpgradedSockets,
}

impl Listener for WatchedListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, addr) = Listener::accept(&mut self.listener).await;
        self.sockets.accepted(&stream);
        // A message is to leave when it is written: a p99 of 24 ms becomes one below 1. Refused: it is closed.
        let _ = stream.set_nodelay(true);
        (stream, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Lets a handler ask for the inode, by [`axum::extract::ConnectInfo`].
impl Connected<IncomingStream<'_, WatchedListener>> for SocketInode {
    fn connect_info(stream: IncomingStream<'_, WatchedListener>) -> Self {
        Self::of(stream.io())
    }
}

/// Calls `found` with the inode of every socket among the process's open files. Allocates nothing.
#[cfg(target_os = "linux")]
fn each_open_socket(mut found: impl FnMut(u64)) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, RawDir, open, readlinkat_raw};
    use std::mem::MaybeUninit;

    let files = open(c"/proc/self/fd", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut names = [MaybeUninit::uninit(); 8_192];
    let mut link = [0; 64]; // a longer one is cut off, and is not a socket's
    let mut entries = RawDir::new(&files, &mut names);
    while let Some(entry) = entries.next() {
        // An error: it was closed since it was listed, or is `.` or `..`.
        let Ok(length) = readlinkat_raw(&files, entry?.file_name(), &mut link) else { continue };
        if let Some(inode) = socket_inode(&link[..length]) {
            found(inode);
        }
    }
    Ok(())
}

/// Reads `socket:[inode]`.
#[cfg(target_os = "linux")]
fn socket_inode(link: &[u8]) -> Option<u64> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(not(target_os = "linux"))]
fn each_open_socket(_: impl FnMut(u64)) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux tells"))
}
