//! The time before a connection belongs to anybody: a bound on the sockets that are in it, and a deadline
//! for each.

use crate::manager::Session;
use crate::pool::{Entered, Pool};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

/// The porch of a pool: sockets that were accepted, and whose handshake is not over yet, stand here. A
/// crowd of them, or one that never says anything, costs the server no more than
/// [`Config::max_unauthenticated`](crate::Config::max_unauthenticated) sockets for
/// [`Config::reservation_deadline`](crate::Config::reservation_deadline).
///
/// All porches of a pool count together, see [`Pool::unauthenticated`]. Cheap to clone.
///
/// ```
/// # #[cfg(feature = "tungstenite")]
/// # mod example {
/// use tokio::net::TcpListener;
/// use ws_manager_pool::serve::{Porch, application, serve};
/// use ws_manager_pool::{Pool, UserExecutionContext};
///
/// async fn accept(listener: TcpListener, pool: Pool, context: UserExecutionContext) -> std::io::Result<()> {
///     let porch = Porch::new(&pool);
///     loop {
///         let (stream, _) = listener.accept().await?;
///         let Ok(place) = porch.admit() else { continue }; // full: the socket is closed
///         // or: `let place = porch.admit_wait().await`, and the next ones wait in the kernel
///         let (pool, context) = (pool.clone(), context.clone());
///         tokio::spawn(async move {
///             let handshake = place.handshake(tokio_tungstenite::accept_async(stream)).await;
///             let Ok(socket) = handshake else { return }; // failed, or too slow
///             let Ok(reservation) = pool.reserve(&context) else { return };
///             let Ok(lease) = reservation.open() else { return };
///             serve(socket, lease, application(|_, _| Ok(()))).await;
///         });
///     }
/// }
/// # }
/// ```
///
#[cfg_attr(
    feature = "axum",
    doc = "For axum there is [`PorchListener`](super::PorchListener). Whoever drives hyper by hand admits as above, and sets its `header_read_timeout` beside."
)]
pub struct Porch<S: Session> {
    pool: Pool<S>,
}

impl<S: Session> Porch<S> {
    /// A pool's porch.
    pub fn new(pool: &Pool<S>) -> Self {
        Self { pool: pool.clone() }
    }

    /// A place for a socket that has just been accepted. Does not wait, and does not overtake those who do.
    /// Blocks at most for a moment.
    ///
    /// # Errors
    ///
    /// [`PorchFull`]: close the socket.
    pub fn admit(&self) -> Result<OnPorch<S>, PorchFull> {
        let max_unauthenticated = self.pool.config().max_unauthenticated;
        let entered = self.pool.enter().ok_or(PorchFull { max_unauthenticated })?;
        Ok(OnPorch { pool: self.pool.clone(), _entered: entered })
    }

    /// A place as soon as there is one, in the order in which callers came. For a loop that accepts no more
    /// than it has places for: the others wait in the kernel's backlog. May be dropped at any time; needs no
    /// runtime.
    pub fn admit_wait(&self) -> impl Future<Output = OnPorch<S>> + Send + use<S> {
        let (pool, entering) = (self.pool.clone(), self.pool.enter_wait());
        async move { OnPorch { _entered: entering.await, pool } }
    }

    /// Sockets that stand here now: [`Pool::unauthenticated`].
    pub fn unauthenticated(&self) -> usize {
        self.pool.unauthenticated()
    }

    #[cfg(feature = "axum")]
    pub(super) fn pool(&self) -> &Pool<S> {
        &self.pool
    }
}

impl<S: Session> Clone for Porch<S> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone() }
    }
}

impl<S: Session> fmt::Debug for Porch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Porch").field("unauthenticated", &self.unauthenticated()).finish_non_exhaustive()
    }
}

/// A socket's place on the porch, until it is dropped.
#[must_use = "dropped, the socket is not counted any more"]
pub struct OnPorch<S: Session> {
    pool: Pool<S>,
    _entered: Entered<S>,
}

impl<S: Session> OnPorch<S> {
    /// Lets a handshake take at most the configured `reservation_deadline`; then, whatever its outcome, also
    /// when the future is dropped, the place is free. Reserve within it, so that the client hears of a
    /// refusal in place of the handshake.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Failed`] with the handshake's own error; [`HandshakeError::TooSlow`].
    ///
    /// # Panics
    ///
    /// If polled outside of a Tokio runtime with its timer enabled.
    pub async fn handshake<T, E>(
        self,
        handshake: impl Future<Output = Result<T, E>>,
    ) -> Result<T, HandshakeError<E>> {
        let deadline = self.pool.config().reservation_deadline;
        match timeout(deadline, handshake).await {
            Ok(outcome) => outcome.map_err(HandshakeError::Failed),
            Err(_elapsed) => Err(HandshakeError::TooSlow { deadline }),
        }
    }
}

impl<S: Session> fmt::Debug for OnPorch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnPorch").finish_non_exhaustive()
    }
}

/// There are as many sockets without an owner as there may be: close this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PorchFull {
    /// How many there may be.
    pub max_unauthenticated: usize,
}

impl fmt::Display for PorchFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sockets have not said whose they are: close this one", self.max_unauthenticated)
    }
}

impl Error for PorchFull {}

/// Why a socket came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError<E> {
    /// There was no place for it: close the socket.
    PorchFull(PorchFull),
    /// The handshake took longer than it may: close the socket.
    TooSlow {
        /// How long it may take.
        deadline: Duration,
    },
    /// The handshake itself failed.
    Failed(E),
}

impl<E> From<PorchFull> for HandshakeError<E> {
    fn from(full: PorchFull) -> Self {
        Self::PorchFull(full)
    }
}

impl<E: fmt::Display> fmt::Display for HandshakeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PorchFull(full) => full.fmt(f),
            Self::TooSlow { deadline } => {
                write!(f, "the handshake was not over after {deadline:?}: close the socket")
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for HandshakeError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => error.source(),
            Self::PorchFull(_) | Self::TooSlow { .. } => None,
        }
    }
}
