//! An agent's events: numbered for each thread of a user, in order, at most once for a connection, kept
//! for a client that comes back, and never missing in silence.

mod common;

use common::context as context_on;
use serde_json::Value;
use std::time::Duration;
use ws_manager_pool::{
    AgentEvent, Clock, DuplicatePolicy, EndReason, EventData, EventId, Lease, Message, OutboundLimits,
    OverflowPolicy, Pool, PoolBuilder, UserExecutionContext,
};

/// A connection's client, as far as it goes: what it was told.
struct Client {
    lease: Lease,
    seen: Vec<Value>,
}

impl Client {
    fn new(lease: Lease) -> Self {
        Self { lease, seen: Vec::new() }
    }

    /// Reads what there is. Each event in short, as `started 1`, a gap as `gap 2-3`, others as they are.
    fn read(&mut self) -> Vec<String> {
        self.read_some(usize::MAX)
    }

    fn read_some(&mut self, most: usize) -> Vec<String> {
        let mut told = Vec::new();
        while told.len() < most
            && let Some(message) = self.lease.next_message().expect("the lease is good")
        {
            let text = message.as_text().expect("events are text");
            let Ok(value) = serde_json::from_str::<Value>(text) else {
                told.push(text.to_owned());
                continue;
            };
            told.push(match value["type"].as_str().unwrap() {
                "gap" => format!("gap {}-{}", value["from"], value["to"]),
                name => {
                    assert!(AgentEvent::from_name(name).is_some(), "{name} is none of the five");
                    let short = name.trim_start_matches("agent_").trim_start_matches("tool_");
                    format!("{short} {}", value["seq"])
                }
            });
            self.seen.push(value);
        }
        told
    }

    /// What it gives as `after` when it comes back.
    fn last_id(&self) -> EventId {
        self.seen.last().unwrap()["id"].as_str().unwrap().parse().unwrap()
    }
}

fn builder(name: &str) -> PoolBuilder {
    common::builder(name, 100).duplicates(DuplicatePolicy::Allow)
}

fn context(user: &str) -> UserExecutionContext {
    context_on(user, None)
}

fn open(pool: &Pool, context: &UserExecutionContext) -> Client {
    Client::new(pool.reserve(context).unwrap().open().unwrap())
}

fn resume(pool: &Pool, context: &UserExecutionContext, after: EventId) -> Client {
    let mut reservation = pool.reserve(context).unwrap();
    reservation.resume_after(after);
    Client::new(reservation.open().unwrap())
}

/// Another connection on the same thread, with ids of its own.
fn again(context: &UserExecutionContext) -> UserExecutionContext {
    context_on(context.user_id().as_str(), context.thread_id().to_string().as_str())
}

#[test]
fn the_five_events_reach_each_connection_of_the_thread_and_nobody_else() {
    let pool = builder("golden-five").build().unwrap();
    let ada = context("ada");
    let (mut one, mut two) = (open(&pool, &ada), open(&pool, &again(&ada)));
    let mut other_thread = open(&pool, &context("ada"));
    let mut other_user = open(&pool, &context("bob"));

    let mut run = pool.start_run(&ada, "go");
    assert!(run.thinking(EventData::NONE).is_complete());
    assert_eq!(run.tool_executing("search").queued, 2);
    let _ = run.tool_completed("3 hits");
    let _ = run.complete("done");

    let all = ["started 1", "thinking 2", "executing 3", "completed 4", "completed 5"];
    assert_eq!((one.read(), two.read()), (all.map(String::from).to_vec(), all.map(String::from).to_vec()));
    assert!(other_thread.read().is_empty() && other_user.read().is_empty());
    let first = &one.seen[0];
    assert_eq!(first["data"], "go");
    assert_eq!(first["thread_id"], ada.thread_id().to_string());
    assert_eq!(first["run_id"], ada.run_id().to_string());
    assert_eq!(one.seen[4]["outcome"], "completed");
    assert_eq!(one.seen[1].get("data"), None);
}

#[test]
fn a_run_that_is_dropped_says_that_it_is_over() {
    let pool = builder("golden-drop").build().unwrap();
    let ada = context("ada");
    let mut client = open(&pool, &ada);
    drop(pool.start_run(&ada, EventData::NONE));
    assert_eq!(client.read(), ["started 1", "completed 2"]);
    assert_eq!(client.seen[1]["outcome"], "aborted");
    assert_eq!(pool.snapshot().agents.runs, 0);
}

#[test]
fn numbers_go_on_from_run_to_run_also_of_runs_that_overlap() {
    let pool = builder("golden-overlap").build().unwrap();
    let ada = context("ada");
    let mut client = open(&pool, &ada);
    let mut one = pool.start_run(&ada, EventData::NONE);
    let mut two = pool.start_run(&again(&ada), EventData::NONE);
    let _ = (one.thinking("1"), two.thinking("2"), one.complete("1"), two.complete("2"));
    let expected = ["started 1", "started 2", "thinking 3", "thinking 4", "completed 5", "completed 6"];
    assert_eq!(client.read(), expected);
    assert_ne!(client.seen[2]["run_id"], client.seen[3]["run_id"]);
}

#[test]
fn a_client_that_comes_back_gets_what_it_missed_before_what_is_new() {
    let pool = builder("golden-after").replay_events(100).build().unwrap();
    let ada = context("ada");
    let mut client = open(&pool, &ada);
    let mut run = pool.start_run(&ada, EventData::NONE);
    let _ = run.thinking(EventData::NONE);
    assert_eq!(client.read(), ["started 1", "thinking 2"]);
    let after = client.last_id();
    drop(client);
    let report = run.thinking(EventData::NONE);
    assert!(report.is_nobody, "nobody is there, and it is kept");

    let mut client = resume(&pool, &again(&ada), after);
    let _ = run.thinking(EventData::NONE);
    assert_eq!(client.read_some(1), ["thinking 3"]);
    let _ = run.complete(EventData::NONE);
    assert_eq!(client.read(), ["thinking 4", "completed 5"]);

    let mut twin = resume(&pool, &again(&ada), "0".parse().unwrap());
    assert_eq!(twin.read().len(), 5, "the bare number means the present numbering");
    let mut fresh = open(&pool, &again(&ada));
    assert!(fresh.read().is_empty(), "who does not ask gets nothing old");
}

#[test]
fn a_takeover_goes_on_where_the_old_connection_was() {
    let name = "golden-takeover";
    let pool: Pool = common::builder(name, 100).replay_events(100).build().unwrap();
    let ada = context("ada");
    let mut old = open(&pool, &ada);
    let mut run = pool.start_run(&ada, EventData::NONE);
    assert_eq!(old.read(), ["started 1"]);
    let _ = run.thinking(EventData::NONE); // queued for the old one, and not read by it
    let mut new = resume(&pool, &again(&ada), old.last_id());
    assert_eq!(old.lease.revoked().map(|why| why.reason()), Some(EndReason::Takeover));
    let _ = run.complete(EventData::NONE);
    assert_eq!(new.read(), ["thinking 2", "completed 3"]);
}

#[test]
fn what_was_not_kept_is_announced() {
    let pool = builder("golden-gap").replay_events(2).build().unwrap();
    let ada = context("ada");
    let mut run = pool.start_run(&ada, EventData::NONE);
    for _ in 2..=5 {
        let _ = run.thinking(EventData::NONE);
    }
    let mut client = resume(&pool, &ada, "1".parse().unwrap());
    assert_eq!(client.read(), ["gap 2-3", "thinking 4", "thinking 5"]);
    assert_eq!(client.seen[0]["id"].as_str().unwrap().split_once('-').unwrap().1, "3");
    let _ = run.thinking(EventData::NONE);
    assert_eq!(client.read(), ["thinking 6"]);
    assert_eq!(pool.snapshot().delivery.gaps, 1);
}

#[test]
fn without_replay_a_gap_is_announced_at_once() {
    let pool = builder("golden-off").build().unwrap();
    let ada = context("ada");
    let mut client = open(&pool, &ada);
    let mut run = pool.start_run(&ada, EventData::NONE);
    assert_eq!(client.read(), ["started 1"]);
    let after = client.last_id();
    drop(client);
    let _ = run.thinking(EventData::NONE);
    let mut client = resume(&pool, &again(&ada), after);
    assert_eq!(client.read(), ["gap 2-2"], "although nothing follows");
    let _ = run.thinking(EventData::NONE);
    assert_eq!(client.read(), ["thinking 3"]);
    let after = client.last_id();
    let mut client = resume(&pool, &again(&ada), after);
    assert!(client.read().is_empty(), "it has all there is");
}

#[test]
fn a_number_of_another_numbering_starts_over_and_says_so() {
    let pool = builder("golden-stream").replay_events(100).build().unwrap();
    let ada = context("ada");
    let other: EventId = "00000001-1".parse().unwrap();
    let mut client = resume(&pool, &ada, other);
    assert_eq!(client.read(), ["gap null-0"], "nothing is known of the thread");
    let mut run = pool.start_run(&ada, EventData::NONE);
    let _ = run.thinking(EventData::NONE);
    assert_eq!(client.read(), ["started 1", "thinking 2"]);
    for after in ["00000001-1", "7"] {
        let mut client = resume(&pool, &again(&ada), after.parse().unwrap());
        assert_eq!(client.read(), ["gap null-0", "started 1", "thinking 2"], "after {after}");
    }
}

#[test]
fn a_thread_of_another_user_with_the_same_name_has_its_own_numbers() {
    let pool = builder("golden-users").replay_events(100).build().unwrap();
    let ada = context("ada");
    let bob = context_on("bob", ada.thread_id().to_string().as_str());
    let mut run = pool.start_run(&ada, "secret");
    let _ = run.thinking("secret");
    let mut client = resume(&pool, &bob, "0".parse().unwrap());
    assert!(client.read().is_empty());
    drop(pool.start_run(&bob, EventData::NONE));
    assert_eq!(client.read(), ["started 1", "completed 2"]);
}

#[test]
fn an_event_that_a_full_queue_lost_is_announced() {
    for (policy, expected) in [
        (OverflowPolicy::DropNewest, ["started 1", "thinking 2", "gap 3-4"]),
        (OverflowPolicy::DropOldest, ["gap 1-2", "thinking 3", "thinking 4"]),
    ] {
        let limits = OutboundLimits::default().with_messages(2).with_overflow(policy);
        let pool = builder("golden-full").outbound(limits).build().unwrap();
        let ada = context("ada");
        let mut client = open(&pool, &ada);
        let mut run = pool.start_run(&ada, EventData::NONE);
        let reports = [(); 3].map(|()| run.thinking(EventData::NONE));
        match policy {
            OverflowPolicy::DropNewest => assert_eq!(reports.map(|report| report.full), [0, 1, 1]),
            _ => assert_eq!(reports.map(|report| report.displaced), [0, 1, 1]),
        }
        assert_eq!(client.read(), expected, "{policy:?}");
        let _ = run.thinking(EventData::NONE);
        assert_eq!(client.read(), ["thinking 5"]);
    }
}

#[test]
fn a_queue_that_overflows_ends_the_connection_and_its_client_asks_for_the_rest() {
    let limits = OutboundLimits::default().with_messages(2).with_overflow(OverflowPolicy::Disconnect);
    let pool = builder("golden-end").outbound(limits).replay_events(100).build().unwrap();
    let ada = context("ada");
    let mut client = open(&pool, &ada);
    let mut run = pool.start_run(&ada, EventData::NONE);
    assert_eq!(client.read(), ["started 1"]);
    assert_eq!([(); 3].map(|()| run.thinking(EventData::NONE).ended), [0, 0, 1]);
    assert_eq!(client.lease.revoked().map(|why| why.reason()), Some(EndReason::SlowConsumer));
    assert_eq!(pool.last_ends_of(ada.user_id())[0].reason, EndReason::SlowConsumer);
    let mut client = resume(&pool, &again(&ada), client.last_id());
    assert_eq!(
        client.read(),
        ["thinking 2", "thinking 3", "thinking 4"],
        "more than the queue holds at once"
    );
}

#[test]
fn a_replay_that_is_larger_than_the_queue_arrives_whole() {
    let limits = OutboundLimits::default().with_messages(3);
    let pool = builder("golden-long").outbound(limits).replay_events(1_000).build().unwrap();
    let ada = context("ada");
    let mut run = pool.start_run(&ada, EventData::NONE);
    for _ in 0..100 {
        let _ = run.thinking(EventData::NONE);
    }
    let mut client = resume(&pool, &ada, "0".parse().unwrap());
    let mut told = client.read_some(50);
    assert!(pool.inspect(client.lease.key(), |manager| manager.queued() <= 3).unwrap());
    assert_eq!(run.thinking(EventData::NONE).queued, 1, "on its way through the journal");
    assert!(pool.send(client.lease.key(), Message::from("between")).is_queued());
    told.extend(client.read());
    let events: Vec<_> = told.iter().filter(|text| *text != "between").collect();
    assert_eq!((events.len(), events[101].as_str()), (102, "thinking 102"));
    assert!(events.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn what_is_kept_is_bounded_for_the_pool_and_comes_back() {
    let name = "golden-bytes";
    let pool = builder(name).replay_events(100).replay_pool_bytes(1_000).build().unwrap();
    for user in 0..20 {
        let context = context(&format!("user-{user}"));
        let mut run = pool.start_run(&context, EventData::NONE);
        let _ = run.thinking(EventData::NONE);
        assert!(pool.snapshot().agents.replay_bytes <= 1_000);
    }
    assert!(pool.snapshot().agents.replay_bytes > 500);
}

#[test]
fn a_thread_without_run_or_connection_is_forgotten_after_its_time_and_not_before() {
    let (clock, hands) = Clock::manual();
    let pool = builder("golden-age").clock(clock).replay_events(100).idle_background(None).build().unwrap();
    let age = pool.config().replay_age;
    let (ada, bob, eve) = (context("ada"), context("bob"), context("eve"));
    let _run = pool.start_run(&ada, EventData::NONE);
    let mut connected = open(&pool, &bob);
    drop(pool.start_run(&bob, EventData::NONE));
    drop(pool.start_run(&eve, EventData::NONE));
    hands.advance(age);
    pool.maintain(pool.clock().now());
    assert_eq!(pool.snapshot().agents.threads, 3);
    hands.advance(Duration::from_millis(1));
    pool.maintain(pool.clock().now());
    let agents = pool.snapshot().agents;
    assert_eq!((agents.threads, agents.replay_bytes), (2, 0), "eve's is gone, and all events are too old");
    assert_eq!(connected.read(), ["started 1", "completed 2"]);
    drop(pool.start_run(&bob, EventData::NONE));
    assert_eq!(connected.read(), ["started 3", "completed 4"], "its numbers go on");
}

#[test]
fn a_run_protects_the_connections_of_its_thread_also_those_that_come_later() {
    let (clock, hands) = Clock::manual();
    let pool = builder("golden-protects").clock(clock).build().unwrap();
    let (ada, bob) = (context("ada"), context("bob"));
    let before = open(&pool, &ada);
    let run = pool.start_run(&ada, EventData::NONE);
    let (after, other) = (open(&pool, &again(&ada)), open(&pool, &bob));
    let is_running = |client: &Client| {
        let now = pool.clock().now();
        client.lease.with(|manager| manager.is_running(now)).unwrap()
    };
    assert!(is_running(&before) && is_running(&after) && !is_running(&other));
    hands.advance(pool.config().run_limit);
    assert!(!is_running(&before), "its time is over");
    let second = pool.start_run(&ada, EventData::NONE);
    assert!(is_running(&before) && is_running(&after));
    drop(run);
    assert!(is_running(&before), "the other goes on");
    drop(second);
    assert!(!is_running(&before) && !is_running(&after));
    drop((before, after, other));
    common::assert_counts(&pool, 0, 0, 0);
    assert_eq!(pool.snapshot().agents.runs, 0);
}

#[test]
fn events_of_many_threads_at_once_are_in_order_everywhere() {
    let pool = builder("golden-many")
        .replay_events(10_000)
        .outbound(OutboundLimits::default().with_messages(10_000));
    let pool = pool.build().unwrap();
    let ada = context("ada");
    let mut client = open(&pool, &ada);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut run = pool.start_run(&again(&ada), EventData::NONE);
                for _ in 0..200 {
                    let _ = run.thinking(EventData::NONE);
                }
            });
        }
        for _ in 0..50 {
            let mut late = resume(&pool, &again(&ada), "0".parse().unwrap());
            late.read();
            let numbers: Vec<_> = late.seen.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
            assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");
        }
    });
    client.read();
    let numbers = client.seen.iter().map(|event| event["seq"].as_u64().unwrap());
    assert!(numbers.eq(1..=3 * 202));
}
