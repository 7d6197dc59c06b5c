//! A server on a loopback port, the application that its clients command, and what they look at.

use futures_util::{SinkExt, StreamExt};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::{Error as WireError, Message as Wire};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};
use ws_manager_pool::serve::{Application, CloseReport, Connection, HandlerError, Received, serve};
use ws_manager_pool::{
    EndReason, IdGenerator, ManagerKey, Message, Pool, ReserveError, Session, UserExecutionContext, UserId,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Does what the text says; any other text is sent back with its number.
#[derive(Clone)]
pub(crate) struct Obedient {
    closed: mpsc::UnboundedSender<EndReason>,
    /// The task that serves the connection.
    task: Option<AbortHandle>,
    /// What "wait" waits for.
    gate: Arc<Notify>,
}

impl Obedient {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<EndReason>) {
        let (closed, heard) = mpsc::unbounded_channel();
        (Self { closed, task: None, gate: Arc::default() }, heard)
    }
}

#[derive(Default)]
pub(crate) struct Count(u64);

impl Session for Count {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

impl Application for Obedient {
    type Session = Count;

    fn closed(&self, report: &CloseReport) {
        let _ = self.closed.send(report.reason);
    }

    async fn connected(&self, conn: &mut Connection<'_, Count>) -> Result<(), HandlerError> {
        let _ = conn.send(Message::text(format!("welcome {}", conn.context().user_id())));
        Ok(())
    }

    async fn received(
        &self,
        conn: &mut Connection<'_, Count>,
        message: Received<'_>,
    ) -> Result<(), HandlerError> {
        let number = conn.with_session(|count| {
            count.0 += 1;
            count.0
        })?;
        match message.as_text() {
            Some("fail") => Err(HandlerError::new("as commanded")),
            Some("panic") => panic!("as commanded"),
            Some("hang") => pending().await,
            Some("wait") => {
                self.gate.notified().await;
                Ok(())
            }
            Some("open the gate") => {
                self.gate.notify_one();
                Ok(())
            }
            Some("cancel") => {
                self.task.as_ref().unwrap().abort();
                pending().await
            }
            Some("close") => {
                let _ = conn.send(Message::from("bye"));
                conn.close();
                Ok(())
            }
            text => {
                let _ = conn.send(match text {
                    Some(text) => Message::text(format!("{number} {text}")),
                    None => message.to_message(),
                });
                Ok(())
            }
        }
    }
}

pub(crate) struct Server {
    pub(crate) pool: Pool<Count>,
    pub(crate) address: SocketAddr,
    /// What the application heard.
    closed: mpsc::UnboundedReceiver<EndReason>,
    /// What `serve` returned.
    pub(crate) reports: mpsc::UnboundedReceiver<CloseReport>,
    /// Shared with the one who accepts, and with every task that has a connection.
    held: Arc<()>,
    _accepting: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(pool: Pool<Count>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (report, reports) = mpsc::unbounded_channel();
        let (obedient, closed) = Obedient::new();
        let mut accepting = JoinSet::new();
        let held = Arc::new(());
        let (served, holder) = (pool.clone(), held.clone());
        accepting.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (pool, mut app, report) = (served.clone(), obedient.clone(), report.clone());
                let hold = holder.clone();
                let (handle, own_handle) = oneshot::channel();
                let serving = tokio::spawn(async move {
                    app.task = own_handle.await.ok();
                    connection(stream, pool, app, report).await;
                    drop(hold);
                });
                let _ = handle.send(serving.abort_handle());
            }
        });
        Self { pool, address, closed, reports, held, _accepting: accepting }
    }

    /// What the application heard of the next connection to end.
    pub(crate) async fn heard(&mut self) -> EndReason {
        tokio::time::timeout(PATIENCE, self.closed.recv()).await.expect("an end in time").unwrap()
    }

    /// How the next connection to end ended, once `serve` has returned.
    pub(crate) async fn report(&mut self) -> CloseReport {
        tokio::time::timeout(PATIENCE, self.reports.recv()).await.expect("a report").unwrap()
    }

    pub(crate) fn keys_of(&self, user: &str) -> Vec<ManagerKey> {
        self.pool.keys_of(&UserId::new(user).unwrap())
    }

    /// Waits for the tasks of all connections. Nothing is waited for after them: a manager is free
    /// before its connection's task ends, or never.
    pub(crate) async fn is_empty(&self) {
        eventually("every connection's task has ended", || Arc::strong_count(&self.held) == 2).await;
        // Somebody who only looks may still have a pin.
        eventually("no slot waits for a reader", || self.pool.ledger().closing == 0).await;
        let ledger = self.pool.ledger();
        assert!(ledger.balanced, "{ledger:#?}");
        let left = (ledger.leases, ledger.users_sum, ledger.isolation_keys, ledger.occupied_slots);
        assert_eq!(left, (0, 0, 0, 0), "{ledger:#?}");
    }
}

/// Reserves before the handshake for the user and thread of the path, opens after it, serves.
#[expect(clippy::result_large_err, reason = "the handshake's callback returns a whole response")]
async fn connection(
    stream: TcpStream,
    pool: Pool<Count>,
    app: Obedient,
    report: mpsc::UnboundedSender<CloseReport>,
) {
    let mut reservation = None;
    let admit = |request: &Request, response: Response| {
        let mut path = request.uri().path().split('/').skip(1);
        let context = context(path.next().unwrap_or_default(), path.next());
        let refusal = |error: ReserveError| {
            let mut refusal = ErrorResponse::new(Some(error.to_string()));
            *refusal.status_mut() = error.http_status().try_into().unwrap();
            refusal
        };
        reservation = Some(pool.reserve(&context).map_err(refusal)?);
        Ok(response)
    };
    let Ok(socket) = accept_hdr_async(stream, admit).await else { return };
    let lease = reservation.unwrap().open().unwrap();
    let _ = report.send(serve(socket, lease, app).await);
}

pub(crate) fn context(user: &str, thread: Option<&str>) -> UserExecutionContext {
    let ids = IdGenerator::user_context_ids(user, "test");
    let ids = match thread {
        Some(thread) => ids.with_client_thread(thread).unwrap(),
        None => ids,
    };
    UserExecutionContext::from_websocket_request(user, ids).unwrap()
}

pub(crate) type Client = WebSocketStream<TcpStream>;

/// Connects as a path says, `user` or `user/thread_x`, and waits to be welcomed.
pub(crate) async fn connect(address: SocketAddr, path: &str) -> Client {
    let mut client = knock(address, path).await.unwrap_or_else(|status| panic!("refused with {status}"));
    let user = path.split('/').next().unwrap();
    assert_eq!(hear(&mut client).await, format!("welcome {user}"));
    client
}

/// Asks to be let in. A refusal is the status of the answer.
pub(crate) async fn knock(address: SocketAddr, path: &str) -> Result<Client, u16> {
    let stream = TcpStream::connect(address).await.unwrap();
    match client_async(format!("ws://{address}/{path}"), stream).await {
        Ok((client, _)) => Ok(client),
        Err(WireError::Http(refusal)) => Err(refusal.status().as_u16()),
        Err(error) => panic!("neither let in nor refused: {error}"),
    }
}

pub(crate) async fn say(client: &mut Client, text: &str) {
    client.send(Wire::text(text)).await.unwrap();
}

/// The next text.
pub(crate) async fn hear(client: &mut Client) -> String {
    loop {
        let next = tokio::time::timeout(PATIENCE, client.next()).await.expect("a message in time");
        match next.expect("a message").unwrap() {
            Wire::Text(text) => return text.to_string(),
            Wire::Ping(_) | Wire::Pong(_) => {}
            other => panic!("a text was expected, not {other:?}"),
        }
    }
}

/// The code with which the server closes; what comes before it is left unread.
pub(crate) async fn close_code<T: AsyncRead + AsyncWrite + Unpin>(client: &mut WebSocketStream<T>) -> u16 {
    loop {
        let next = tokio::time::timeout(PATIENCE, client.next()).await.expect("a close frame in time");
        if let Wire::Close(close) = next.expect("a close frame").unwrap() {
            let _ = client.flush().await; // sends the answer
            return close.expect("a code").code.into();
        }
    }
}

/// Resets the connection instead of closing it.
pub(crate) fn reset(client: Client) {
    let stream = client.into_inner();
    stream.set_zero_linger().unwrap();
    drop(stream);
}

pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "in vain: {what}");
}
