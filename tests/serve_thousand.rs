//! A thousand connections of ten users, messages both ways, and then every way to end.

#[path = "serve/support.rs"]
mod support;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashMap;
use std::fs::read_dir;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use support::{Client, Server, close_code, connect, context, eventually, hear, reset, say};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use ws_manager_pool::serve::drain;
use ws_manager_pool::{EndReason, Environment, Message, Pool, PooledWebSocketManager};

const USERS: usize = 10;
const CONNECTIONS: usize = 1_000;

/// One connection in ten ends in each of these ways.
const WAYS: [Way; 10] = [
    Way::Close,
    Way::Reset,
    Way::Silence,
    Way::Error,
    Way::Panic,
    Way::Cancel,
    Way::Evict,
    Way::Takeover,
    Way::Hang,
    Way::Drain,
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Close,
    Reset,
    Silence,
    Error,
    Panic,
    Cancel,
    Evict,
    Takeover,
    Hang,
    Drain,
}

fn way(number: usize) -> Way {
    WAYS[number / USERS % WAYS.len()]
}

fn path(number: usize) -> String {
    format!("user{}/thread_{number}", number % USERS)
}

#[test]
fn a_thousand_connections_leave_nothing_behind() {
    raise_file_limit();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // A hundred handlers panic as commanded.
        if info.payload_as_str() != Some("as commanded") {
            hook(info);
        }
    }));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(live_and_end());
}

async fn live_and_end() {
    let files = open_files();
    let pool = Pool::builder()
        .name("thousand")
        .environment(Environment::Ci)
        .capacity(CONNECTIONS)
        .max_managers_per_user(CONNECTIONS / USERS)
        .heartbeat_interval(Duration::from_secs(2))
        .heartbeat_timeout(Duration::from_secs(5))
        .reservation_deadline(support::PATIENCE)
        .build()
        .unwrap();
    let mut server = Server::start(pool.clone()).await;

    // Silent clients stay until everybody else has gone.
    let leave = Arc::new(Semaphore::new(0));
    let mut clients = JoinSet::new();
    for number in 0..CONNECTIONS {
        clients.spawn(client(server.address, number, leave.clone()));
    }
    let has_answered = |key| pool.inspect(key, |manager| manager.messages_out()) == Some(2);
    let answered = |user| server.keys_of(&format!("user{user}")).into_iter().filter(|&key| has_answered(key));
    let all_are_answered = || (0..USERS).map(|user| answered(user).count()).sum::<usize>() == CONNECTIONS;
    eventually("all are connected and answered", all_are_answered).await;
    assert!(pool.ledger().balanced);
    for user in 0..USERS {
        let refused = pool.reserve(&context(&format!("user{user}"), None)).unwrap_err();
        assert_eq!(refused.http_status(), 429);
    }
    // Whoever has heard it ends in its way.
    assert_eq!(pool.broadcast(Message::from("go")).queued, CONNECTIONS);

    // An operator evicts some once they say that they have heard, and some as soon as their handlers hang.
    let way_of = |manager: &PooledWebSocketManager<'_>| {
        let thread = manager.thread_id().to_string();
        way(thread["thread_".len()..].parse().unwrap())
    };
    let all_are_evicted = || {
        let mut left = 0;
        for key in (0..USERS).flat_map(|user| server.keys_of(&format!("user{user}"))) {
            match pool.inspect(key, |manager| (way_of(manager), manager.messages_in())) {
                Some((Way::Evict | Way::Hang, 2)) => pool.evict(key, EndReason::Operator).unwrap(),
                Some((Way::Evict | Way::Hang, _)) => left += 1,
                _ => {}
            }
        }
        left == 0
    };
    eventually("all of these are evicted", all_are_evicted).await;
    let hundred = CONNECTIONS / WAYS.len();
    let only_the_last_are_left = || server.pool.snapshot().live == hundred;
    eventually("all but those of the drain are gone", only_the_last_are_left).await;
    assert_eq!(drain(&pool).await.remaining, 0);
    leave.add_permits(CONNECTIONS);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }

    let mut ends: HashMap<EndReason, usize> = HashMap::new();
    for _ in 0..CONNECTIONS + hundred {
        *ends.entry(server.heard().await).or_default() += 1;
    }
    let expected = HashMap::from([
        (EndReason::Closed, 2 * hundred), // and those who took over
        (EndReason::SocketError, hundred),
        (EndReason::Heartbeat, hundred),
        (EndReason::HandlerError, hundred),
        (EndReason::HandlerPanic, hundred),
        (EndReason::Dropped, hundred),
        (EndReason::Operator, 2 * hundred),
        (EndReason::Takeover, hundred),
        (EndReason::Drain, hundred),
    ]);
    assert_eq!(ends, expected);
    assert!(server.report().await.messages_in > 0);
    server.is_empty().await;
    drop(server);
    eventually("as many open files as before", || open_files() == files).await;
}

/// Connects, speaks, waits for its cue and ends in its way.
async fn client(address: SocketAddr, number: usize, leave: Arc<Semaphore>) {
    let mut client = connect(address, &path(number)).await;
    say(&mut client, "hello").await;
    assert_eq!(hear(&mut client).await, "1 hello");
    assert_eq!(hear(&mut client).await, "go");
    match way(number) {
        Way::Close => {
            client.close(None).await.unwrap();
            drain_client(client).await;
        }
        Way::Reset => reset(client),
        Way::Silence => {
            drop(leave.acquire().await.unwrap());
            assert_eq!(close_code(&mut client).await, 4005);
        }
        Way::Error => command(client, "fail", 1011).await,
        Way::Panic => command(client, "panic", 1011).await,
        Way::Cancel => {
            say(&mut client, "cancel").await;
            drain_client(client).await;
        }
        Way::Takeover => {
            let mut new = connect(address, &path(number)).await;
            assert_eq!(close_code(&mut client).await, 4001);
            say(&mut new, "hello again").await;
            assert_eq!(hear(&mut new).await, "1 hello again");
            new.close(None).await.unwrap();
            drain_client(new).await;
        }
        // A message that was handed out need not have been written: only the client knows that it has come.
        Way::Evict => command(client, "heard", 4002).await,
        Way::Hang => command(client, "hang", 4002).await,
        Way::Drain => assert_eq!(close_code(&mut client).await, 1001),
    }
}

async fn command(mut client: Client, command: &str, code: u16) {
    say(&mut client, command).await;
    assert_eq!(close_code(&mut client).await, code);
}

/// Reads until the server has closed the socket.
async fn drain_client(mut client: Client) {
    use futures_util::StreamExt;
    while let Some(Ok(_)) = client.next().await {}
}

fn open_files() -> usize {
    read_dir("/proc/self/fd").unwrap().count()
}

fn raise_file_limit() {
    let needed = 3 * CONNECTIONS as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        let raised = Rlimit { current: Some(needed), maximum };
        setrlimit(Resource::Nofile, raised).expect("a hard limit of 3,000 open files or more");
    }
}
