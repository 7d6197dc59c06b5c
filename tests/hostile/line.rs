//! A line between a client and its server that does what lines do.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What happens to the bytes from the client to the server, and, but for `Late`, to those back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// After so many bytes, one at a time. (tungstenite takes a request that comes so for an attack.)
    Trickle(usize),
    /// Each piece comes later than the one before it, by up to so much.
    Delay(Duration),
    /// After so many bytes both sides hear that the other has closed.
    Cut(usize),
    /// After so many bytes both sides hear of a reset.
    Reset(usize),
    /// After so many bytes nothing is heard any more, and nobody closes.
    HalfOpen(usize),
    /// After so many bytes a piece is missing, and the rest goes on.
    Loss(usize),
    /// All is well, but that the client has closed is told so much later.
    Late(Duration),
}

/// Listens for clients, and connects each to the server.
pub(crate) struct Line {
    pub(crate) address: SocketAddr,
    _running: JoinSet<()>,
}

impl Line {
    pub(crate) async fn to(server: SocketAddr, fate: Fate) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut carried = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(server) = TcpStream::connect(server).await else { continue };
                carried.spawn(carry(client, server, fate));
            }
        });
        Self { address, _running: running }
    }
}

async fn carry(client: TcpStream, server: TcpStream, fate: Fate) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let back = match fate {
        Fate::Late(_) | Fate::Loss(_) => Fate::Delay(Duration::ZERO),
        other => other,
    };
    tokio::join!(one_way(from_client, to_server, fate), one_way(from_server, to_client, back));
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fate: Fate) {
    let (mut passed, mut piece) = (0_usize, [0; 512]);
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        let mut piece = &piece[..read];
        match fate {
            Fate::Trickle(after) if passed >= after => {
                for byte in piece {
                    if to.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                continue;
            }
            Fate::Delay(span) => sleep(span.mul_f64((passed % 7) as f64 / 7.0)).await,
            Fate::Cut(after) | Fate::Reset(after) | Fate::HalfOpen(after) if passed + read > after => {
                let _ = to.write_all(&piece[..after - passed]).await;
                match fate {
                    Fate::HalfOpen(_) => std::future::pending().await, // keeps both halves
                    // The other half still holds the socket; the kernel resets what is closed unread.
                    Fate::Reset(_) => drop((from.as_ref().set_zero_linger(), to.as_ref().set_zero_linger())),
                    _ => drop(to.shutdown().await),
                }
                return;
            }
            Fate::Loss(after) if (passed..passed + read).contains(&after) => piece = &piece[..after - passed],
            _ => {}
        }
        passed += read;
        if to.write_all(piece).await.is_err() {
            return;
        }
    }
    if let Fate::Late(span) = fate {
        sleep(span).await;
    }
    let _ = to.shutdown().await;
}
