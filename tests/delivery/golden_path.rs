//! The events of agents' runs over sockets: each connection of a user's thread hears them in order and
//! at most once, a client that comes back goes on where it was, and what it does not hear it is told of.

use crate::net::{Buffers, Client, Heard, Host, PATIENCE, Server, eventually, play};
use crate::{assert_counts, builder, context};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use tokio::task::JoinSet;
use ws_manager_pool::serve::{Application, Connection, HandlerError, Received};
use ws_manager_pool::{
    DuplicatePolicy, EventData, OutboundLimits, Pool, Reservation, ReserveError, Run, SendReport,
};

const USERS: usize = 20;
const RUNS: u64 = 4;
/// Events of each run.
const EVENTS: u64 = 50;
/// Events of each thread.
const ALL: u64 = RUNS * EVENTS;

/// An agent waits for clients that are so many events behind.
const AHEAD: u64 = 30;

/// A client leaves after so many messages on a connection, and comes back.
const STAY: u64 = 23;

#[derive(Clone, Copy)]
struct Setting {
    tabs: usize,
    duplicates: DuplicatePolicy,
    replay: usize,
    /// Messages that wait for one connection at most.
    queue: usize,
}

const TABS: Setting = Setting { tabs: 3, duplicates: DuplicatePolicy::Allow, replay: 1_000, queue: 1_000 };
const TAKEOVER: Setting = Setting { tabs: 1, duplicates: DuplicatePolicy::Replace, ..TABS };

#[test]
fn every_tab_hears_every_event_once_and_in_order_through_reconnects() {
    follow("golden-tabs", TABS, |sums| {
        assert_eq!((sums.heard, sums.missing, sums.gaps), (sums.all, 0, 0), "{sums:?}");
    });
}

#[test]
fn every_event_comes_once_and_in_order_through_takeovers() {
    follow("golden-takeover", TAKEOVER, |sums| {
        assert_eq!((sums.heard, sums.missing, sums.gaps), (sums.all, 0, 0), "{sums:?}");
    });
}

#[test]
fn without_replay_a_gap_is_announced_where_a_client_was_away_and_nowhere_else() {
    for (name, setting) in [("golden-off-tabs", TABS), ("golden-off-takeover", TAKEOVER)] {
        follow(name, Setting { replay: 0, ..setting }, |sums| {
            assert!(sums.missing > 0, "{sums:?}");
            assert_eq!((sums.heard + sums.missing, sums.gaps), (sums.all, sums.gaps_at_start), "{sums:?}");
        });
    }
}

#[test]
fn of_more_than_is_kept_the_last_are_replayed_and_the_others_announced() {
    follow("golden-ring", Setting { replay: 8, ..TABS }, |sums| {
        assert!(sums.missing > 0, "{sums:?}");
        assert_eq!((sums.heard + sums.missing, sums.gaps), (sums.all, sums.gaps_at_start), "{sums:?}");
    });
}

#[test]
fn what_a_full_queue_does_not_take_is_announced_in_its_place() {
    follow("golden-queue", Setting { queue: 8, ..TABS }, |sums| {
        assert!(sums.missing > 0 && sums.gaps > sums.gaps_at_start, "{sums:?}");
        assert_eq!(sums.heard + sums.missing, sums.all, "{sums:?}");
    });
}

/// What all clients have heard together.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// What there was to hear.
    all: u64,
    heard: u64,
    missing: u64,
    gaps: u64,
    /// Of these, as the first message of a connection.
    gaps_at_start: u64,
    returns: u64,
}

fn follow(name: &str, setting: Setting, check: impl FnOnce(Sums)) {
    let seats = USERS * setting.tabs;
    play(async {
        let pool = builder(name, seats)
            .max_managers_per_user(setting.tabs)
            .duplicates(setting.duplicates)
            .replay_events(setting.replay)
            .outbound(OutboundLimits::default().with_messages(setting.queue))
            .heartbeat_interval(10 * PATIENCE)
            .reservation_deadline(10 * PATIENCE)
            .build()
            .unwrap();
        let stage = Arc::new(Stage {
            pool: pool.clone(),
            setting,
            heard: (0..seats).map(|_| AtomicU64::new(0)).collect(),
            begun: AtomicUsize::new(0),
        });
        let server = Server::start(pool.clone(), stage.clone(), Buffers::Any);
        let mut agents = JoinSet::new();
        (0..USERS).for_each(|user| _ = agents.spawn(stage.clone().act(user)));
        let mut clients = JoinSet::new();
        (0..seats).for_each(|seat| _ = clients.spawn(stage.clone().listen(server.address, seat)));
        let mut sums = Sums { all: seats as u64 * ALL, ..Sums::default() };
        while let Some(client) = clients.join_next().await {
            let client = client.unwrap();
            sums.heard += client.heard;
            sums.missing += client.missing;
            sums.gaps += client.gaps;
            sums.gaps_at_start += client.gaps_at_start;
            sums.returns += client.returns;
        }
        while let Some(agent) = agents.join_next().await {
            agent.unwrap();
        }
        server.is_empty().await;
        println!("{name}: {sums:?}");
        check(sums);
        assert!(sums.returns > 0, "{sums:?}");
        assert_counts(&pool, 0, 0, 0);
        let snapshot = pool.snapshot();
        let books = snapshot.delivery;
        assert_eq!(books.accepted, books.delivered + books.displaced + books.unsent, "{books:?}");
        // One that was on its way when its client left has been said all the same.
        assert!(books.gaps >= sums.gaps, "{books:?}");
        assert_eq!((snapshot.agents.threads, snapshot.agents.runs), (USERS, 0));
        assert_eq!(snapshot.agents.replay_bytes > 0, setting.replay > 0);
    });
}

struct Stage {
    pool: Pool,
    setting: Setting,
    /// Up to which event each client has heard, or been told that it will not.
    heard: Vec<AtomicU64>,
    /// Clients that are there.
    begun: AtomicUsize,
}

impl Stage {
    /// An agent's runs on one user's thread; every other one is aborted.
    async fn act(self: Arc<Self>, user: usize) {
        let tabs = self.setting.tabs;
        eventually("all are there", || self.begun.load(SeqCst) == USERS * tabs).await;
        let context = context(&format!("user{user}"), THREAD);
        let mut said = 0;
        for number in 0..RUNS {
            let mut run = self.pool.start_run(&context, data(user, said + 1));
            said += 1;
            for step in 1..EVENTS - 1 {
                let report = speak(&mut run, step, data(user, said + 1));
                assert!(report.addressed() <= tabs, "{report:?}");
                said += 1;
                let own = || self.heard[user * tabs..].iter().take(tabs);
                if said.is_multiple_of(10) {
                    eventually("its clients follow", || {
                        own().all(|heard| heard.load(SeqCst) + AHEAD >= said)
                    })
                    .await;
                }
            }
            said += 1;
            if number.is_multiple_of(2) {
                let _ = run.complete(data(user, said));
            } else {
                drop(run);
            }
        }
    }

    /// A client that goes on where it was, until it knows of every event.
    async fn listen(self: Arc<Self>, address: SocketAddr, seat: usize) -> Follower {
        let user = seat / self.setting.tabs;
        let path = format!("user{user}/{THREAD}");
        let mut follower = Follower::new(user);
        let mut client = Client::connect(address, &path, Buffers::Any).await;
        self.begun.fetch_add(1, SeqCst);
        while follower.next <= ALL {
            let Heard::Text(text) = client.hear().await else { panic!("user {user}: ended by itself") };
            follower.hear(&text);
            self.heard[seat].store(follower.next - 1, SeqCst);
            if follower.on_this == STAY {
                let path = format!("{path}?after={}", follower.last);
                client = self.come_back(client, &mut follower, address, &path).await;
            }
        }
        client.close().await;
        let end = client.hear().await;
        assert!(!matches!(end, Heard::Text(_)), "user {user}: {end:?} after the last event");
        follower
    }

    async fn come_back(
        &self,
        mut old: Client,
        follower: &mut Follower,
        address: SocketAddr,
        path: &str,
    ) -> Client {
        follower.returns += 1;
        follower.on_this = 0;
        if self.setting.duplicates == DuplicatePolicy::Replace && follower.returns.is_multiple_of(2) {
            // The old connection is there until the new one takes over, and in order to its end.
            let new = Client::connect(address, path, Buffers::Any).await;
            let mut rest = follower.clone();
            loop {
                match old.hear().await {
                    Heard::Text(text) => rest.hear(&text),
                    end => {
                        assert_eq!(end, Heard::Closed(4001));
                        return new;
                    }
                }
            }
        }
        match follower.returns % 3 {
            0 => old.close().await,
            1 => old.reset(),
            _ => drop(old),
        }
        Client::connect(address, path, Buffers::Any).await
    }
}

const THREAD: &str = "thread_0";

/// What the event says; nobody else's says the same.
fn data(user: usize, number: u64) -> EventData {
    EventData::text(&format!("{number} for user{user}"))
}

fn speak(run: &mut Run, step: u64, data: EventData) -> SendReport {
    match step % 3 {
        1 => run.thinking(data),
        2 => run.tool_executing(data),
        _ => run.tool_completed(data),
    }
}

/// The name of a thread's event by its number.
fn name_of(number: u64) -> &'static str {
    match (number - 1) % EVENTS {
        0 => "agent_started",
        step if step == EVENTS - 1 => "agent_completed",
        step => ["tool_completed", "agent_thinking", "tool_executing"][(step % 3) as usize],
    }
}

/// What a client knows of its thread, over all its connections.
#[derive(Clone)]
struct Follower {
    user: usize,
    /// The event that it has to hear, or to be told of, next.
    next: u64,
    /// The `id` of the last.
    last: String,
    heard: u64,
    missing: u64,
    gaps: u64,
    gaps_at_start: u64,
    returns: u64,
    /// Messages on the present connection.
    on_this: u64,
}

impl Follower {
    fn new(user: usize) -> Self {
        let last = String::new();
        let (heard, missing, gaps, gaps_at_start, returns, on_this) = (0, 0, 0, 0, 0, 0);
        Self { user, next: 1, last, heard, missing, gaps, gaps_at_start, returns, on_this }
    }

    /// Nothing twice, nothing before its turn, nothing left out in silence, nothing of somebody else.
    fn hear(&mut self, text: &str) {
        let message: Value = serde_json::from_str(text).unwrap();
        let (user, next) = (self.user, self.next);
        assert_eq!(message["thread_id"], THREAD, "user {user}: {text}");
        if message["type"] == "gap" {
            assert_eq!(message["from"], next, "user {user}: {text}");
            let to = message["to"].as_u64().unwrap();
            assert!((next..=ALL).contains(&to), "user {user}: {text}");
            self.missing += to - next + 1;
            self.gaps += 1;
            self.gaps_at_start += u64::from(self.on_this == 0);
            self.next = to + 1;
        } else {
            assert_eq!((&message["seq"], &message["type"]), (&next.into(), &name_of(next).into()), "{text}");
            // An aborted run ends without words.
            let is_mute = next.is_multiple_of(2 * EVENTS);
            let expected = if is_mute { Value::Null } else { format!("{next} for user{user}").into() };
            assert_eq!(message["data"], expected, "{text}");
            let outcome = match name_of(next) {
                "agent_completed" if is_mute => "aborted".into(),
                "agent_completed" => "completed".into(),
                _ => Value::Null,
            };
            assert_eq!(message["outcome"], outcome, "{text}");
            self.heard += 1;
            self.next += 1;
        }
        self.last = message["id"].as_str().unwrap().to_owned();
        self.on_this += 1;
    }
}

impl Application for Stage {
    type Session = ();

    async fn received(&self, _: &mut Connection<'_, ()>, _: Received<'_>) -> Result<(), HandlerError> {
        Err(HandlerError::new("nobody says anything here"))
    }
}

impl Host for Stage {
    fn reserve(&self, path: &str) -> Result<Reservation, ReserveError> {
        let (path, after) = path.split_once("?after=").map_or((path, None), |(path, id)| (path, Some(id)));
        let (user, thread) = path.split_once('/').unwrap();
        let mut reservation = self.pool.reserve(&context(user, thread))?;
        if let Some(after) = after {
            reservation.resume_after(after.parse().expect("an id of an event"));
        }
        Ok(reservation)
    }
}
