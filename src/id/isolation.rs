use super::{ThreadId, UserId};
use std::fmt;

/// The pair (user, thread) under which connections are kept apart, shown as `user_id:thread_id`.
///
/// It is compared and hashed **as a pair**, never as the text it is shown as, so that users `a` and
/// `a:b` cannot meet whatever their threads are. It contains no connection id and has no fallback:
/// without a valid user and a valid thread there is no key.
///
/// ```
/// use ws_manager_pool::id::{IdError, IsolationKey, ThreadId, UserId};
///
/// let key = IsolationKey::new(UserId::new("ada")?, ThreadId::from_client("thread_7")?);
/// assert_eq!(key.to_string(), "ada:thread_7");
/// # Ok::<(), IdError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IsolationKey {
    user_id: UserId,
    thread_id: ThreadId,
}

impl IsolationKey {
    /// The key of `user`'s `thread`. Wait-free.
    pub const fn new(user: UserId, thread: ThreadId) -> Self {
        Self { user_id: user, thread_id: thread }
    }

    /// The user that the thread belongs to.
    pub const fn user_id(&self) -> &UserId {
        &self.user_id
    }

    /// The user's thread.
    pub const fn thread_id(&self) -> &ThreadId {
        &self.thread_id
    }
}

impl fmt::Display for IsolationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.user_id, self.thread_id)
    }
}

impl fmt::Debug for IsolationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IsolationKey").field(&self.user_id).field(&self.thread_id).finish()
    }
}
