//! Hears of every end and every alert, as an application would.

use parking_lot::Mutex;
use std::sync::Arc;
use ws_manager_pool::{Alert, End, EndReason, ManagerKey, Observer};

#[derive(Clone, Default)]
pub(crate) struct Witness(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    ends: Vec<(ManagerKey, EndReason)>,
    /// Users who rose to each level.
    alerts: [u64; 5],
}

impl Witness {
    /// The ends since the last call.
    pub(crate) fn take(&self) -> Vec<(ManagerKey, EndReason)> {
        std::mem::take(&mut self.0.lock().ends)
    }

    pub(crate) fn alerts(&self) -> [u64; 5] {
        self.0.lock().alerts
    }
}

impl Observer for Witness {
    fn alert(&self, alert: &Alert) {
        if alert.user_id.is_some() && alert.to > alert.from {
            self.0.lock().alerts[alert.to as usize] += 1;
        }
    }

    fn ended(&self, end: &End) {
        self.0.lock().ends.push((end.key, end.reason));
    }
}
