//! A line for each change of a user's level, or of the pool's.

use crate::say;
use ws_manager_pool::{Alert, Observer};

/// Prints on the task of the connection that it happens to: a server whose output may be slow hands
/// the line to somebody else.
pub(crate) struct Alerts;

impl Observer for Alerts {
    fn alert(&self, alert: &Alert) {
        let whose = alert.user_id.as_ref().map_or("the pool".to_owned(), |user| format!("user {user}"));
        let Alert { from, to, manager_count, max_managers, .. } = alert;
        say(format_args!("alert: {whose} {from} → {to}, {manager_count} of {max_managers}"));
    }
}
