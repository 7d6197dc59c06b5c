//! Queues that are too small, and clients that read too slowly: what is lost is what the policy says
//! and the sender was told, to the message.

use crate::letter::{Address, Letter, Sender};
use crate::log::{Fate, Lived};
use crate::net::{Buffers, Client, Heard, Server, eventually, play};
use crate::quiet::{LAST, Quiet};
use crate::{assert_counts, user_id};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use ws_manager_pool::{DuplicatePolicy, EndReason, OutboundLimits, OverflowPolicy};

const USERS: usize = 5;
const THREADS: usize = 3;
/// Two on each thread.
const TABS: usize = 6;
const SEATS: usize = USERS * TABS;

/// Messages that wait for one connection at most.
const QUEUE: usize = 8;
/// What each sender sends.
const LETTERS: u64 = 300;
const LETTER_BYTES: usize = 1_024;

#[test]
fn drop_newest_loses_what_the_sender_got_back_and_nothing_else() {
    play(async {
        let room = talk("overflow-newest", OverflowPolicy::DropNewest).await;
        let figures = room.quiet.log.verify(&room.quiet.pool);
        println!("drop newest: {figures}");
        assert_eq!(figures.stayed, SEATS);
        assert!(figures.refused > 0 && figures.stale == 0, "{figures}");
        assert_eq!(figures.exact, figures.sends, "of each letter it is known how many heard it");
    });
}

#[test]
fn drop_oldest_loses_as_many_as_the_senders_were_told_and_never_the_newest() {
    play(async {
        let room = talk("overflow-oldest", OverflowPolicy::DropOldest).await;
        let figures = room.quiet.log.verify_displaced(&room.quiet.pool);
        println!("drop oldest: {figures}");
        assert_eq!((figures.stayed, figures.refused), (SEATS, 0), "{figures}");
        assert!(figures.displaced > 0, "{figures}");
    });
}

#[test]
fn disconnect_ends_who_reads_too_slowly_and_what_came_before_has_no_hole() {
    play(async {
        let room = talk("overflow-end", OverflowPolicy::Disconnect).await;
        let figures = room.quiet.log.verify(&room.quiet.pool);
        println!("disconnect: {figures}");
        let ended = room.ended.load(SeqCst);
        assert!(ended > 0 && figures.stayed + ended == SEATS, "{ended} ended; {figures}");
        let ends = room.quiet.pool.ledger().tally.ends_by_reason;
        assert_eq!(ends.get(EndReason::SlowConsumer.name()), Some(&(ended as u64)), "{ends:?}");
        // Each by one send, and its sender was told.
        assert_eq!(figures.ended, ended, "{figures}");
    });
}

struct Room {
    quiet: Arc<Quiet>,
    /// Clients that the server ended with code 1013.
    ended: AtomicUsize,
    /// A slow client reads a message for each time that somebody was refused or displaced.
    gate: Semaphore,
}

/// Each user's senders speak, while some clients read all the time and some hardly ever.
async fn talk(name: &str, overflow: OverflowPolicy) -> Arc<Room> {
    let limits = OutboundLimits::default().with_messages(QUEUE).with_overflow(overflow);
    let quiet = Quiet::new(name, SEATS, limits, |builder| builder.duplicates(DuplicatePolicy::Allow));
    let server = Server::start(quiet.pool.clone(), quiet.clone(), Buffers::Small);
    let room = Arc::new(Room { quiet, ended: AtomicUsize::new(0), gate: Semaphore::new(0) });
    let (quiet, pool) = (&room.quiet, &room.quiet.pool);
    let mut clients = JoinSet::new();
    for seat in 0..SEATS {
        let (client, life) = quiet.arrive(server.address, seat / TABS, seat % TABS % THREADS).await;
        let room = room.clone();
        clients.spawn(async move { room.listen(client, life, seat % 3 == 0).await });
    }
    let mut senders = JoinSet::new();
    for number in 0..2 * USERS {
        let (room, from) = (room.clone(), quiet.log.new_sender());
        senders.spawn(async move { room.speak(from, number % USERS).await });
    }
    while let Some(spoken) = senders.join_next().await {
        spoken.unwrap();
    }
    room.gate.close();
    let is_read = |key| pool.inspect(key, |manager| manager.queued()).is_none_or(|queued| queued == 0);
    eventually("everybody reads what waits", || {
        (0..USERS).flat_map(|user| pool.keys_of(&user_id(user))).all(is_read)
    })
    .await;
    quiet.say_the_last();
    while let Some(heard) = clients.join_next().await {
        heard.unwrap();
    }
    server.is_empty().await;
    assert_counts(pool, 0, 0, 0);
    room
}

fn any_address(quiet: &Quiet, user: usize, dice: &mut ChaCha8Rng) -> Address {
    match dice.random_range(0..8) {
        0..3 => one_key(quiet, user, dice),
        3 => Address::Keys { user, keys: quiet.pool.keys_of(&user_id(user)) },
        4..6 => Address::Thread { user, thread: dice.random_range(0..THREADS) },
        6 => Address::User { user },
        _ => Address::All,
    }
}

/// One of a user's connections; to nobody, if none is left.
fn one_key(quiet: &Quiet, user: usize, dice: &mut ChaCha8Rng) -> Address {
    let mut keys = quiet.pool.keys_of(&user_id(user));
    if !keys.is_empty() {
        keys = vec![keys[dice.random_range(0..keys.len())]];
    }
    Address::Keys { user, keys }
}

impl Room {
    async fn speak(&self, from: Sender, user: usize) {
        let mut dice = ChaCha8Rng::seed_from_u64(from);
        for order in 0..LETTERS {
            let to = any_address(&self.quiet, user, &mut dice);
            let outcome = self.quiet.log.send(&self.quiet.pool, Letter { to, from, order }, LETTER_BYTES);
            self.gate.add_permits(outcome.refused + outcome.displaced);
            tokio::task::yield_now().await;
        }
    }

    async fn listen(&self, mut client: Client, mut life: Lived, is_slow: bool) {
        let end = loop {
            // An error: nobody sends any more, so that everything is to be read.
            if is_slow && let Ok(permit) = self.gate.acquire().await {
                permit.forget();
            }
            match client.hear().await {
                Heard::Text(text) => {
                    life.hear(&text);
                    if text == LAST {
                        life.fate = Fate::Stayed;
                        client.close().await;
                    }
                }
                end => break end,
            }
        };
        if life.fate == Fate::Cut {
            assert_eq!(end, Heard::Closed(1013), "{:?}", life.whose);
            self.ended.fetch_add(1, SeqCst);
        }
        self.quiet.log.lived(life);
    }
}
