//! Any bytes as ids: refused with a bounded message, or shown again exactly as they came.

use ws_manager_pool::{IdGenerator, ThreadId, UserExecutionContext, UserId};

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match UserId::new(text) {
        Ok(user) => assert_eq!(user.as_str(), text),
        Err(error) => assert!(error.to_string().len() < 200, "an error does not echo its input"),
    }
    match ThreadId::from_client(text) {
        Ok(thread) => assert_eq!(thread.to_string(), text),
        Err(error) => assert!(error.to_string().len() < 200, "an error does not echo its input"),
    }
    // The first line as the user, the rest as the thread.
    let (user, thread) = text.split_once('\n').unwrap_or((text, ""));
    let ids = IdGenerator::user_context_ids(user, "fuzz");
    let Ok(ids) = ids.with_client_thread(thread) else { return };
    if let Ok(context) = UserExecutionContext::from_websocket_request(user, ids) {
        assert_eq!(context.isolation_key().to_string(), format!("{user}:{thread}"));
    }
}
