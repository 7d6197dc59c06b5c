//! Many users at once: their ids stay apart, and whatever they all do, nothing is left.

use crate::stage::{MISMATCHES, clean_up, maintain, play, pool, user};
use crate::support::{Client, connect, context, eventually, hear, reset, say};
use futures_util::StreamExt;
use std::collections::HashSet;
use std::net::SocketAddr;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use ws_manager_pool::{EndReason, Message, Pool, PooledWebSocketManager, Session, Verdict};

#[test]
fn concurrent_users_ids_stay_apart() {
    const USERS: usize = 40; // more than there are shards, so that some share one
    const THREADS: [&str; 2] = ["thread_1", "thread_2"];
    play(pool("apart"), async |server| {
        ids_made_at_once_are_different();
        let address = server.address;
        // The second half takes the slots of the first.
        for half in ["first", "second"] {
            // Also some that a comparison by prefix, or by the text of the pair, would confuse.
            let users = (0..USERS).map(|number| format!("{half}{number}"));
            let users: Vec<_> = users.chain(["a", "a:b", "a:thread_1"].map(String::from)).collect();
            let mut arriving = JoinSet::new();
            for path in users.iter().flat_map(|user| THREADS.map(|thread| format!("{user}/{thread}"))) {
                arriving.spawn(async move { (connect(address, &path).await, path) });
            }
            let mut clients = arriving.join_all().await;
            assert_eq!(server.pool.snapshot().live, clients.len(), "nobody took another's place");
            for name in &users {
                for thread in THREADS {
                    let to = context(name, Some(thread)).isolation_key();
                    let report = server.pool.send_to_thread(&to, Message::text(format!("{name}/{thread}")));
                    assert_eq!((report.queued, report.is_complete()), (1, true), "{to}");
                }
                let report = server.pool.send_to_user(&user(name), Message::text(format!("to {name}")));
                assert_eq!((report.queued, report.is_complete()), (THREADS.len(), true), "{name}");
                assert_eq!(server.keys_of(name).len(), THREADS.len());
            }
            for (client, path) in &mut clients {
                let name = path.split('/').next().unwrap();
                assert_eq!(hear(client).await, *path);
                assert_eq!(hear(client).await, format!("to {name}"));
                say(client, "and nothing else").await;
                assert_eq!(hear(client).await, "1 and nothing else");
            }
            drop(clients);
            server.is_empty().await;
        }
    });
}

/// Ids of the same user and of different ones, from several threads.
fn ids_made_at_once_are_different() {
    const EACH: usize = 1_000;
    let make = |name: &str| -> Vec<_> {
        let contexts = (0..EACH).map(|_| context(name, None));
        contexts.flat_map(|context| [context.thread_id().to_string(), context.run_id().to_string()]).collect()
    };
    let made: Vec<_> = std::thread::scope(|scope| {
        let makers = ["ada", "ada", "bob", "cyd"].map(|name| scope.spawn(move || make(name)));
        makers.into_iter().flat_map(|maker| maker.join().unwrap()).collect()
    });
    assert_eq!(made.iter().collect::<HashSet<_>>().len(), 4 * 2 * EACH);
}

#[test]
fn a_thousand_connections_over_ten_users() {
    const USERS: usize = 10;
    const CONNECTIONS: usize = 1_000;
    let each = CONNECTIONS / USERS;
    play(pool("ten-users").capacity(CONNECTIONS).max_managers_per_user(each), async |server| {
        let address = server.address;
        // The second thousand needs every place that the first one had.
        for round in 0..2 {
            let mut arriving = JoinSet::new();
            for number in 0..CONNECTIONS {
                let name = format!("user{}", number % USERS);
                arriving.spawn(async move { (connect(address, &name).await, number) });
            }
            let mut clients = arriving.join_all().await;
            for name in (0..USERS).map(|number| format!("user{number}")) {
                let refused = server.pool.reserve(&context(&name, None)).unwrap_err();
                assert_eq!(refused.http_status(), 429, "{name} has all that a user may have");
                let report = server.pool.send_to_user(&user(&name), Message::text(format!("to {name}")));
                assert_eq!((report.queued, report.is_complete()), (each, true));
            }
            assert_eq!(server.pool.snapshot().free, 0);
            for (client, number) in &mut clients {
                assert_eq!(hear(client).await, format!("to user{}", *number % USERS));
            }
            for (mut client, number) in clients {
                match (number / USERS + round) % 3 {
                    0 => client.close(None).await.unwrap(),
                    1 => reset(client),
                    _ => drop(client),
                }
            }
            server.is_empty().await;
        }
        let tally = server.pool.ledger().tally;
        assert_eq!((tally.opened, tally.ended), (2 * CONNECTIONS as u64, 2 * CONNECTIONS as u64));
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Close,
    Vanish,
    Reset,
    Error,
    Panic,
    Cancel,
    Takeover,
    Mismatch,
    Idle,
}

const WAYS: [Way; 9] = [
    Way::Close,
    Way::Vanish,
    Way::Reset,
    Way::Error,
    Way::Panic,
    Way::Cancel,
    Way::Takeover,
    Way::Mismatch,
    Way::Idle,
];

#[test]
fn all_combined() {
    const USERS: usize = 10;
    const TABS: usize = 2;
    const LIVES: usize = 18;
    play(pool("all-combined"), async |server| {
        let sweeping = Sweeping::start(server.pool.clone(), USERS);
        let mut tabs = JoinSet::new();
        for (number, tab) in (0..USERS).flat_map(|number| (0..TABS).map(move |tab| (number, tab))) {
            let (address, pool) = (server.address, server.pool.clone());
            tabs.spawn(async move {
                for life in 0..LIVES {
                    let way = WAYS[(number + tab + life) % WAYS.len()];
                    live_and_end(address, &pool, &format!("user{number}"), tab, way).await;
                }
            });
        }
        tabs.join_all().await;
        sweeping.stop().await;
        let lives = (USERS * TABS * LIVES) as u64;
        let each = lives / WAYS.len() as u64;
        let ends = server.pool.ledger().tally.ends_by_reason;
        let expected = [
            ("closed", 2 * each), // and those who took over
            ("socket_error", 2 * each),
            ("handler_error", each),
            ("handler_panic", each),
            ("dropped", each),
            ("takeover", each),
            ("operator", each),
            ("idle", each),
        ];
        assert_eq!(ends, expected.into());
        assert_eq!(server.pool.snapshot().mismatches, each * MISMATCHES);
    });
}

/// One connection of a user, and what becomes of it.
async fn live_and_end<S: Session>(address: SocketAddr, pool: &Pool<S>, name: &str, tab: usize, way: Way) {
    let thread = format!("thread_{}_{tab}", if way == Way::Idle { "idle" } else { "tab" });
    let path = format!("{name}/{thread}");
    let mut client = connect(address, &path).await;
    if way == Way::Idle {
        return has_ended(pool, &path, client, way).await;
    }
    say(&mut client, "hello").await;
    assert_eq!(hear(&mut client).await, "1 hello");
    match way {
        Way::Close => client.close(None).await.unwrap(),
        Way::Vanish | Way::Reset => {
            if way == Way::Reset {
                reset(client)
            } else {
                drop(client)
            }
            // Before the next life: that is to be one of its own, and no takeover.
            return eventually("the manager is free", || is_free(pool, &path)).await;
        }
        Way::Error => say(&mut client, "fail").await,
        Way::Panic => say(&mut client, "panic").await,
        Way::Cancel => say(&mut client, "cancel").await,
        Way::Takeover => {
            let mut new = connect(address, &path).await;
            while let Some(Ok(_)) = client.next().await {}
            say(&mut new, "hello").await;
            assert_eq!(hear(&mut new).await, "1 hello");
            new.close(None).await.unwrap();
            client = new;
        }
        Way::Mismatch => {
            let again = context(name, None);
            assert!(pool.send_to_thread(&again.isolation_key(), Message::from("astray")).is_nobody);
            assert_eq!(clean_up(pool, &again), 0);
            say(&mut client, "still here").await;
            assert_eq!(hear(&mut client).await, "2 still here");
            assert_eq!(clean_up(pool, &context(name, Some(&thread))), 1);
        }
        Way::Idle => unreachable!("it has ended above"),
    }
    has_ended(pool, &path, client, way).await;
}

/// Waits for the end of the socket. Which code comes before it is not asked here: the slot may have had
/// another life, and its end, before the connection's task looks for the reason.
async fn has_ended<S: Session>(pool: &Pool<S>, path: &str, mut client: Client, way: Way) {
    while let Some(Ok(_)) = client.next().await {}
    assert!(is_free(pool, path), "{way:?}: free before the socket was closed");
}

fn is_free<S: Session>(pool: &Pool<S>, path: &str) -> bool {
    let (name, thread) = path.split_once('/').unwrap();
    let is_of_thread = |key| pool.inspect(key, |manager| manager.thread_id().to_string() == thread);
    !pool.keys_of(&user(name)).into_iter().any(|key| is_of_thread(key) == Some(true))
}

/// Maintenance, a sweep of the idle, and the account, again and again.
struct Sweeping {
    task: JoinHandle<()>,
    is_over: watch::Sender<bool>,
}

impl Sweeping {
    fn start<S: Session>(pool: Pool<S>, users: usize) -> Self {
        let (is_over, over) = watch::channel(false);
        let task = tokio::spawn(async move {
            while !*over.borrow() {
                maintain(&pool, pool.clock().now());
                for key in (0..users).flat_map(|number| pool.keys_of(&user(&format!("user{number}")))) {
                    // Late: it has ended by itself.
                    let _ = pool.evict_if(key, EndReason::Idle, is_due);
                }
                assert_ne!(pool.ledger().verdict, Verdict::Unbalanced);
                tokio::task::yield_now().await;
            }
        });
        Self { task, is_over }
    }

    async fn stop(self) {
        self.is_over.send(true).unwrap();
        self.task.await.unwrap();
    }
}

/// Idle, and has been welcomed.
fn is_due(manager: &PooledWebSocketManager<'_>) -> bool {
    manager.messages_out() == 1 && manager.thread_id().to_string().starts_with("thread_idle")
}
