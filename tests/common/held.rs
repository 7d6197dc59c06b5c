//! A pin that another thread holds for as long as a test wants.

use std::sync::mpsc;
use std::thread::{JoinHandle, spawn};
use ws_manager_pool::{ManagerKey, Pool, Session};

/// Another thread is inside `pool.inspect(key, …)`. Dropped, it leaves, and has left when the drop returns.
pub(crate) struct HeldPin {
    release: Option<mpsc::Sender<()>>,
    holder: Option<JoinHandle<()>>,
}

impl HeldPin {
    pub(crate) fn on<S: Session>(pool: &Pool<S>, key: ManagerKey) -> Self {
        let (release, released) = mpsc::channel::<()>();
        let (enter, entered) = mpsc::channel::<()>();
        let pool = pool.clone();
        let holder = spawn(move || {
            let inspected = pool.inspect(key, |_| {
                enter.send(()).expect("the test waits for this");
                // An error: the test let go.
                let _ = released.recv();
            });
            assert!(inspected.is_some(), "the key is live");
        });
        entered.recv().expect("the key is live");
        Self { release: Some(release), holder: Some(holder) }
    }
}

impl Drop for HeldPin {
    fn drop(&mut self) {
        self.release = None;
        if let Some(holder) = self.holder.take() {
            holder.join().expect("the holder does not panic");
        }
    }
}
