//! One small error for each operation. Each says what to do next.

use crate::config::ConfigError;
use crate::manager::InvalidTransition;
use crate::reason::Revoked;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// Why [`crate::PoolBuilder::build`] made no pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// A number is out of its range.
    Config(ConfigError),
    /// A pool of this name lives in the process already: use a clone of its handle.
    NameTaken {
        /// The name of both.
        name: String,
        /// Where the living one was built.
        first: &'static Location<'static>,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::NameTaken { name, first } => write!(
                f,
                "a pool named {name:?} is alive already, built at {first}: clone that handle, or give \
                 this pool another name"
            ),
        }
    }
}

impl std::error::Error for BuildError {}

impl From<ConfigError> for BuildError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// Why there is no reservation. Nothing was counted and nothing is left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReserveError {
    /// The user has as many managers as allowed: close one. Under [`crate::DuplicatePolicy::Replace`] a
    /// reconnect with the id of a live thread is let in, unless another one is under way.
    UserFull {
        /// The user's limit.
        max_managers: usize,
    },
    /// The users of this user's tenant have as many managers together as allowed: close one.
    TenantFull {
        /// The tenant's limit.
        max_managers: usize,
    },
    /// Every manager of the pool is taken: try again later, or raise the capacity.
    PoolFull {
        /// The pool's capacity.
        capacity: usize,
    },
    /// The thread is open, and the pool does not allow a second connection on it.
    ThreadInUse,
    /// The pool takes no new connections: connect to another server.
    Draining,
    /// The application's session state panicked in `reset` and again in `Default`: mend it.
    SessionPanicked,
}

impl ReserveError {
    /// The HTTP status that tells a client the same: 429, 409, 503 or 500.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::UserFull { .. } | Self::TenantFull { .. } => 429,
            Self::ThreadInUse => 409,
            Self::PoolFull { .. } | Self::Draining => 503,
            Self::SessionPanicked => 500,
        }
    }

    /// After which time a client may try again, where that may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::UserFull { .. } | Self::TenantFull { .. } | Self::PoolFull { .. } => {
                Some(Duration::from_secs(5))
            }
            Self::Draining => Some(Duration::from_secs(30)),
            Self::ThreadInUse | Self::SessionPanicked => None,
        }
    }
}

impl fmt::Display for ReserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserFull { max_managers } => {
                write!(
                    f,
                    "this user has {max_managers} open connections, which is the limit: close one first"
                )
            }
            Self::TenantFull { max_managers } => {
                write!(
                    f,
                    "your organisation has {max_managers} open connections, which is the limit: close one \
                     first"
                )
            }
            Self::PoolFull { capacity } => {
                write!(f, "all {capacity} connections of this server are taken: try again later")
            }
            Self::ThreadInUse => f.write_str(
                "this thread is open in another connection: close that one, or use another thread",
            ),
            Self::Draining => {
                f.write_str("this server is shutting down: connect to another, or try again later")
            }
            Self::SessionPanicked => f.write_str(SESSION_PANICKED),
        }
    }
}

impl std::error::Error for ReserveError {}

const SESSION_PANICKED: &str =
    "the application's session state panicked in `reset` and in `Default`: mend its Session";

/// Why a reservation did not become a lease. It has been given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The reservation's deadline has passed and its place was given away: reserve again.
    Expired,
    /// Another connection opened the thread meanwhile, and the pool does not allow a second one.
    ThreadInUse,
    /// The place of the connection that was taken over is still being read by another thread, and no
    /// other is free: reserve again.
    Busy,
    /// The application's session state panicked in `reset` and again in `Default`: mend it.
    SessionPanicked,
}

impl OpenError {
    /// The HTTP status that tells a client the same, where the handshake has not been answered yet: 503, 409 or
    /// 500.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Expired | Self::Busy => 503,
            Self::ThreadInUse => 409,
            Self::SessionPanicked => 500,
        }
    }

    /// After which time a client may try again, where that may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            // What stood in the way is over by then.
            Self::Expired | Self::Busy => Some(Duration::from_secs(1)),
            Self::ThreadInUse | Self::SessionPanicked => None,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the reservation has passed its deadline and was taken back: reserve again",
            Self::ThreadInUse => "another connection opened this thread meanwhile: use another thread",
            Self::Busy => "the connection that was taken over is still in use elsewhere: reserve again",
            Self::SessionPanicked => SESSION_PANICKED,
        })
    }
}

impl std::error::Error for OpenError {}

/// The clean-up came late: the connection was closed, evicted or taken over before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is over already: somebody else cleaned it up, there is nothing to do")
    }
}

impl std::error::Error for Late {}

/// A manager did not change its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransitionError {
    /// The lease is over.
    Revoked(Revoked),
    /// The manager's present state does not allow it.
    Invalid(InvalidTransition),
}

impl fmt::Display for TransitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked(revoked) => revoked.fmt(f),
            Self::Invalid(invalid) => invalid.fmt(f),
        }
    }
}

impl std::error::Error for TransitionError {}
