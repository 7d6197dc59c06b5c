//! Identity: who a connection belongs to, on which thread, in which run.
//!
//! Identity is made once, at the door, and cannot change afterwards:
//!
//! ```
//! use ws_manager_pool::id::{IdError, IdGenerator, UserExecutionContext};
//!
//! # fn main() -> Result<(), IdError> {
//! let ids = IdGenerator::user_context_ids("ada", "chat");
//! let context = UserExecutionContext::from_websocket_request("ada", ids)?;
//! assert_eq!(context.user_id().as_str(), "ada");
//! assert!(context.thread_id().to_string().contains(&context.run_id().to_string()));
//! # Ok(())
//! # }
//! ```
//!
//! | type | what it is | bytes |
//! | --- | --- | --- |
//! | [`UserId`] | the application's own name for a user, opaque | at most 48 |
//! | [`ThreadId`] | a conversation of that user; generated, or brought by a client that reconnects | at most 48 |
//! | [`RunId`], [`RequestId`] | 128 random bits each | 16 |
//! | [`IsolationKey`] | the pair (user, thread) | at most 96 |
//!
//! Texts of up to 40 bytes (of a thread id, after `thread_`) are stored inline: making, cloning, comparing
//! and dropping such ids never touches the heap. A longer one is allocated once and shared by its clones.
//!
//! Everything here is synchronous, takes no lock and reads no clock; making a random id may ask the
//! operating system for fresh randomness.

mod context;
mod error;
mod generator;
mod isolation;
mod random;
#[cfg(feature = "serde")]
mod serialize;
mod text;
mod thread;
mod user;

pub use context::UserExecutionContext;
pub use error::IdError;
pub use generator::{IdGenerator, UserContextIds};
pub use isolation::IsolationKey;
pub use random::{RequestId, RunId};
pub use thread::ThreadId;
pub use user::UserId;
