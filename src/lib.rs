#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
//! A pool of per-connection WebSocket managers with a lock-free core.

pub mod clock;
pub mod config;
pub mod error;
pub mod id;
pub mod manager;
pub mod pool;
pub mod reason;
#[cfg(feature = "serve")]
#[cfg_attr(docsrs, doc(cfg(feature = "serve")))]
pub mod serve;
#[allow(unsafe_code)] // the one room that has any
pub mod slab;
mod sync;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;

pub use clock::{Clock, ManualClock, Timestamp};
pub use config::{Config, ConfigError, DuplicatePolicy, Environment};
pub use error::{BuildError, Late, OpenError, ReserveError, TransitionError};
pub use id::{IdError, IdGenerator, IsolationKey, ThreadId, UserContextIds, UserExecutionContext, UserId};
pub use manager::{
    InvalidTransition, ManagerState, Message, OutboundLimits, OverflowPolicy, PooledWebSocketManager,
    SendOutcome, Session,
};
pub use pool::{
    Lease, Ledger, ManagerLease, ManagerPool, ManagerReservation, ManagerSnapshot, Pool, PoolBuilder,
    PoolSnapshot, Refusals, Reservation, ReserveWait, SendReport, Tally, Verdict,
};
pub use reason::{EndReason, Revoked};
#[cfg(feature = "serve")]
#[cfg_attr(docsrs, doc(cfg(feature = "serve")))]
pub use serve::{Application, CloseReport, Connection, HandlerError, Received, drain, serve};
pub use slab::Key as ManagerKey;

/// Its examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/MIGRATING.md")]
mod migrating {}
