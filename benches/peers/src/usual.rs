//! What a server usually does for a connection, without a pool: ids as strings, an `Arc`, a channel of 64,
//! and a `DashMap` by a formatted key.

use crate::ours::{State, Users};
use crate::place::Place;
use crate::record::Ids;
use bytes::Bytes;
use dashmap::DashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use uuid::{Builder, Uuid};

const QUEUE: usize = 64;

/// What others find in the registry.
struct Connection {
    _user: String,
    _thread: String,
    _run: String,
    _request: String,
    _sender: Sender<Bytes>,
    _opened: Instant,
    received: AtomicU64,
}

/// What the connection's own task holds.
pub struct Session<S> {
    key: String,
    user: String,
    _receiver: Receiver<Bytes>,
    _state: Option<Box<S>>,
}

pub struct Usual<S> {
    connections: DashMap<String, Arc<Connection>>,
    /// Connections of each user, if they are counted.
    counts: Option<DashMap<String, usize>>,
    users: Users,
    fresh: fn() -> Uuid,
    state: PhantomData<fn() -> S>,
}

impl<S> Usual<S> {
    /// A registry alone.
    pub fn registry() -> Self {
        let (connections, users) = (DashMap::new(), Users::all());
        Self { connections, counts: None, users, fresh: id_of_the_system, state: PhantomData }
    }

    /// And a count for each user, to have a limit.
    pub fn with_quota() -> Self {
        Self { counts: Some(DashMap::new()), ..Self::registry() }
    }

    /// As a careful author does: ids come from a generator of the thread.
    pub fn with_fast_ids(self) -> Self {
        Self { fresh: Uuid::new_v4, ..self }
    }
}

/// As `Uuid::new_v4` makes it, unless its feature `fast-rng` is on.
fn id_of_the_system() -> Uuid {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the system has random bytes");
    Builder::from_random_bytes(random).into_uuid()
}

impl<S: State> Place for Usual<S> {
    type Held<'a> = Session<S>;
    type Key = String;
    const HAS_KEYS: bool = true;

    fn acquire(&self, ids: &mut Ids) -> Session<S> {
        let user = self.users.any(ids).to_owned();
        let run = (self.fresh)().to_string();
        let request = (self.fresh)().to_string();
        let thread = format!("thread_{run}");
        let key = format!("{user}:{thread}");
        if let Some(counts) = &self.counts {
            let mut count = counts.entry(user.clone()).or_default();
            assert!(*count < usize::MAX, "the limit");
            *count += 1;
        }
        let (sender, receiver) = channel(QUEUE);
        let connection = Connection {
            _user: user.clone(),
            _thread: thread,
            _run: run,
            _request: request,
            _sender: sender,
            #[allow(clippy::disallowed_methods)] // as it is usually written
            _opened: Instant::now(),
            received: AtomicU64::new(1),
        };
        self.connections.insert(key.clone(), Arc::new(connection));
        let state = (size_of::<S>() > 0).then(|| {
            let mut state = Box::<S>::default();
            state.begin(ids);
            state
        });
        Session { key, user, _receiver: receiver, _state: state }
    }

    fn release(&self, held: Session<S>) {
        self.connections.remove(&held.key);
        if let Some(counts) = &self.counts {
            counts.remove_if_mut(&held.user, |_, count| {
                *count -= 1;
                *count == 0
            });
        }
    }

    fn key(&self, held: &Session<S>) -> String {
        held.key.clone()
    }

    fn get(&self, key: &String) -> Option<u64> {
        self.connections.get(key).map(|connection| connection.received.load(Ordering::Relaxed))
    }
}
