use super::{IdError, IsolationKey, RequestId, RunId, ThreadId, UserContextIds, UserId};

/// Who a connection belongs to: user, thread, run and request. Made once, at the entry point, and
/// immutable from then on.
///
/// ```
/// use ws_manager_pool::id::{IdError, IdGenerator, UserExecutionContext};
///
/// let ids = IdGenerator::user_context_ids("ada", "chat").with_client_thread("thread_7")?;
/// let context = UserExecutionContext::from_websocket_request("ada", ids)?;
/// assert_eq!(context.isolation_key().to_string(), "ada:thread_7");
/// # Ok::<(), IdError>(())
/// ```
///
/// There is one way to make one. Not from its fields:
///
/// ```compile_fail,E0451
/// use ws_manager_pool::id::{IdError, IdGenerator, UserExecutionContext};
///
/// let ids = IdGenerator::user_context_ids("ada", "chat");
/// let context = UserExecutionContext::from_websocket_request("ada", ids)?;
/// let forged = UserExecutionContext { isolation_key: context.isolation_key(), ..context };
/// # Ok::<(), IdError>(())
/// ```
///
/// not from nothing:
///
/// ```compile_fail,E0277
/// use ws_manager_pool::id::UserExecutionContext;
///
/// fn from_nothing<T: Default>() -> T { T::default() }
/// let nobody: UserExecutionContext = from_nothing();
/// ```
///
/// and not twice from one set of ids:
///
/// ```compile_fail,E0382
/// use ws_manager_pool::id::{IdError, IdGenerator, UserExecutionContext};
///
/// let ids = IdGenerator::user_context_ids("ada", "chat");
/// let first = UserExecutionContext::from_websocket_request("ada", ids)?;
/// let second = UserExecutionContext::from_websocket_request("ada", ids)?;
/// # Ok::<(), IdError>(())
/// ```
///
/// It has no setter, and no field can be reached:
///
/// ```compile_fail,E0599
/// use ws_manager_pool::id::{IdError, IdGenerator, UserExecutionContext, UserId};
///
/// let ids = IdGenerator::user_context_ids("ada", "chat");
/// let mut context = UserExecutionContext::from_websocket_request("ada", ids)?;
/// context.set_user_id(UserId::new("eve")?);
/// # Ok::<(), IdError>(())
/// ```
///
/// ```compile_fail,E0616
/// use ws_manager_pool::id::{IdError, IdGenerator, RunId, UserExecutionContext};
///
/// let ids = IdGenerator::user_context_ids("ada", "chat");
/// let mut context = UserExecutionContext::from_websocket_request("ada", ids)?;
/// context.run_id = "00000000000000000000000000000000".parse::<RunId>()?;
/// # Ok::<(), IdError>(())
/// ```
///
/// ```compile_fail,E0594
/// use ws_manager_pool::id::{IdError, IdGenerator, UserExecutionContext, UserId};
///
/// let ids = IdGenerator::user_context_ids("ada", "chat");
/// let mut context = UserExecutionContext::from_websocket_request("ada", ids)?;
/// *context.user_id() = UserId::new("eve")?;
/// # Ok::<(), IdError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserExecutionContext {
    isolation_key: IsolationKey,
    run_id: RunId,
    request_id: RequestId,
}

impl UserExecutionContext {
    /// The one way to make a context: the user whom the request's authentication named, and the ids
    /// made for this request. Wait-free up to 40 bytes of user id; a longer one allocates once.
    ///
    /// # Errors
    ///
    /// As [`UserId::new`]; answer HTTP 400 with the error's text. The ids are valid by their type.
    pub fn from_websocket_request(user_id: impl AsRef<str>, ids: UserContextIds) -> Result<Self, IdError> {
        let user_id = UserId::new(user_id)?;
        let (thread_id, run_id, request_id) = ids.into_parts();
        Ok(Self { isolation_key: IsolationKey::new(user_id, thread_id), run_id, request_id })
    }

    /// The user.
    pub const fn user_id(&self) -> &UserId {
        self.isolation_key.user_id()
    }

    /// The user's thread.
    pub const fn thread_id(&self) -> &ThreadId {
        self.isolation_key.thread_id()
    }

    /// The run that this connection is.
    pub const fn run_id(&self) -> RunId {
        self.run_id
    }

    /// The request that asked for the connection.
    pub const fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// The pair (user, thread). Never allocates: long texts are shared.
    pub fn isolation_key(&self) -> IsolationKey {
        self.isolation_key.clone()
    }
}
