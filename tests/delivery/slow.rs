//! One client that stops reading harms nobody but itself.

use crate::letter::{Address, Letter};
use crate::log::{Fate, Lived};
use crate::net::{Buffers, Client, Heard, Server, eventually, play};
use crate::quiet::{LAST, Quiet};
use crate::{assert_counts, user_id};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use ws_manager_pool::{Config, EndReason, ManagerKey, OutboundLimits, OverflowPolicy};

const CLIENTS: usize = 50;
/// The one that stops reading.
const SLOW: usize = 17;
const ROUNDS: u64 = 100;
const LETTER_BYTES: usize = 1_024;

#[test]
fn a_client_that_stops_reading_stops_at_the_bound_in_messages_and_is_ended_by_policy() {
    stop_reading("slow-messages", OutboundLimits::default().with_messages(16), 16);
}

#[test]
fn a_client_that_stops_reading_stops_at_the_bound_in_bytes_and_is_ended_by_policy() {
    let limits = OutboundLimits::default().with_bytes(10 * LETTER_BYTES + LETTER_BYTES / 2);
    stop_reading("slow-bytes", limits, 10);
}

/// `bound`: as many letters can wait.
fn stop_reading(name: &str, limits: OutboundLimits, bound: usize) {
    play(async {
        let quiet = Quiet::new(name, CLIENTS, limits, |builder| builder);
        let pool = &quiet.pool;
        let server = Server::start(pool.clone(), quiet.clone(), Buffers::Small);
        let (wake, woken) = oneshot::channel();
        let mut woken = Some(woken);
        let (mut keys, mut clients) = (Vec::new(), JoinSet::new());
        for user in 0..CLIENTS {
            let (client, life) = quiet.arrive(server.address, user, 0).await;
            keys.push(life.whose.key);
            let sleep = if user == SLOW { woken.take() } else { None };
            clients.spawn(listen(quiet.clone(), client, life, sleep));
        }
        let slow = keys[SLOW];
        let others_have_heard = || {
            let mut others = keys.iter().filter(|&&key| key != slow);
            others.all(|&key| pool.inspect(key, |manager| manager.queued()) == Some(0))
        };

        let (from, mut refused, mut longest) = (quiet.log.new_sender(), 0, 0);
        let write = |user: usize, key: ManagerKey, order: u64| {
            let letter = Letter { to: Address::Keys { user, keys: vec![key] }, from, order };
            let outcome = quiet.log.send(pool, letter, LETTER_BYTES);
            assert!(user == SLOW || outcome.queued == 1, "user {user} lost {order} for another's slowness");
            outcome
        };
        for round in 0..ROUNDS {
            for (user, &key) in keys.iter().enumerate() {
                refused += write(user, key, round).refused;
                let (queued, bytes) =
                    pool.inspect(slow, |manager| (manager.queued(), manager.queued_bytes())).unwrap();
                assert!(queued <= bound && bytes <= limits.bytes(), "{queued} messages, {bytes} bytes wait");
                longest = longest.max(queued);
            }
            eventually("the others have heard it", others_have_heard).await;
            // What the others have taken counts until it is written.
            let of_one = || pool.snapshot().outbound_bytes <= bound * LETTER_BYTES;
            eventually("only the slow one's bytes wait", of_one).await;
        }
        assert_eq!(longest, bound);
        assert!(refused > 0);

        let mut config = Config::clone(&pool.config());
        config.outbound = limits.with_overflow(OverflowPolicy::Disconnect);
        pool.reconfigure(config).unwrap();
        for (user, &key) in keys.iter().enumerate() {
            let outcome = write(user, key, ROUNDS);
            assert_eq!(outcome.refused, usize::from(user == SLOW), "user {user}");
        }
        let reason = pool.last_ends_of(&user_id(SLOW)).first().map(|end| end.reason);
        assert_eq!(reason, Some(EndReason::SlowConsumer));
        assert_counts_live(&quiet, CLIENTS - 1).await;
        eventually("the others have heard it", others_have_heard).await;
        assert_eq!(pool.snapshot().outbound_bytes, 0, "what had waited is given back");
        wake.send(()).unwrap();
        quiet.say_the_last();
        while let Some(heard) = clients.join_next().await {
            heard.unwrap();
        }
        server.is_empty().await;
        assert_counts(pool, 0, 0, 0);
        let figures = quiet.log.verify(pool);
        println!("{name}: {figures}");
        assert_eq!(figures.stayed, CLIENTS - 1);
        assert_eq!((figures.refused, figures.ended), (refused + 1, 1), "{figures}");
    });
}

/// So many are live, and nobody else holds anything.
async fn assert_counts_live(quiet: &Quiet, live: usize) {
    eventually("no slot waits for a reader", || quiet.pool.ledger().closing == 0).await;
    assert_counts(&quiet.pool, live, 0, 0);
}

/// Hears everything, after its sleep, to the last message or to the end.
async fn listen(
    quiet: Arc<Quiet>,
    mut client: Client,
    mut life: Lived,
    sleep: Option<oneshot::Receiver<()>>,
) {
    if let Some(sleep) = sleep {
        sleep.await.unwrap();
    }
    let end = loop {
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
    if life.whose.user == SLOW {
        assert_eq!(end, Heard::Closed(1013));
    }
    assert_eq!(life.fate == Fate::Cut, life.whose.user == SLOW, "{:?}", life.whose);
    quiet.log.lived(life);
}
