//! The golden path: what an agent does on a user's thread, told to every one of that user's
//! connections of that thread, in order, at most once, with nothing missing in silence.
//!
//! ```text
//! start_run ─► Run ─ thinking · tool_executing · tool_completed ─ complete (or drop) ─► over
//!    │ agent_started                                                │ agent_completed
//!    ▼                                                              ▼
//! the thread's journal: numbers each event, keeps the last ones, knows that a run is in progress
//!    │ under its lock and the user's section: into the queue of each connection of the thread
//!    ▼
//! a connection's queue: knows which number its client expects next, and announces what will not come
//! ```
//!
//! The journal belongs to the isolation key, not to a slot: it outlives a takeover, and, for
//! [`crate::Config::replay_age`], the last connection. A client that comes back says which event it had
//! last ([`crate::Reservation::resume_after`]); until it has been handed the kept ones after that, by its
//! own task and as fast as it reads, the thread's new events pass it by: they are in the journal too.
//!
//! # On the wire
//!
//! A text message of JSON. `id` is what the client gives back as `after`:
//!
//! ```json
//! {"type":"agent_thinking","id":"9c3be1f0-2","seq":2,"thread_id":"thread_7","run_id":"…","data":"reading"}
//! {"type":"gap","id":"9c3be1f0-7","from":3,"to":7,"thread_id":"thread_7"}
//! ```
//!
//! A gap's `from` is `null` where nobody knows how many there were: the numbering is another one, as the
//! journal was forgotten, or the server began anew.
//!
//! # Locks
//!
//! A shard of the table → a journal → the user's section → a queue. Nothing foreign runs under any of
//! them: wakers and what a full queue gave up are settled after the last was left.

mod event;
mod journal;
mod journals;
mod run;

#[cfg(feature = "serde")]
pub use event::EventDataError;
pub use event::{AgentEvent, EventData, EventId, EventIdError};
#[cfg(feature = "testing")]
pub(crate) use event::{Of as EventOf, event_message, gap_message};
pub(super) use journals::Journals;
pub use journals::ThreadFigures;
pub(crate) use run::Past;
pub use run::Run;
