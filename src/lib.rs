#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
//! A pool of per-connection WebSocket managers with a lock-free core.
//!
//! A *manager* is what a server keeps for a connection: identity, state, outbound queue, counters, and
//! the application's own state. Here managers live in a slab and are reused, not allocated; identity is
//! made once; a key carries a generation, so a late clean-up cannot touch the next occupant; quotas are
//! reserved before the handshake; and every way to end a connection frees its manager.
//!
//! # What to use, in which order
//!
//! 1. [`Pool::builder`] once, at the start. [`Pool`] is a cloneable handle.
//! 2. At the door: [`IdGenerator::user_context_ids`] and
//!    [`UserExecutionContext::from_websocket_request`]. An error is a 400 and names the rule.
//! 3. Before the handshake: [`Pool::reserve`]. An error is a 429, 409 or 503 and leaves nothing behind.
//! 4. After it: [`Reservation::open`] gives the [`Lease`]. Dropping that frees the manager.
//! 5. With the `serve` feature `serve::serve(socket, lease, app)` does the rest; without it, a task of
//!    your own asks the lease for messages to send and drops it at the end.
//! 6. From anywhere: [`Pool::send`], [`Pool::send_to_user`], [`Pool::send_to_thread`],
//!    [`Pool::send_many`], [`Pool::broadcast`], [`Pool::evict`], [`Pool::snapshot`], [`Pool::ledger`].
//! 7. About once a second: [`Pool::maintain`]. `serve` does it for you.
//!
//! ```
//! use ws_manager_pool::{IdGenerator, Message, Pool, UserExecutionContext};
//!
//! let pool: Pool = Pool::builder().name("crate-docs").build()?;
//! let ids = IdGenerator::user_context_ids("ada", "chat");
//! let context = UserExecutionContext::from_websocket_request("ada", ids)?;
//! let mut lease = pool.reserve(&context)?.open()?;
//!
//! assert!(pool.send(lease.key(), Message::from("hello")).is_queued());
//! assert_eq!(lease.next_message()?.unwrap().as_text(), Some("hello"));
//!
//! drop(lease);
//! assert!(pool.ledger().balanced);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! | feature | adds |
//! | --- | --- |
//! | *(none)* | the pool alone: no async runtime, no I/O |
//! | `config` | `ConfigLayers`: the configuration from a preset, files and environment variables |
//! | `serde` | `Serialize` for snapshots, reports and the ledger |
//! | `tracing` | the log: connects, ends with their cause, clean-ups, alerts; never content |
//! | `serve` | `serve(socket, lease, app)` over any `Stream + Sink`, on Tokio |
//! | `axum` | an extractor that checks the origin, identifies, reserves and upgrades |
//! | `tungstenite` | `serve` over a `tokio_tungstenite::WebSocketStream` |
//! | `tokio-websockets` | `serve` over a `tokio_websockets::WebSocketStream` |
//! | `fastwebsockets` | `serve` over a `fastwebsockets::WebSocket` |
//! | `actix` | `serve` over the session and the stream of `actix-ws` |
//! | `engine` | the crate's own WebSocket engine, as state machines over borrowed bytes |
//! | `governor` | limits of handshakes by address and by user |
//! | `testing` | a plain double of the pool for an application's tests |
//!
//! # What may block
//!
//! Acquire, pin and release in the [`slab`] are lock-free. A reservation's beginning, opening and end
//! each hold the lock of one shard of users for a moment; a send holds the lock of one queue. No lock
//! is held across an await, I/O, a callback or an allocation of unbounded size.

#[cfg(any(target_family = "wasm", target_os = "none"))]
compile_error!(
    "ws-manager-pool needs std, threads and sockets, which this target does not have. On such a target a \
     program has one connection at a time: a plain struct does what a pool would."
);
#[cfg(not(target_has_atomic = "64"))]
compile_error!(
    "ws-manager-pool needs 64-bit atomics, which this target does not have: a slot's state, generation and pins \
     are one word."
);

#[macro_use]
mod fault;

pub mod clock;
pub mod config;
pub mod control;
#[cfg(feature = "engine")]
#[cfg_attr(docsrs, doc(cfg(feature = "engine")))]
pub mod engine;
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
pub use config::{AtLimit, Config, ConfigError, DuplicatePolicy, Environment};
#[cfg(feature = "config")]
#[cfg_attr(docsrs, doc(cfg(feature = "config")))]
pub use config::{ConfigLayers, ConfigOrigin, ResolvedConfig};
pub use control::{AlertLevel, Strategy};
pub use error::{BuildError, Late, OpenError, ReserveError, TransitionError};
pub use id::{IdError, IdGenerator, IsolationKey, ThreadId, UserContextIds, UserExecutionContext, UserId};
pub use manager::{
    InboundFigures, InvalidTransition, ManagerState, Message, OutboundLimits, OverflowPolicy,
    PooledWebSocketManager, SendOutcome, Session,
};
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
pub use pool::EventDataError;
pub use pool::{
    AgentEvent, Alert, CleanupMetrics, ConfigVersion, DeliveryFigures, DurationBucket, End, EventData,
    EventId, EventIdError, Lease, Ledger, Maintained, MaintenanceStatus, ManagerLease, ManagerPool,
    ManagerReservation, ManagerRun, ManagerSnapshot, ManyReport, NoEarlierConfig, Observer, Operation, Pool,
    PoolBuilder, PoolSnapshot, Pressure, QuotaDomain, Refusals, Reservation, ReserveWait, Run, RunGuard,
    Scope, SendReport, StrategyCount, Suspect, Suspicion, SweepPolicy, SweepReport, Tally, TenantFigures,
    ThreadFigures, UnknownTenant, UserCheck, Verdict,
};
pub use reason::{EndReason, Revoked};
#[cfg(feature = "serve")]
#[cfg_attr(docsrs, doc(cfg(feature = "serve")))]
pub use serve::{Application, CloseReport, Connection, HandlerError, Received, drain, serve};
pub use slab::Key as ManagerKey;

/// Its examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// Its examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/MIGRATING.md")]
mod migrating {}
