//! A socket on which nothing moves delays nobody but itself, and that not for ever. In virtual time: both
//! the runtime's and the pool's clock are moved by the tests, in step.

use crate::scripted::{Remote, Scripted};
use crate::support::{Count, Obedient, context};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use ws_manager_pool::serve::{CloseReport, Frame, serve};
use ws_manager_pool::{Clock, Config, EndReason, Environment, ManagerKey, ManualClock, Message, Pool};

const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(10);

struct Line {
    pool: Pool<Count>,
    key: ManagerKey,
    remote: Remote,
    serving: JoinHandle<CloseReport>,
    hand: ManualClock,
}

impl Line {
    /// A connection that is being served and whose handler is idle.
    async fn open(name: &str) -> Self {
        let (clock, hand) = Clock::manual();
        let mut config = Config::preset(Environment::Production);
        config.close_timeout = CLOSE_TIMEOUT;
        config.outbound = config.outbound.with_messages(1_000);
        let pool = Pool::builder().config(config).name(name).clock(clock).build().unwrap();
        let lease = pool.reserve(&context("ada", None)).unwrap().open().unwrap();
        let key = lease.key();
        let (socket, remote) = Scripted::new();
        let serving = tokio::spawn(serve(socket, lease, Obedient::new().0));
        let mut line = Self { pool, key, remote, serving, hand };
        line.pass(STEP).await;
        line
    }

    /// Time passes, in the pool and in the runtime.
    async fn pass(&mut self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end && !self.serving.is_finished() {
            self.hand.advance(STEP);
            sleep(STEP).await;
        }
    }

    fn says(&self, text: &str) {
        self.remote.says(Frame::Text(text.to_owned().into()));
    }

    /// The peer reads nothing any more, and more is queued for it than its line takes.
    async fn block(&mut self) {
        self.remote.stops_reading();
        for _ in 0..100 {
            assert!(self.pool.send(self.key, Message::from("too much")).is_queued());
        }
        self.pass(STEP).await;
        assert!(self.pool.inspect(self.key, |manager| manager.queued()) > Some(0), "it is blocked");
    }

    fn is_free(&self) -> bool {
        let ledger = self.pool.ledger();
        ledger.balanced && (ledger.leases, ledger.occupied_slots) == (0, 0)
    }

    /// The task ends in exactly the time that the peer is given for its answer.
    async fn ends_after_the_close_timeout(mut self) -> CloseReport {
        assert!(self.is_free(), "before anybody is waited for");
        let begun = Instant::now();
        self.pass(2 * CLOSE_TIMEOUT).await;
        let took = begun.elapsed();
        assert!(took <= CLOSE_TIMEOUT + 2 * STEP, "the goodbye took {took:?}");
        self.serving.await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn an_eviction_takes_effect_at_once_although_nothing_can_be_written() {
    let mut line = Line::open("blocked-evicted").await;
    line.block().await;
    line.pool.evict(line.key, EndReason::Operator).unwrap();
    let report = line.ends_after_the_close_timeout().await;
    assert_eq!((report.reason, report.close_code), (EndReason::Operator, 4002));
}

#[tokio::test(start_paused = true)]
async fn and_also_although_a_handler_is_pending() {
    let mut line = Line::open("blocked-handler").await;
    line.says("hang");
    line.pass(STEP).await;
    line.block().await;
    line.pool.evict(line.key, EndReason::Takeover).unwrap();
    let report = line.ends_after_the_close_timeout().await;
    assert_eq!((report.reason, report.close_code), (EndReason::Takeover, 4001));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_and_does_not_read_is_slow_and_can_be_evicted_all_the_same() {
    let mut line = Line::open("blocked-asking").await;
    line.block().await;
    for _ in 0..100 {
        line.remote.says(Frame::Ping("".into())); // each has an answer that waits
    }
    line.pass(Duration::from_secs(1)).await;
    line.pool.evict(line.key, EndReason::Operator).unwrap();
    assert_eq!(line.ends_after_the_close_timeout().await.reason, EndReason::Operator);

    let mut line = Line::open("blocked-slow").await;
    line.block().await;
    for _ in 0..100 {
        line.remote.says(Frame::Ping("".into()));
    }
    let patience = Duration::from_secs(20 + 10);
    let mut waited = Duration::ZERO;
    while !line.is_free() {
        line.pass(STEP).await;
        waited += STEP;
        assert!(waited <= patience + Duration::from_secs(2), "interval and timeout, and a tick");
    }
    assert_eq!(line.ends_after_the_close_timeout().await.reason, EndReason::SlowConsumer);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_not_answered_is_given_up() {
    let mut line = Line::open("blocked-close").await;
    line.says("close");
    line.pass(STEP).await;
    let remote = line.remote.clone();
    let report = line.ends_after_the_close_timeout().await;
    assert_eq!((report.reason, remote.close_code()), (EndReason::Closed, Some(1000)));
}

#[tokio::test(start_paused = true)]
async fn a_close_that_can_not_be_written_is_given_up() {
    let mut line = Line::open("blocked-last-words").await;
    line.block().await;
    line.says("fail");
    line.pass(STEP).await;
    assert_eq!(line.ends_after_the_close_timeout().await.reason, EndReason::HandlerError);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_and_does_not_read_the_answer_is_not_waited_for() {
    let mut line = Line::open("blocked-answer").await;
    line.block().await;
    line.remote.says(Frame::Close(None));
    line.pass(STEP).await;
    assert_eq!(line.ends_after_the_close_timeout().await.reason, EndReason::Closed);
}

/// It is gone without a word: what is written disappears, and nothing ever comes.
#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_closed_within_interval_and_timeout() {
    for is_blocked in [false, true] {
        let mut line = Line::open("blocked-half-open").await;
        if is_blocked {
            line.block().await;
        }
        let opened = line.pool.inspect(line.key, |manager| manager.opened_at()).unwrap();
        let (early, late) = (Duration::from_secs(29), Duration::from_secs(30 + 2));
        while !line.is_free() {
            line.pass(STEP).await;
        }
        // By the pool's clock. The keeper's ticks add up to a second each to ping and to deadline.
        let alive = line.pool.clock().now().since(opened);
        assert!(alive >= early && alive <= late, "{alive:?}");
        let remote = line.remote.clone();
        let report = line.ends_after_the_close_timeout().await;
        assert_eq!((report.reason, report.close_code), (EndReason::Heartbeat, 4005));
        assert_eq!(remote.close_code(), if is_blocked { None } else { Some(4005) });
    }
}
