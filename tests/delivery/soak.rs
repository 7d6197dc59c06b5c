//! Many users, all sending to their own, while their connections come and go: nobody hears what is
//! not for them, nothing comes twice, nothing comes out of order, and nothing is lost in silence.

use crate::letter::{Address, Letter, Sender, Whose};
use crate::log::{Fate, Figures, Lived, Log, Moment};
use crate::net::{Buffers, Client, Heard, Host, PATIENCE, PAUSE, Server, play};
use crate::{assert_counts, builder, context, numbers_of};
use parking_lot::Mutex;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::task::JoinSet;
use ws_manager_pool::serve::{Application, CloseReport, Connection, HandlerError, Received};
use ws_manager_pool::{
    DuplicatePolicy, EndReason, ManagerKey, Message, OutboundLimits, Pool, Reservation, ReserveError,
    Session, UserExecutionContext,
};

/// So many times as long as usual, if set.
const LONGER: &str = "DELIVERY_TIMES";

/// How big a soak is.
#[derive(Clone, Copy)]
struct Size {
    users: usize,
    /// Each user's connections.
    tabs: usize,
    /// Each user's threads.
    threads: usize,
    /// Connections that each tab has, one after the other.
    lives: usize,
    /// Turns that each connection takes at sending.
    turns: usize,
}

impl Size {
    fn seats(&self) -> usize {
        self.users * self.tabs
    }
}

#[test]
fn a_thousand_connections_hear_their_own_and_nothing_else_while_slots_are_reused() {
    let size = Size { users: 100, tabs: 10, threads: 10, lives: 6, turns: 3 };
    soak("soak-takeover", DuplicatePolicy::Replace, size);
}

#[test]
fn tabs_of_one_thread_hear_their_own_and_nothing_else_while_slots_are_reused() {
    let size = Size { users: 20, tabs: 10, threads: 4, lives: 6, turns: 3 };
    soak("soak-tabs", DuplicatePolicy::Allow, size);
}

fn soak(name: &str, duplicates: DuplicatePolicy, size: Size) {
    let times: usize = std::env::var(LONGER).map_or(1, |times| times.parse().expect("a number"));
    let size = Size { lives: size.lives * times, ..size };
    play(async {
        // Barely more slots than there are connections, so that each slot has many occupants.
        let spare = size.users / 10;
        let pool = builder(name, size.seats() + spare)
            .max_managers_per_user(size.tabs)
            .duplicates(duplicates)
            .outbound(OutboundLimits::default().with_messages(1 << 20).with_bytes(1 << 30))
            .heartbeat_interval(10 * PATIENCE)
            .reservation_deadline(10 * PATIENCE)
            .close_timeout(PATIENCE)
            .build()
            .unwrap();
        let figures = run(&pool, size).await;
        println!("{name}: {figures}");
        assert_counts(&pool, 0, 0, 0);
        assert_eq!(figures.lives, size.seats() * size.lives);
        assert_eq!(figures.stayed, size.seats());
        assert_eq!(figures.refused, figures.closing, "there was room for everything: {figures}");
        assert!(figures.last_words > 0 && figures.stale > 0, "{figures}");
        assert!(figures.slots <= size.seats() + spare, "{figures}");
        assert!(figures.inherited > figures.slots / 2, "slots were reused, also by others: {figures}");
    });
}

async fn run(pool: &Pool<Voice>, size: Size) -> Figures {
    let crowd = Arc::new(Crowd {
        pool: pool.clone(),
        log: Log::default(),
        size,
        addresses: (0..size.users).map(|_| Mutex::default()).collect(),
    });
    let server = Server::start(pool.clone(), crowd.clone(), Buffers::Any);
    let done = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for number in 0..size.seats() {
        let seat = Seat { crowd: crowd.clone(), address: server.address, number };
        tasks.spawn(seat.lives(done.clone()));
    }
    for seed in 0..2 {
        tasks.spawn(strangers(crowd.clone(), seed, done.clone()));
    }
    let all = tasks.len();
    // As long as it takes: everyone waits for each of their messages for a bounded time.
    while done.load(SeqCst) < all {
        // One that has failed ends the test here.
        while let Some(ended) = tasks.try_join_next() {
            ended.unwrap();
        }
        tokio::time::sleep(PAUSE).await;
    }
    // Nobody sends any more. Those that are still here are to hear all that is queued, and then this.
    server.serves(size.seats()).await;
    let last = pool.broadcast(Message::from("last"));
    assert_eq!((last.queued, last.is_complete()), (size.seats(), true), "{last:?}");
    crowd.log.also_broadcast(last.queued);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    server.is_empty().await;
    crowd.log.verify(pool)
}

/// The server's side: those who are connected send when they are told to.
struct Crowd {
    pool: Pool<Voice>,
    log: Log,
    size: Size,
    /// The keys that each user has had, the last ones last.
    addresses: Vec<Mutex<Vec<ManagerKey>>>,
}

/// One connection as a sender.
#[derive(Default)]
struct Voice {
    sender: Option<Sender>,
    order: u64,
}

impl Session for Voice {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Crowd {
    /// One turn of a sender: one letter to each kind of address of a user, and now and then to all.
    fn speak(&self, user: usize, from: Sender, order: &mut u64) {
        let mut dice = ChaCha8Rng::seed_from_u64(from << 32 | *order);
        let thread = dice.random_range(0..self.size.threads);
        let to_all = (dice.random_range(0..40) == 0).then_some(Address::All);
        let to = [
            Address::Keys { user, keys: self.some_keys(user, 1, &mut dice) },
            Address::Thread { user, thread },
            Address::Keys { user, keys: self.some_keys(user, 3, &mut dice) },
            Address::User { user },
        ];
        for to in to.into_iter().chain(to_all) {
            let _ = self.log.send(&self.pool, Letter { to, from, order: *order }, 0);
            *order += 1;
        }
    }

    /// Different keys of a user, of whom some are over.
    fn some_keys(&self, user: usize, count: usize, dice: &mut ChaCha8Rng) -> Vec<ManagerKey> {
        let known = self.addresses[user].lock();
        let recent = &known[known.len().saturating_sub(2 * self.size.tabs)..];
        let first = dice.random_range(0..recent.len());
        recent.iter().cycle().skip(first).take(count.min(recent.len())).copied().collect()
    }
}

impl Application for Crowd {
    type Session = Voice;

    async fn connected(&self, conn: &mut Connection<'_, Voice>) -> Result<(), HandlerError> {
        conn.with_session(|voice| voice.sender = Some(self.log.new_sender()))?;
        let bits = conn.key().to_bits();
        self.log.also_sent(&conn.send(Message::text(format!("welcome {bits}"))));
        Ok(())
    }

    async fn received(
        &self,
        conn: &mut Connection<'_, Voice>,
        message: Received<'_>,
    ) -> Result<(), HandlerError> {
        let (user, _) = numbers_of(conn.context());
        let (from, mut order) = conn.with_session(|voice| (voice.sender.unwrap(), voice.order))?;
        self.speak(user, from, &mut order);
        conn.with_session(|voice| voice.order = order)?;
        self.log.also_sent(&conn.send(Message::from("spoken")));
        match message.as_text() {
            Some("speak") => Ok(()),
            // What it has just said to its own is among its last words.
            Some("part") => {
                conn.close();
                Ok(())
            }
            _ => Err(HandlerError::new("as commanded")),
        }
    }
}

impl Host for Crowd {
    fn reserve(&self, path: &str) -> Result<Reservation<Voice>, ReserveError> {
        let (user, thread) = path.split_once('/').unwrap();
        self.pool.reserve(&context(user, thread))
    }

    fn moment(&self) -> Moment {
        self.log.moment()
    }

    fn opened(&self, key: ManagerKey, context: &UserExecutionContext, opening: Moment) {
        self.log.opened(key, opening);
        self.addresses[numbers_of(context).0].lock().push(key);
    }

    fn over(&self, report: &CloseReport) {
        self.log.over(report);
    }
}

/// Somebody who is not connected, and writes to everybody.
async fn strangers(crowd: Arc<Crowd>, seed: u64, done: Arc<AtomicUsize>) {
    let (from, mut order) = (crowd.log.new_sender(), 0);
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..crowd.size.seats() {
        let user = dice.random_range(0..crowd.size.users);
        if !crowd.addresses[user].lock().is_empty() {
            crowd.speak(user, from, &mut order);
        }
        tokio::task::yield_now().await;
    }
    done.fetch_add(1, SeqCst);
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Close,
    Part,
    Reset,
    Evict,
    Takeover,
    Fail,
    Vanish,
}

const WAYS: [Way; 7] = [Way::Close, Way::Part, Way::Reset, Way::Evict, Way::Takeover, Way::Fail, Way::Vanish];

/// One place at the table: a user's tab, which has one connection after the other.
struct Seat {
    crowd: Arc<Crowd>,
    address: SocketAddr,
    number: usize,
}

impl Seat {
    async fn lives(self, done: Arc<AtomicUsize>) {
        let size = self.crowd.size;
        let mut old = None;
        for number in 0..size.lives {
            let (mut client, mut life) = self.connect().await;
            if let Some((mut old, mut life)) = old.take() {
                assert_eq!(hear_to_the_end(&mut old, &mut life).await, Heard::Closed(4001));
                self.crowd.log.lived(life);
            }
            for _ in 0..size.turns {
                client.say("speak").await;
                while hear(&mut client, &mut life).await != "spoken" {}
            }
            if number + 1 == size.lives {
                done.fetch_add(1, SeqCst);
                return self.stay(client, life).await;
            }
            let way = WAYS[(self.number + number) % WAYS.len()];
            // With `Allow` nobody is taken over.
            let is_replaced = self.crowd.pool.config().duplicates == DuplicatePolicy::Replace;
            match way {
                Way::Takeover if is_replaced => {
                    life.leaving = self.crowd.log.moment();
                    old = Some((client, life));
                }
                way => self.leave(client, life, way).await,
            }
        }
    }

    async fn connect(&self) -> (Client, Lived) {
        let Size { tabs, threads, .. } = self.crowd.size;
        let (user, thread) = (self.number / tabs, self.number % tabs % threads);
        let path = format!("user{user}/thread_{thread}");
        let mut client = Client::connect(self.address, &path, Buffers::Any).await;
        let mut before = Vec::new();
        // It is known to others before it has been welcomed.
        let key = loop {
            let Heard::Text(text) = client.hear().await else { panic!("no welcome") };
            before.push(text.clone());
            if let Some(bits) = text.strip_prefix("welcome ") {
                break ManagerKey::from_bits(bits.parse().unwrap());
            }
        };
        let mut life = Lived::new(Whose { user, thread, key });
        before.iter().for_each(|text| life.hear(text));
        (client, life)
    }

    async fn leave(&self, mut client: Client, mut life: Lived, way: Way) {
        let log = &self.crowd.log;
        life.leaving = log.moment();
        let mut expected = None;
        match way {
            Way::Part => {
                client.say("part").await;
                (life.fate, expected) = (Fate::LastWords, Some(Heard::Closed(1000)));
            }
            Way::Fail => {
                client.say("fail").await;
                (life.fate, expected) = (Fate::LastWords, Some(Heard::Closed(1011)));
            }
            Way::Evict | Way::Takeover => {
                self.crowd.pool.evict(life.whose.key, EndReason::Operator).unwrap();
                log.evicted(life.whose.key);
            }
            // What it asks for is on its way, or not even sent, when it goes.
            Way::Close | Way::Reset | Way::Vanish => client.say("speak").await,
        }
        match way {
            Way::Reset => client.reset(),
            Way::Vanish => drop(client),
            _ => {
                if way == Way::Close {
                    client.close().await;
                }
                let end = hear_to_the_end(&mut client, &mut life).await;
                assert!(expected.is_none_or(|expected| end == expected), "{way:?}: {end:?}");
            }
        }
        log.lived(life);
    }

    /// Hears everything that is there, and closes.
    async fn stay(&self, mut client: Client, mut life: Lived) {
        while hear(&mut client, &mut life).await != "last" {}
        life.fate = Fate::Stayed;
        client.close().await;
        let _ = hear_to_the_end(&mut client, &mut life).await;
        self.crowd.log.lived(life);
    }
}

async fn hear(client: &mut Client, life: &mut Lived) -> String {
    let Heard::Text(text) = client.hear().await else { panic!("{:?} ended by itself", life.whose) };
    life.hear(&text);
    text
}

async fn hear_to_the_end(client: &mut Client, life: &mut Lived) -> Heard {
    loop {
        match client.hear().await {
            Heard::Text(text) => life.hear(&text),
            end => return end,
        }
    }
}
