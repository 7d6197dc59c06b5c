#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
//! A pool of per-connection WebSocket managers with a lock-free core.

pub mod clock;
pub mod config;
pub mod error;
pub mod id;
pub mod manager;
pub mod pool;
#[allow(unsafe_code)] // the one room that has any
pub mod slab;
mod sync;

pub use clock::{Clock, ManualClock, Timestamp};
pub use config::{Config, ConfigError, DuplicatePolicy, Environment};
pub use error::{BuildError, Late, OpenError, ReserveError, TransitionError};
pub use id::{IdError, IdGenerator, IsolationKey, ThreadId, UserContextIds, UserExecutionContext, UserId};
pub use manager::{
    InvalidTransition, ManagerState, Message, OutboundLimits, OverflowPolicy, PooledWebSocketManager,
    SendOutcome, Session,
};
pub use pool::{
    EndReason, Lease, Ledger, ManagerSnapshot, Pool, PoolBuilder, PoolSnapshot, Refusals, Reservation,
    ReserveWait, Revoked, SendReport, Tally, Verdict,
};
pub use slab::Key as ManagerKey;
