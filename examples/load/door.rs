//! One connection's opening, or why there is none.

use crate::options::Target;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::http::header::RETRY_AFTER;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, http};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

pub(crate) type Socket = WebSocketStream<TcpStream>;

/// Enough for a text or two: there are thousands of these buffers.
const READ_BUFFER: usize = 4 * 1024;

/// A server that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Until a refused connection tries again, if the server does not say.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) enum NotOpened {
    /// The server said no, in HTTP.
    Refused { status: u16, retry_after: Duration },
    /// There was no stream to ask on.
    Unreachable(io::Error),
    /// There was no answer, or none that is HTTP.
    Failed(String),
}

pub(crate) async fn open(target: &Target, user: &str, thread: &str) -> Result<Socket, NotOpened> {
    let handshake = async {
        let stream = TcpStream::connect(&target.addr).await.map_err(NotOpened::Unreachable)?;
        stream.set_nodelay(true).map_err(NotOpened::Unreachable)?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
        let opened = client_async_with_config(target.url(user, thread), stream, Some(config)).await;
        opened.map(|(socket, _)| socket).map_err(NotOpened::from)
    };
    let late = || NotOpened::Failed(format!("no answer within {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, handshake).await.map_err(|_| late())?
}

impl From<tungstenite::Error> for NotOpened {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(answer) => {
                Self::Refused { status: answer.status().as_u16(), retry_after: retry_after(&answer) }
            }
            error => Self::Failed(error.to_string()),
        }
    }
}

fn retry_after<T>(answer: &http::Response<T>) -> Duration {
    let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    seconds.map_or(RETRY, Duration::from_secs)
}
