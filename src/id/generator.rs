use super::{IdError, RequestId, RunId, ThreadId};

/// Makes all ids of a connection in one call, at the entry point and nowhere else.
///
/// It has no state and no instance, so there is none for each user and no two can disagree.
#[derive(Debug)]
pub enum IdGenerator {}

impl IdGenerator {
    /// Fresh ids for one connection: a run, a request, and a thread that the run begins.
    ///
    /// Neither argument goes into an id. A key that contained the operation's name could never be
    /// found again under another name, which is how cleaners come to miss what they should clean; and
    /// a key that contained the user would show it to whoever sees the thread. Both say for whom and
    /// in the course of what the ids were made, which is what a trace of this call needs; they are
    /// neither checked nor kept. The user is checked by
    /// [`UserExecutionContext::from_websocket_request`](super::UserExecutionContext::from_websocket_request).
    ///
    /// Takes no lock. Does not allocate, except when a thread first uses its random generator.
    ///
    /// # Panics
    ///
    /// Only if the operating system refuses to give random bytes.
    pub fn user_context_ids(_user_id: &str, _operation: &str) -> UserContextIds {
        let mut source = rand::rng();
        let run_id = RunId::fresh(&mut source);
        let request_id = RequestId::fresh(&mut source);
        UserContextIds { thread_id: ThreadId::begun_by(run_id), run_id, request_id }
    }
}

/// The ids of one connection, made by [`IdGenerator::user_context_ids`] and used up by
/// [`UserExecutionContext::from_websocket_request`](super::UserExecutionContext::from_websocket_request).
///
/// Not `Clone`: one set of ids makes one context.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "these ids exist to make one context"]
pub struct UserContextIds {
    thread_id: ThreadId,
    run_id: RunId,
    request_id: RequestId,
}

impl UserContextIds {
    /// Takes the thread that a reconnecting client brought, in place of the generated one. Run and
    /// request stay the fresh ones. Wait-free up to 40 bytes after the prefix; a longer thread id allocates once.
    ///
    /// ```
    /// use ws_manager_pool::id::{IdError, IdGenerator};
    ///
    /// let ids = IdGenerator::user_context_ids("ada", "reconnect").with_client_thread("thread_7")?;
    /// assert_eq!(ids.thread_id().to_string(), "thread_7");
    /// # Ok::<(), IdError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`ThreadId::from_client`]. There is no fallback to a generated thread: a client that asks
    /// for a thread gets that one or an error.
    pub fn with_client_thread(self, thread_id: &str) -> Result<Self, IdError> {
        Ok(Self { thread_id: ThreadId::from_client(thread_id)?, ..self })
    }

    /// The thread: generated from the run, unless the client brought its own.
    pub const fn thread_id(&self) -> &ThreadId {
        &self.thread_id
    }

    /// The fresh run.
    pub const fn run_id(&self) -> RunId {
        self.run_id
    }

    /// The fresh request.
    pub const fn request_id(&self) -> RequestId {
        self.request_id
    }

    pub(super) fn into_parts(self) -> (ThreadId, RunId, RequestId) {
        (self.thread_id, self.run_id, self.request_id)
    }
}
