//! What the pool tells those who keep it running: read line by line, as a subscriber hears it.

mod common;

use common::{assert_counts, builder, context};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::NoSubscriber;
use tracing::{Event, Level, Metadata, Subscriber};
use ws_manager_pool::{
    Clock, Config, DuplicatePolicy, End, EndReason, IdGenerator, Lease, ManualClock, Message, Observer, Pool,
    ReserveError, Scope, SweepPolicy, UserExecutionContext, UserId,
};

/// Lines of one kind that a second takes.
const LIMIT: usize = 100;

const SECOND: Duration = Duration::from_secs(1);

/// Longer than an idle manager lives in the tests' pools.
const LONG: Duration = Duration::from_secs(130);

/// One line: its fields as text, the message among them.
#[derive(Clone, Debug)]
struct Line {
    level: Level,
    target: String,
    fields: BTreeMap<&'static str, String>,
}

impl Line {
    /// A field's text; empty if the line has none of this name.
    fn of(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }

    fn is(&self, message: &str) -> bool {
        self.of("message") == message
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

/// A subscriber that keeps every line, and then does what a test wants done by foreign code.
struct Ear {
    lines: Arc<Mutex<Vec<Line>>>,
    also: Box<dyn Fn() + Send + Sync>,
}

impl Subscriber for Ear {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let target = event.metadata().target().to_owned();
        let mut line = Line { level: *event.metadata().level(), target, fields: BTreeMap::new() };
        event.record(&mut line);
        self.lines.lock().push(line);
        (self.also)();
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The lines that this thread hears while `f` runs, in order.
fn heard(f: impl FnOnce()) -> Vec<Line> {
    heard_and(|| {}, f)
}

fn heard_and(also: impl Fn() + Send + Sync + 'static, f: impl FnOnce()) -> Vec<Line> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let ear = Ear { lines: lines.clone(), also: Box::new(also) };
    // While a scoped subscriber is the only one, another thread that meets a call site first marks it as of
    // interest to nobody. With a second one, however deaf, everybody is asked.
    static SECOND_ONE: OnceLock<()> = OnceLock::new();
    SECOND_ONE.get_or_init(|| {
        let is_set = tracing::subscriber::set_global_default(NoSubscriber::new());
        is_set.expect("nobody else sets one");
    });
    tracing::subscriber::with_default(ear, f);
    let lines = std::mem::take(&mut *lines.lock());
    assert!(lines.iter().all(|line| line.target == "ws_manager_pool"), "{lines:#?}");
    lines
}

fn with_message<'a>(lines: &'a [Line], message: &str) -> Vec<&'a Line> {
    lines.iter().filter(|line| line.is(message)).collect()
}

/// The one line that says this.
#[track_caller]
fn the<'a>(lines: &'a [Line], message: &str) -> &'a Line {
    let found = with_message(lines, message);
    assert_eq!(found.len(), 1, "{message:?} in {lines:#?}");
    found[0]
}

/// The line has these fields, and this level.
#[track_caller]
fn assert_line(line: &Line, level: Level, fields: &[(&str, &str)]) {
    assert_eq!(line.level, level, "{line:#?}");
    for (field, text) in fields {
        assert_eq!(line.of(field), *text, "{field} of {line:#?}");
    }
}

fn open(pool: &Pool, context: &UserExecutionContext) -> Lease {
    pool.reserve(context).expect("a place").open().expect("a lease")
}

/// So many connections of a user, each on a thread of its own.
fn open_many(pool: &Pool, user: &str, count: usize) -> Vec<Lease> {
    (0..count).map(|_| open(pool, &context(user, None))).collect()
}

/// The pool of most tests: its clock stands still but for the hand.
fn still(name: &str, capacity: usize) -> (Pool, ManualClock) {
    let (clock, hand) = Clock::manual();
    (builder(name, capacity).clock(clock).build().expect("a valid pool"), hand)
}

#[test]
fn a_connection_is_told_at_its_beginning_and_at_its_end() {
    let (pool, hand) = still("log-connection", 10);
    let context = context("ada", "thread_7");
    let lines = heard(|| {
        let lease = open(&pool, &context);
        hand.advance(SECOND * 3);
        lease.close(EndReason::SocketError).expect("live");
    });
    let run = context.run_id().to_string();
    let who = [("pool", "log-connection"), ("isolation_key", "ada:thread_7"), ("run", run.as_str())];
    let opened = the(&lines, "connection opened");
    assert_line(opened, Level::INFO, &who);
    assert_line(opened, Level::INFO, &[("cause", "fresh")]);
    let closed = the(&lines, "connection closed");
    assert_line(closed, Level::INFO, &who);
    assert_line(closed, Level::INFO, &[("cause", "socket_error"), ("seconds", "3.0")]);
    assert_eq!(lines.len(), 2, "{lines:#?}");
}

#[test]
fn a_takeover_tells_the_old_connection_s_end_and_the_new_one_s_cause() {
    let (pool, _hand) = still("log-takeover", 10);
    let (first, second) = (context("ada", "thread_7"), context("ada", "thread_7"));
    let lines = heard(|| {
        let _old = open(&pool, &first);
        let _new = open(&pool, &second);
    });
    let (old_run, new_run) = (first.run_id().to_string(), second.run_id().to_string());
    let ended = the(&lines, "connection cleaned up");
    assert_line(ended, Level::INFO, &[("isolation_key", "ada:thread_7"), ("run", &old_run)]);
    assert_line(ended, Level::INFO, &[("cause", "takeover")]);
    let opened = with_message(&lines, "connection opened");
    assert_line(opened[1], Level::INFO, &[("run", &new_run), ("cause", "takeover")]);
}

#[test]
fn a_refusal_is_told_with_its_user_and_cause_to_those_who_debug() {
    let (pool, _hand) = still("log-refused", 10);
    pool.set_user_limit(&UserId::new("ada").expect("valid"), Some(1));
    let _only = open(&pool, &context("ada", None));
    let lines = heard(|| {
        let refused = pool.reserve(&context("ada", None)).expect_err("at the limit");
        assert!(matches!(refused, ReserveError::UserFull { .. }));
        pool.start_drain();
        let waits = pin!(pool.reserve_wait(&context("eve", None)));
        assert!(waits.poll(&mut Context::from_waker(Waker::noop())).is_ready(), "refused at once");
    });
    let refused = with_message(&lines, "reservation refused");
    assert_eq!(refused.len(), 2, "{lines:#?}");
    assert_line(refused[0], Level::DEBUG, &[("user", "ada"), ("cause", "user_full")]);
    assert_line(refused[1], Level::DEBUG, &[("user", "eve"), ("cause", "draining")]);
}

#[test]
fn a_proactive_clean_tells_whom_it_cleaned_and_why() {
    let (pool, hand) = still("log-proactive", 20);
    let dead: Vec<_> = (0..12).map(|_| context("ada", None)).collect();
    let _leases: Vec<_> = dead.iter().map(|context| open(&pool, context)).collect();
    hand.advance(LONG);
    let lines = heard(|| drop(open(&pool, &context("ada", None))));
    let cleaned = with_message(&lines, "connection cleaned up");
    assert_eq!(cleaned.len(), dead.len(), "{lines:#?}");
    for context in &dead {
        let key = context.isolation_key().to_string();
        let line = cleaned.iter().find(|line| line.of("isolation_key") == key).expect("told");
        let run = context.run_id().to_string();
        assert_line(line, Level::INFO, &[("run", &run), ("cause", "idle")]);
    }
    let sweep = the(&lines, "sweep done");
    assert_line(sweep, Level::INFO, &[("operation", "proactive"), ("cleaned", "12"), ("users", "1")]);
}

/// Each end takes the clock's hand a tenth of a second on.
struct SlowEnds(ManualClock);

impl Observer for SlowEnds {
    fn ended(&self, _: &End) {
        self.0.advance(Duration::from_millis(100));
    }
}

#[test]
fn an_emergency_clean_that_ends_in_time_warns_once_and_informs_once() {
    let (pool, hand) = still("log-emergency", 100);
    let _leases = open_many(&pool, "ada", 10);
    hand.advance(LONG);
    let ada = UserId::new("ada").expect("valid");
    let lines = heard(|| {
        let report = pool.sweep(Scope::User(&ada), SweepPolicy::Emergency, pool.clock().now(), SECOND);
        assert_eq!(report.cleaned, 10);
    });
    assert_line(the(&lines, "emergency clean begins"), Level::WARN, &[("user", "ada")]);
    let attempt = the(&lines, "emergency clean attempted");
    assert_line(attempt, Level::INFO, &[("user", "ada"), ("attempt", "1"), ("cleaned", "10")]);
    let sweep = the(&lines, "sweep done");
    assert_line(sweep, Level::INFO, &[("operation", "emergency"), ("cleaned", "10"), ("users", "1")]);
    assert!(lines.iter().all(|line| line.level != Level::ERROR && !line.is("emergency clean timed out")));
}

#[test]
fn an_emergency_clean_warns_at_each_time_out_and_errs_after_the_third() {
    let (clock, hand) = Clock::manual();
    let observer = SlowEnds(hand.clone());
    let pool: Pool = builder("log-timeout", 300).clock(clock).observer(observer).build().expect("valid");
    let _leases = open_many(&pool, "ada", 300);
    hand.advance(LONG);
    let ada = UserId::new("ada").expect("valid");
    let lines = heard(|| {
        let report = pool.sweep(Scope::User(&ada), SweepPolicy::Emergency, pool.clock().now(), SECOND);
        assert_eq!((report.cleaned, report.attempts), (192, 3), "the budget is looked at after each 64");
    });
    let told: Vec<_> = lines.iter().filter(|line| line.of("message").starts_with("emergency")).collect();
    let expected = [
        ("emergency clean begins", Level::WARN, "", ""),
        ("emergency clean attempted", Level::INFO, "1", "6.4"),
        ("emergency clean timed out", Level::WARN, "1", "6.4"),
        ("emergency clean attempted", Level::INFO, "2", "12.8"),
        ("emergency clean timed out", Level::WARN, "2", "12.8"),
        ("emergency clean attempted", Level::INFO, "3", "19.2"),
        ("emergency clean timed out", Level::WARN, "3", "19.2"),
        ("emergency clean failed", Level::ERROR, "", "19.2"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (line, (message, level, attempt, seconds)) in told.into_iter().zip(expected) {
        let fields = [("message", message), ("user", "ada"), ("attempt", attempt), ("seconds", seconds)];
        assert_line(line, level, &fields);
    }
}

#[test]
fn an_emergency_of_the_whole_pool_is_told_without_a_user() {
    let (pool, hand) = still("log-pool-emergency", 10);
    let _leases: Vec<_> = (0..9).map(|user| open(&pool, &context(&format!("user-{user}"), None))).collect();
    for user in 0..9 {
        pool.set_user_limit(&UserId::new(format!("user-{user}")).expect("valid"), Some(10));
    }
    hand.advance(LONG);
    let lines = heard(|| drop(pool.maintain(pool.clock().now())));
    let alert = the(&lines, "alert");
    assert_line(
        alert,
        Level::WARN,
        &[("level", "emergency"), ("user", ""), ("count", "9"), ("ratio", "0.9")],
    );
    assert_line(the(&lines, "emergency clean begins"), Level::WARN, &[("user", "")]);
    let attempt = the(&lines, "emergency clean attempted");
    assert_line(attempt, Level::INFO, &[("user", ""), ("attempt", "1"), ("cleaned", "9")]);
}

#[test]
fn a_background_round_tells_how_many_of_how_many_users_it_cleaned() {
    let (pool, hand) = still("log-background", 100);
    let _leases: Vec<_> = ["ada", "eve", "joe"].map(|user| open_many(&pool, user, 2)).into();
    hand.advance(LONG);
    let lines = heard(|| drop(pool.maintain(pool.clock().now())));
    let round = the(&lines, "sweep done");
    assert_line(round, Level::INFO, &[("operation", "background"), ("cleaned", "6"), ("users", "3")]);
    assert_eq!(round.of("seconds"), "0.0");
    assert_eq!(with_message(&lines, "connection cleaned up").len(), 6);

    hand.advance(LONG);
    let lines = heard(|| drop(pool.maintain(pool.clock().now())));
    let round = the(&lines, "nothing to sweep");
    assert_line(round, Level::DEBUG, &[("operation", "background"), ("cleaned", "0"), ("users", "0")]);
}

#[test]
fn a_rising_level_warns_and_a_falling_one_informs() {
    let (pool, hand) = still("log-levels", 1_000);
    pool.set_user_limit(&UserId::new("ada").expect("valid"), Some(20));
    let mut leases = open_many(&pool, "ada", 8);
    let sample = || {
        hand.advance(SECOND * 5);
        heard(|| drop(pool.maintain(pool.clock().now())))
    };
    let quiet = sample();
    let info = [("level", "info"), ("from", "normal"), ("user", "ada"), ("count", "8"), ("ratio", "0.4")];
    assert_line(the(&quiet, "level changed"), Level::INFO, &info);

    leases.extend(open_many(&pool, "ada", 4));
    let lines = heard(|| leases.push(open(&pool, &context("ada", None))));
    let risen = [("level", "warning"), ("user", "ada"), ("count", "12"), ("max", "20"), ("ratio", "0.6")];
    assert_line(the(&lines, "alert"), Level::WARN, &risen);

    leases.truncate(10);
    let lines = sample();
    let fallen = [("level", "info"), ("from", "warning"), ("user", "ada"), ("count", "10"), ("ratio", "0.5")];
    assert_line(the(&lines, "level changed"), Level::INFO, &fallen);

    leases.clear();
    let lines = sample();
    let gone = [("level", "normal"), ("from", "info"), ("user", "ada"), ("count", "0"), ("ratio", "0.0")];
    assert_line(the(&lines, "level changed"), Level::INFO, &gone);
}

#[test]
fn a_mismatch_is_told_with_both_keys() {
    let (pool, _hand) = still("log-mismatch", 10);
    let _lease = open(&pool, &context("ada", "thread_real"));
    let lines = heard(|| {
        let wrong = context("ada", "thread_made_twice");
        let report = pool.cleanup_manager_by_context(&wrong, EndReason::Closed);
        assert_eq!(report.cleaned, 0);
    });
    let mismatch = the(&lines, "id mismatch");
    let keys = [("named", "ada:thread_made_twice"), ("live", "ada:thread_real")];
    assert_line(mismatch, Level::WARN, &keys);
}

#[test]
fn a_drain_and_a_change_of_the_configuration_are_told_once() {
    let (pool, _hand) = still("log-operators", 10);
    let lines = heard(|| {
        let mut config = Config::clone(&pool.config());
        config.max_managers_per_user = 3;
        assert_eq!(pool.reconfigure(config).expect("valid").number, 2);
        assert_eq!(pool.rollback_config().expect("an earlier one").number, 1);
        pool.start_drain();
        pool.start_drain();
    });
    assert_line(the(&lines, "configuration replaced"), Level::INFO, &[("version", "2")]);
    assert_line(the(&lines, "configuration rolled back"), Level::INFO, &[("version", "1")]);
    assert_line(the(&lines, "drain begun"), Level::INFO, &[("pool", "log-operators")]);
}

#[test]
fn no_line_holds_the_content_of_a_message() {
    const MARKER: &str = "c0ffee-that-nobody-may-log";
    let (pool, hand) = still("log-content", 20);
    let lines = heard(|| {
        let mut leases = open_many(&pool, "ada", 14);
        let ada = UserId::new("ada").expect("valid");
        for _ in 0..100 {
            let _ = pool.send_to_user(&ada, Message::from(MARKER)); // more than the queues take
        }
        let _ = pool.broadcast(Message::from(MARKER.as_bytes().to_vec()));
        let _ = pool.send_to_thread(&context("ada", "thread_none").isolation_key(), Message::from(MARKER));
        let read = leases[0].next_message().expect("live").expect("queued");
        assert_eq!(read.as_text(), Some(MARKER));
        leases.truncate(12);
        pool.evict(leases[1].key(), EndReason::SlowConsumer).expect("live");
        let now = |by| {
            hand.advance(by);
            pool.clock().now()
        };
        drop(pool.maintain(now(SECOND)));
        drop(pool.sweep(Scope::User(&ada), SweepPolicy::Emergency, now(LONG), SECOND));
        drop(pool.maintain(now(LONG)));
    });
    for message in ["connection closed", "connection cleaned up", "id mismatch", "emergency clean attempted"]
    {
        assert!(!with_message(&lines, message).is_empty(), "{message:?} is not among those looked at");
    }
    let with_content: Vec<_> = lines.iter().filter(|line| format!("{line:?}").contains(MARKER)).collect();
    assert!(with_content.is_empty(), "{with_content:#?}");
}

#[test]
fn ten_thousand_connects_in_a_second_are_a_hundred_lines_and_one_that_counts_the_rest() {
    let (clock, hand) = Clock::manual();
    let pool = builder("log-flood", 20_000).clock(clock).duplicates(DuplicatePolicy::Allow);
    let pool: Pool = pool.build().expect("valid");
    let connect = |user: usize| open(&pool, &context(&format!("user-{user}"), None));
    let mut leases = Vec::new();
    let lines = heard(|| leases.extend((0..10_000).map(connect)));
    assert_eq!(with_message(&lines, "connection opened").len(), LIMIT);
    assert!(with_message(&lines, "lines left out").is_empty(), "the second is not over");

    hand.advance(SECOND);
    let lines = heard(|| leases.extend((10_000..10_010).map(connect)));
    let rest = [("kind", "connection opened"), ("lines", "9900"), ("pool", "log-flood")];
    assert_line(the(&lines, "lines left out"), Level::INFO, &rest);
    assert_eq!(with_message(&lines, "connection opened").len(), 10);
}

#[test]
fn what_was_left_out_is_told_by_maintenance_if_no_further_line_comes() {
    let (pool, hand) = still("log-settled", 1_000);
    let _lease = open(&pool, &context("ada", None));
    let lines = heard(|| {
        let wrong = context("ada", "thread_none").isolation_key();
        for _ in 0..LIMIT + 23 {
            let _ = pool.send_to_thread(&wrong, Message::from("hello"));
        }
        hand.advance(SECOND);
        drop(pool.maintain(pool.clock().now()));
        hand.advance(SECOND);
        drop(pool.maintain(pool.clock().now()));
    });
    assert_eq!(with_message(&lines, "id mismatch").len(), LIMIT);
    let rest = [("kind", "id mismatch"), ("lines", "23")];
    assert_line(the(&lines, "lines left out"), Level::WARN, &rest);
}

#[test]
fn an_error_is_never_left_out() {
    let (pool, hand) = still("log-errors", 22_000);
    let _leases = open_many(&pool, "ada", 22_000);
    hand.advance(LONG);
    let ada = UserId::new("ada").expect("valid");
    let cleans = LIMIT + 10;
    let lines = heard(|| {
        for _ in 0..cleans {
            // Without any time each of the three attempts ends the 64 between two looks at the budget.
            let now = pool.clock().now();
            let report = pool.sweep(Scope::User(&ada), SweepPolicy::Emergency, now, Duration::ZERO);
            assert_eq!(report.cleaned, 192);
        }
    });
    assert_eq!(with_message(&lines, "emergency clean begins").len(), LIMIT);
    assert_eq!(lines.iter().filter(|line| line.level == Level::ERROR).count(), cleans);
}

#[test]
fn a_subscriber_that_panics_harms_nobody() {
    let (pool, hand) = still("log-panic", 20);
    let panics = || panic!("a subscriber of no use");
    let lines = heard_and(panics, || {
        let lease = open(&pool, &context("ada", None));
        let mut others = open_many(&pool, "eve", 3);
        others.pop().expect("three").close(EndReason::Closed).expect("live");
        drop(lease);
        hand.advance(LONG);
        let maintained = pool.maintain(pool.clock().now());
        assert_eq!(maintained.panics, 0);
        assert!(others.iter().all(|lease| !lease.is_live()), "swept all the same");
    });
    assert!(lines.len() > 6, "{lines:#?}");
    assert_counts(&pool, 0, 0, 0);
}

/// A subscriber is foreign code: a line that was told under one of the pool's locks would hang here.
#[test]
fn a_subscriber_may_call_the_pool() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let shared: Arc<OnceLock<Pool>> = Arc::default();
        let (pool, hand) = still("log-calls", 20);
        let pool = shared.get_or_init(|| pool).clone();
        let calls = move || {
            let pool = shared.get().expect("set before the first line");
            let ada = UserId::new("ada").expect("valid");
            let _ = (pool.check_user(&ada), pool.snapshot(), pool.ledger(), pool.keys_of(&ada));
            let waits = pin!(pool.reserve_wait(&context("ada", None)));
            drop(waits.poll(&mut Context::from_waker(Waker::noop())));
        };
        let lines = heard_and(calls, || everything(&pool, &hand));
        for message in [
            "connection opened",
            "connection closed",
            "connection cleaned up",
            "reservation refused",
            "id mismatch",
            "alert",
            "level changed",
            "sweep done",
            "nothing to sweep",
            "emergency clean begins",
            "emergency clean attempted",
            "configuration replaced",
            "configuration rolled back",
            "drain begun",
        ] {
            assert!(!with_message(&lines, message).is_empty(), "{message:?} was not told: {lines:#?}");
        }
        done.send(()).expect("somebody waits");
    });
    is_done.recv_timeout(Duration::from_secs(60)).expect("neither hung nor failed");
}

/// Brings about every kind of line that needs no broken code.
fn everything(pool: &Pool, hand: &ManualClock) {
    let ada = UserId::new("ada").expect("valid");
    let mut leases = open_many(pool, "ada", 13);
    leases.push(open(pool, &context("ada", "thread_7")));
    leases.push(open(pool, &context("ada", "thread_7")));
    let _ = pool.send_to_thread(&context("ada", "thread_none").isolation_key(), Message::from("hello"));
    leases.extend(open_many(pool, "ada", 6));
    {
        let waits = pin!(pool.reserve_wait(&context("ada", None)));
        assert!(waits.poll(&mut Context::from_waker(Waker::noop())).is_pending(), "the pool is full");
        assert!(pool.reserve(&context("eve", None)).is_err(), "and somebody waits");
        pool.evict(leases[0].key(), EndReason::Operator).expect("live");
    }
    hand.advance(SECOND * 5);
    drop(pool.maintain(pool.clock().now()));
    drop(pool.sweep(Scope::User(&ada), SweepPolicy::Emergency, pool.clock().now(), SECOND));
    hand.advance(LONG);
    drop(pool.maintain(pool.clock().now()));
    leases.clear();
    drop(open(pool, &context("ada", None)));
    hand.advance(LONG);
    drop(pool.maintain(pool.clock().now()));
    let config = Config::clone(&pool.config());
    drop(pool.reconfigure(config).expect("valid"));
    drop(pool.rollback_config().expect("an earlier one"));
    pool.start_drain();
}

#[test]
fn a_user_id_is_a_field_and_never_a_format() {
    let (pool, _hand) = still("log-format", 10);
    let ids = IdGenerator::user_context_ids("{} %s {0:?} \\", "test");
    let context = UserExecutionContext::from_websocket_request("{} %s {0:?} \\", ids).expect("opaque");
    let lines = heard(|| drop(open(&pool, &context)));
    let key = context.isolation_key().to_string();
    assert!(key.starts_with("{} %s {0:?} \\:thread_"));
    assert_eq!(the(&lines, "connection opened").of("isolation_key"), key);
    assert_eq!(the(&lines, "connection closed").of("isolation_key"), key);
}
