//! The ways in: from an accepted socket to a connection that `serve` drives. Each takes a user and a thread
//! by the request's query, and lets nobody in who has no place.

use crate::options::Way;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use ws_manager_pool::serve::{Door, Gate, LeasedIo, Rejection, application, door, lean, serve};
use ws_manager_pool::{IdGenerator, Lease, Pool, UserExecutionContext};

/// What a server that was tuned for memory would say, in place of 128 KiB.
const BUFFER: usize = 4 * 1_024;

/// For the crate's own engine.
pub(crate) fn gate(pool: &Pool) -> Gate<impl Door<Session = ()> + use<>> {
    Gate::new(pool, door(|request| identify(request.query()).ok_or(Rejection::new(400, "say /?user/thread"))))
}

/// Serves a connection to its end over a library; `None` if it never came to one.
pub(crate) async fn enter(way: Way, stream: TcpStream, pool: Pool) -> Option<()> {
    match way {
        Way::Library | Way::Own => {
            let sizes = WebSocketConfig::from(&*pool.config());
            let sizes = sizes.read_buffer_size(BUFFER).write_buffer_size(BUFFER);
            over_tungstenite(stream, pool, sizes).await
        }
        Way::Leased => {
            let sizes = lean(&pool.config());
            over_tungstenite(LeasedIo::new(stream, &pool), pool, sizes).await
        }
    }
}

async fn over_tungstenite<IO>(stream: IO, pool: Pool, sizes: WebSocketConfig) -> Option<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut reservation = None;
    // The library's callback has the library's large error.
    #[allow(clippy::result_large_err)]
    let admit = |request: &Request, response: Response| {
        let place = identify(request.uri().query()).and_then(|context| pool.reserve(&context).ok());
        reservation = Some(place.ok_or_else(refusal)?);
        Ok(response)
    };
    let socket = accept_hdr_async_with_config(stream, admit, Some(sizes)).await.ok()?;
    let lease: Lease = reservation?.open().ok()?;
    // In a small task of its own: this one keeps the size of its largest moment, the handshake.
    tokio::spawn(serve(socket, lease, application(|_, _| Ok(()))));
    Some(())
}

/// `user/thread`
fn identify(query: Option<&str>) -> Option<UserExecutionContext> {
    let (user, thread) = query?.split_once('/')?;
    let ids = IdGenerator::user_context_ids(user, "scale").with_client_thread(thread).ok()?;
    UserExecutionContext::from_websocket_request(user, ids).ok()
}

fn refusal() -> ErrorResponse {
    let mut response = ErrorResponse::new(Some("no place".to_owned()));
    *response.status_mut() = 503.try_into().unwrap_or_default();
    response
}
