//! The usual application layer: a registry of channels by formatted key, an index by user, ids as
//! strings, and a heartbeat for each connection. Every baseline has it.

use crate::protocol::{Command, HEARTBEAT, QUEUE};
use crate::stopwatch;
use dashmap::DashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::time::{Interval, interval_at};
use uuid::Uuid;

/// All connections. `M` is what the WebSocket library sends.
pub(crate) struct Hub<M> {
    connections: DashMap<String, Arc<Peer<M>>>,
    users: DashMap<String, Vec<String>>,
}

/// One connection, as others see it.
pub(crate) struct Peer<M> {
    ids: Ids,
    sender: mpsc::Sender<M>,
    began: Instant,
    /// Milliseconds since `began`.
    heard_at: AtomicU64,
    messages: AtomicU64,
}

/// Who it is.
struct Ids {
    user: String,
    thread: String,
    run: String,
    request: String,
}

impl Ids {
    fn fresh(user: &str) -> Self {
        let id = || Uuid::new_v4().to_string();
        Self { user: user.to_owned(), thread: id(), run: id(), request: id() }
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, thread, run, request } = self;
        write!(f, "{user}:{thread}, run {run}, request {request}")
    }
}

impl<M: Clone> Hub<M> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { connections: DashMap::new(), users: DashMap::new() })
    }

    /// Enters a connection of `user`, and returns what others send to it.
    pub(crate) fn enter(self: &Arc<Self>, user: &str) -> (Entry<M>, mpsc::Receiver<M>) {
        let ids = Ids::fresh(user);
        let (sender, queue) = mpsc::channel(QUEUE);
        let key = format!("{user}:{}", ids.thread);
        let (began, heard_at, messages) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
        let peer = Arc::new(Peer { ids, sender, began, heard_at, messages });
        self.connections.insert(key.clone(), peer.clone());
        self.users.entry(user.to_owned()).or_default().push(key.clone());
        stopwatch::registered();
        (Entry { hub: self.clone(), key, peer }, queue)
    }

    fn send_to_user(&self, user: &str, message: &M) {
        let Some(keys) = self.users.get(user) else { return };
        for peer in keys.iter().filter_map(|key| self.connections.get(key)) {
            peer.offer(message);
        }
    }

    fn broadcast(&self, message: &M) {
        for peer in &self.connections {
            peer.offer(message);
        }
    }
}

impl<M: Clone> Peer<M> {
    /// A full queue misses it, and the client counts.
    fn offer(&self, message: &M) {
        let _ = self.sender.try_send(message.clone());
    }

    /// For the writer: it is pinged in time, and given up if it stays silent.
    pub(crate) fn heartbeat(&self) -> Interval {
        interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT)
    }

    pub(crate) fn is_silent(&self) -> bool {
        let silence = self.age().saturating_sub(self.heard_at.load(Ordering::Relaxed));
        let is_silent = u128::from(silence) > 2 * HEARTBEAT.as_millis();
        if is_silent {
            let messages = self.messages.load(Ordering::Relaxed);
            eprintln!("{} is silent, after {messages} messages", self.ids);
        }
        is_silent
    }

    fn age(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

/// A place in the registry, of the one who reads. Dropped, it is given up.
pub(crate) struct Entry<M: Clone> {
    hub: Arc<Hub<M>>,
    key: String,
    peer: Arc<Peer<M>>,
}

impl<M: Clone> Entry<M> {
    pub(crate) fn peer(&self) -> Arc<Peer<M>> {
        self.peer.clone()
    }

    /// Something came in, and be it a pong.
    pub(crate) fn heard(&self) {
        self.peer.heard_at.store(self.peer.age(), Ordering::Relaxed);
    }

    /// Does what a text asks for. `None`: the writer is gone.
    pub(crate) async fn said(
        &self,
        text: &str,
        message: impl FnOnce() -> M,
        answer: impl FnOnce(String) -> M,
    ) -> Option<()> {
        self.heard();
        self.peer.messages.fetch_add(1, Ordering::Relaxed);
        match Command::of(text) {
            Command::Broadcast => {
                let message = message();
                stopwatch::broadcast(|| self.hub.broadcast(&message));
            }
            Command::To(user) => self.hub.send_to_user(user, &message()),
            Command::Answer(length) => self.send(answer(length.to_string())).await?,
        }
        Some(())
    }

    /// Waits for room in its own queue.
    pub(crate) async fn send(&self, message: M) -> Option<()> {
        self.peer.sender.send(message).await.ok()
    }
}

impl<M: Clone> Drop for Entry<M> {
    fn drop(&mut self) {
        self.hub.connections.remove(&self.key);
        let user = &self.peer.ids.user;
        if let Some(mut keys) = self.hub.users.get_mut(user) {
            keys.retain(|key| *key != self.key);
        }
        self.hub.users.remove_if(user, |_, keys| keys.is_empty());
        stopwatch::left();
    }
}
