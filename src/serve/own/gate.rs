//! The way in for a fresh socket: one small task reads the request, lets somebody decide who comes, answers,
//! and serves the connection.

use super::handshake::Handshake;
use crate::engine::{Request, RequestError, ResponseError};
use crate::error::{OpenError, ReserveError};
use crate::id::{IdError, UserExecutionContext};
use crate::manager::Session;
use crate::pool::{Entered, EventId, Pool};
use crate::serve::application::{Application, CloseReport};
use crate::serve::origin::OriginPolicy;
use crate::serve::porch::PorchFull;
use crate::serve::serve_on;
use pin_project_lite::pin_project;
use std::borrow::Cow;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::{Future, ready};
use std::io;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::sleep;

/// Who may come in: decides on a request, before anything is reserved or answered. Here the request is
/// authenticated. [`door`] makes one of a closure.
pub trait Door: Send + Sync + 'static {
    /// The application's own state of a connection, as in [`Application`].
    type Session: Session;

    /// Every future of [`admit`](Self::admit) is ready when it is first polled, as that of [`door`] is. Where
    /// one is not, the client hears 500.
    const IS_IMMEDIATE: bool = false;

    /// Whose connection it is, and on which terms.
    ///
    /// # Errors
    ///
    /// A [`Rejection`], which is answered in place of the handshake.
    fn admit(&self, request: &Request<'_>) -> impl Future<Output = Result<Admission, Rejection>> + Send;
}

/// A [`Door`] that is a synchronous closure: a context, or a whole [`Admission`].
///
/// ```
/// use ws_manager_pool::engine::Request;
/// use ws_manager_pool::serve::{Rejection, door};
/// use ws_manager_pool::{IdGenerator, UserExecutionContext};
///
/// let by_query = door::<(), _, _>(|request: &Request<'_>| {
///     let user = request.query().ok_or(Rejection::new(401, "say who you are: /?name"))?;
///     let ids = IdGenerator::user_context_ids(user, "chat");
///     Ok(UserExecutionContext::from_websocket_request(user, ids)?)
/// });
/// # let _ = by_query;
/// ```
pub fn door<S, F, T>(admit: F) -> impl Door<Session = S>
where
    S: Session,
    F: Fn(&Request<'_>) -> Result<T, Rejection> + Send + Sync + 'static,
    T: Into<Admission> + 'static,
{
    ByClosure { admit, types: PhantomData }
}

struct ByClosure<S, F, T> {
    admit: F,
    types: PhantomData<fn() -> (S, T)>,
}

impl<S, F, T> Door for ByClosure<S, F, T>
where
    S: Session,
    F: Fn(&Request<'_>) -> Result<T, Rejection> + Send + Sync + 'static,
    T: Into<Admission> + 'static,
{
    type Session = S;

    const IS_IMMEDIATE: bool = true;

    fn admit(&self, request: &Request<'_>) -> impl Future<Output = Result<Admission, Rejection>> + Send {
        ready((self.admit)(request).map(Into::into))
    }
}

/// The terms on which somebody comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    pub(super) context: UserExecutionContext,
    protocol: Option<Cow<'static, str>>,
    headers: Vec<Header>,
    pub(super) after: Option<EventId>,
}

type Header = (Cow<'static, str>, Cow<'static, str>);

impl Admission {
    /// As this one.
    pub const fn new(context: UserExecutionContext) -> Self {
        Self { context, protocol: None, headers: Vec::new(), after: None }
    }

    /// With one of the subprotocols that the client offered ([`Request::protocols`]).
    #[must_use]
    pub fn protocol(mut self, protocol: impl Into<Cow<'static, str>>) -> Self {
        self.protocol = Some(protocol.into());
        self
    }

    /// With a further header in the answer.
    #[must_use]
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(super) fn protocol_name(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// The client has been here before: see [`Reservation::resume_after`](crate::Reservation::resume_after).
    #[must_use]
    pub fn resume_after(mut self, after: EventId) -> Self {
        self.after = Some(after);
        self
    }
}

impl From<UserExecutionContext> for Admission {
    fn from(context: UserExecutionContext) -> Self {
        Self::new(context)
    }
}

/// An answer in place of the handshake: a status, a text to read, perhaps when to try again, and headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub(super) status: u16,
    pub(super) why: Cow<'static, str>,
    pub(super) retry_after: Option<Duration>,
    pub(super) headers: Vec<Header>,
    /// What the server did wrong, where it did.
    pub(super) mistake: Option<Box<ResponseError>>,
}

impl Rejection {
    /// A rejection with a status of 300 to 599 and a text for whoever reads it.
    pub fn new(status: u16, why: impl Into<Cow<'static, str>>) -> Self {
        Self { status, why: why.into(), retry_after: None, headers: Vec::new(), mistake: None }
    }

    /// Says when trying again may help. Told in seconds, rounded up.
    #[must_use]
    pub fn with_retry_after(mut self, span: Duration) -> Self {
        self.retry_after = Some(span);
        self
    }

    /// With a further header, such as `WWW-Authenticate`.
    #[must_use]
    pub fn with_header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The client can do nothing about what the server did wrong.
    pub(super) fn for_mistake(mistake: ResponseError) -> Self {
        let mistake = Some(Box::new(mistake));
        Self { mistake, ..Self::new(500, "the server's answer is not fit to be sent") }
    }

    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// When trying again may help, if that is told.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl From<IdError> for Rejection {
    fn from(error: IdError) -> Self {
        Self::new(400, error.to_string())
    }
}

impl From<ReserveError> for Rejection {
    fn from(error: ReserveError) -> Self {
        Self { retry_after: error.retry_after(), ..Self::new(error.http_status(), error.to_string()) }
    }
}

impl From<OpenError> for Rejection {
    fn from(error: OpenError) -> Self {
        Self { retry_after: error.retry_after(), ..Self::new(error.http_status(), error.to_string()) }
    }
}

impl From<RequestError> for Rejection {
    fn from(error: RequestError) -> Self {
        let headers = error.header().map(|(name, value)| (name.into(), value.into()));
        Self { headers: headers.into_iter().collect(), ..Self::new(error.status(), error.as_str()) }
    }
}

/// What a server answers to those who ask for a WebSocket on a fresh socket. Cheap to clone.
///
/// ```
/// use tokio::net::TcpListener;
/// use ws_manager_pool::serve::{Gate, Rejection, application, door};
/// use ws_manager_pool::{IdGenerator, Pool, UserExecutionContext};
///
/// async fn run(listener: TcpListener, pool: Pool) -> std::convert::Infallible {
///     let gate = Gate::new(&pool, door(|request| {
///         let user = request.query().ok_or(Rejection::new(401, "say who you are: /?name"))?;
///         let ids = IdGenerator::user_context_ids(user, "chat");
///         Ok(UserExecutionContext::from_websocket_request(user, ids)?)
///     }));
///     gate.listen(listener, || application(|conn, message| {
///         let _ = conn.send(message.to_message());
///         Ok(())
///     })).await
/// }
/// ```
///
/// In this order, a socket that is not let in
///
/// 1. is closed, if as many as may be are without an owner ([`crate::Config::max_unauthenticated`]) and it was
///    accepted without a [vacancy](Gate::vacancy);
/// 2. is closed, if the handshake takes longer than [`crate::Config::reservation_deadline`];
/// 3. hears what is wrong with its request: 400, 405, 426, 431, 505;
/// 4. hears 403, if it comes from a foreign page ([`OriginPolicy`]);
/// 5. hears what the [`Door`] says: 401, 403, or 400 for a bad id;
/// 6. hears 429 for a full user, 503 for a full or draining pool, 409 for a thread that is in use.
///
/// Nothing is allocated in the steady state but the task that is spawned for it.
pub struct Gate<D: Door>(Hinge<D>);

enum Hinge<D: Door> {
    Shared(Arc<Frame<D>>),
    Leaked(&'static Frame<D>),
}

struct Frame<D: Door> {
    pool: Pool<D::Session>,
    door: D,
    origins: OriginPolicy,
    headers: Vec<Header>,
}

impl<D: Door> Gate<D> {
    /// For pages of the same host, and for whoever is no page.
    pub fn new(pool: &Pool<D::Session>, door: D) -> Self {
        let frame = Frame { pool: pool.clone(), door, origins: OriginPolicy::default(), headers: Vec::new() };
        Self(Hinge::Shared(Arc::new(frame)))
    }

    /// From which pages a browser may connect. To be said before the gate is cloned, as the next.
    #[must_use]
    pub fn with_origins(self, origins: OriginPolicy) -> Self {
        self.change(|frame| frame.origins = origins)
    }

    /// A header of every answer that lets somebody in, such as `Server`.
    #[must_use]
    pub fn with_header(
        self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.change(|frame| frame.headers.push((name.into(), value.into())))
    }

    /// A gate that is never taken down, and whose clones therefore are not counted: for servers on many
    /// cores, as [`Pool::leak`].
    #[must_use]
    pub fn leak(self) -> Self {
        match self.0 {
            Hinge::Shared(frame) => Self(Hinge::Leaked(&**Box::leak(Box::new(frame)))),
            Hinge::Leaked(frame) => Self(Hinge::Leaked(frame)),
        }
    }

    /// Lets people in, each with an application of its own, until the future is dropped: a task for each
    /// connection, which lives on. A crowd waits in the kernel: as many as the listener's backlog holds (1,024 by
    /// `TcpListener::bind`; `TcpSocket::listen` takes more), and the rest try again by themselves after 1 s. Where
    /// the process may open no more files, it is tried again every 100 ms: an error of one `accept` ends nobody's
    /// server.
    ///
    /// For sockets of other kinds, or for what has to be done to one first (TLS), see [`Gate::vacancy`].
    ///
    /// # Panics
    ///
    /// If polled outside of a Tokio runtime with its I/O and timer enabled.
    #[track_caller]
    pub fn listen<A>(&self, listener: TcpListener, app: impl Fn() -> A) -> impl Future<Output = Infallible>
    where
        A: Application<Session = D::Session> + Send + 'static,
    {
        let (gate, made_at) = (self.clone(), Location::caller());
        async move {
            loop {
                let Vacancy { gate, place } = gate.vacancy().await;
                match listener.accept().await {
                    Ok((stream, _)) => {
                        // Else small messages wait for each other. It fails only where the peer is gone.
                        let _gone = stream.set_nodelay(true);
                        tokio::spawn(accepting(gate, Some(place), stream, app(), made_at));
                    }
                    Err(error) if is_of_the_peer(&error) => {}
                    Err(_) if fault!("listener_stops") => std::future::pending().await,
                    Err(_) => sleep(NO_FILE_LEFT).await,
                }
            }
        }
    }

    /// Waits until one more socket may be without an owner ([`crate::Config::max_unauthenticated`]). Asked for
    /// before each `accept` of a listener, a crowd that comes at once waits in the kernel, and gets in one after
    /// the other as fast as handshakes end; without, those that are too many are turned away and come again.
    ///
    /// May be dropped at any time, and so may the vacancy.
    pub async fn vacancy(&self) -> Vacancy<D> {
        Vacancy { place: self.pool().enter_wait().await, gate: self.clone() }
    }

    /// The handshake, and then the connection, as [`serve`](super::super::serve()) drives it. The future is as
    /// small as that of the connection alone: spawn it for each socket that was accepted. See
    /// [`Gate::vacancy`] for listeners that may see a crowd.
    ///
    /// The manager's [`made_at`](crate::PooledWebSocketManager::made_at) is the place of this call.
    ///
    /// # Errors
    ///
    /// [`AcceptError`] if it came to nothing. The peer has been told, as far as it can be.
    ///
    /// # Panics
    ///
    /// If polled outside of a Tokio runtime with its timer enabled.
    #[track_caller]
    pub fn accept<IO, A>(
        &self,
        io: IO,
        app: A,
    ) -> impl Future<Output = Result<CloseReport, AcceptError>> + use<IO, A, D>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        A: Application<Session = D::Session>,
    {
        accepting(self.clone(), None, io, app, Location::caller())
    }

    fn frame(&self) -> &Frame<D> {
        match &self.0 {
            Hinge::Shared(frame) => frame,
            Hinge::Leaked(frame) => frame,
        }
    }

    fn change(self, change: impl FnOnce(&mut Frame<D>)) -> Self {
        match self.0 {
            Hinge::Shared(mut frame) => {
                if let Some(frame) = Arc::get_mut(&mut frame) {
                    change(frame);
                } else {
                    debug_assert!(false, "a gate is changed before it is cloned");
                }
                Self(Hinge::Shared(frame))
            }
            Hinge::Leaked(frame) => Self(Hinge::Leaked(frame)),
        }
    }
}

/// How long until a process that may open no more files tries again.
const NO_FILE_LEFT: Duration = Duration::from_millis(100);

/// It came and went: there is nothing to wait for.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn accepting<D, IO, A>(
    gate: Gate<D>,
    place: Option<Entered<D::Session>>,
    io: IO,
    app: A,
    made_at: &'static Location<'static>,
) -> impl Future<Output = Result<CloseReport, AcceptError>> + use<IO, A, D>
where
    D: Door,
    IO: AsyncRead + AsyncWrite + Unpin,
    A: Application<Session = D::Session>,
{
    Accepting::Handshake {
        handshake: Handshake::new(gate, place, io, made_at),
        serve: Some(|(wire, inbox, lease)| serve_on(wire, inbox, lease, app)),
    }
}

/// Room for one socket more at a [`Gate`], until it is used or dropped.
#[must_use = "it keeps a place for a socket until it is used or dropped"]
pub struct Vacancy<D: Door> {
    gate: Gate<D>,
    place: Entered<D::Session>,
}

impl<D: Door> Vacancy<D> {
    /// As [`Gate::accept`], but never turned away for want of room.
    ///
    /// # Errors
    ///
    /// [`AcceptError`] if it came to nothing. The peer has been told, as far as it can be.
    ///
    /// # Panics
    ///
    /// If polled outside of a Tokio runtime with its timer enabled.
    #[track_caller]
    pub fn accept<IO, A>(
        self,
        io: IO,
        app: A,
    ) -> impl Future<Output = Result<CloseReport, AcceptError>> + use<IO, A, D>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        A: Application<Session = D::Session>,
    {
        accepting(self.gate, Some(self.place), io, app, Location::caller())
    }
}

impl<D: Door> fmt::Debug for Vacancy<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vacancy").field(&self.gate).finish()
    }
}

impl<D: Door> Clone for Gate<D> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Hinge::Shared(frame) => Hinge::Shared(frame.clone()),
            Hinge::Leaked(frame) => Hinge::Leaked(frame),
        })
    }
}

impl<D: Door> fmt::Debug for Gate<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Frame { pool, origins, .. } = self.frame();
        f.debug_struct("Gate").field("pool", pool).field("origins", origins).finish_non_exhaustive()
    }
}

impl<D: Door> Gate<D> {
    pub(super) fn pool(&self) -> &Pool<D::Session> {
        &self.frame().pool
    }

    pub(super) fn door(&self) -> &D {
        &self.frame().door
    }

    pub(super) fn check_origin(&self, request: &Request<'_>) -> Result<(), Rejection> {
        let is_allowed = self.frame().origins.allows(request.origin(), Some(request.host().as_bytes()));
        if is_allowed { Ok(()) } else { Err(Rejection::new(403, "connect from a page of this host")) }
    }

    /// The headers of an answer that lets somebody in.
    pub(super) fn headers<'h>(
        &'h self,
        admission: &'h Admission,
    ) -> impl Iterator<Item = (&'h str, &'h str)> + Clone {
        let headers = self.frame().headers.iter().chain(&admission.headers);
        headers.map(|(name, value)| (&**name, &**value))
    }
}

pin_project! {
    /// A handshake, and then the connection in the same place.
    #[project = AcceptingView]
    #[project_replace = AcceptingBefore]
    enum Accepting<H, C, R> {
        Handshake { #[pin] handshake: H, serve: Option<C> },
        Serving { #[pin] serving: R },
        Over,
    }
}

impl<H, C, R, T> Future for Accepting<H, C, R>
where
    H: Future<Output = Result<T, AcceptError>>,
    C: FnOnce(T) -> R,
    R: Future<Output = CloseReport>,
{
    type Output = Result<CloseReport, AcceptError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let AcceptingView::Handshake { handshake, serve } = self.as_mut().project() {
            let entered = ready!(handshake.poll(cx));
            let serve = serve.take();
            self.set(Self::Over); // lets go of the handshake, before the connection takes its place
            match (entered, serve) {
                (Ok(entered), Some(serve)) => self.set(Self::Serving { serving: serve(entered) }),
                (Err(error), _) => return Poll::Ready(Err(error)),
                (Ok(_), None) => return Poll::Ready(Err(AcceptError::NoRequest)),
            }
        }
        match self.project() {
            AcceptingView::Serving { serving } => serving.poll(cx).map(Ok),
            AcceptingView::Handshake { .. } | AcceptingView::Over => Poll::Pending,
        }
    }
}

/// Why a socket did not become a connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum AcceptError {
    /// There was no place for a socket without an owner. It has been closed.
    PorchFull(PorchFull),
    /// The handshake took longer than it may. The socket has been closed.
    TooSlow {
        /// How long it may take.
        deadline: Duration,
    },
    /// The client hung up before its request was complete.
    NoRequest,
    /// The socket failed.
    Socket(io::Error),
    /// The client was refused, and has been told why.
    Rejected(Rejection),
    /// The door asked for something that cannot be in an answer. The client heard 500.
    Response(ResponseError),
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PorchFull(full) => full.fmt(f),
            Self::TooSlow { deadline } => write!(f, "the handshake was not over after {deadline:?}"),
            Self::NoRequest => f.write_str("the client hung up before its request was complete"),
            Self::Socket(error) => write!(f, "the socket failed in the handshake: {error}"),
            Self::Rejected(Rejection { status, why, .. }) => write!(f, "refused with {status}: {why}"),
            Self::Response(error) => write!(f, "the answer to a handshake could not be written: {error}"),
        }
    }
}

impl Error for AcceptError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Socket(error) => Some(error),
            Self::Response(error) => Some(error),
            _ => None,
        }
    }
}

impl From<PorchFull> for AcceptError {
    fn from(full: PorchFull) -> Self {
        Self::PorchFull(full)
    }
}

impl From<io::Error> for AcceptError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}
