//! The task may be cancelled at every await of `serve`, in the middle of whatever else happens.

use crate::scripted::{Remote, Scripted};
use crate::support::context;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use tokio::task::yield_now;
use ws_manager_pool::serve::{Application, CloseReport, Connection, Frame, HandlerError, Received, serve};
use ws_manager_pool::{Config, DuplicatePolicy, EndReason, Environment, Message, Pool, Session};

/// Awaits and sends a lot.
#[derive(Clone, Default)]
struct Restless {
    closed: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Scratch(Vec<u8>);

impl Session for Scratch {
    fn reset(&mut self) {
        self.0.clear();
    }
}

impl Application for Restless {
    type Session = Scratch;

    async fn connected(&self, conn: &mut Connection<'_, Scratch>) -> Result<(), HandlerError> {
        let _ = conn.send(Message::from("welcome"));
        yield_now().await;
        conn.room().await?;
        Ok(())
    }

    async fn received(
        &self,
        conn: &mut Connection<'_, Scratch>,
        message: Received<'_>,
    ) -> Result<(), HandlerError> {
        conn.with_session(|scratch| scratch.0.extend_from_slice(message.as_bytes()))?;
        for _ in 0..3 {
            let _ = conn.send(message.to_message());
            yield_now().await;
        }
        conn.room().await?;
        match message.as_text() {
            Some("fail") => Err(HandlerError::new("as commanded")),
            Some("panic") => panic!("as commanded"),
            Some("close") => {
                conn.close();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn closed(&self, _: &CloseReport) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

struct Story {
    name: &'static str,
    /// What the peer says, before its last words.
    says: &'static [&'static str],
    ends: fn(&Remote),
    reason: Option<EndReason>,
}

const STORIES: &[Story] = &[
    Story {
        name: "the peer closes",
        says: &["one", "two"],
        ends: |remote| remote.says(Frame::Close(None)),
        reason: Some(EndReason::Closed),
    },
    Story {
        name: "the socket ends",
        says: &["one", "two"],
        ends: |remote| remote.hangs_up(),
        reason: Some(EndReason::SocketError),
    },
    Story {
        name: "the application closes",
        says: &["one", "close"],
        ends: |remote| remote.says(Frame::Close(None)),
        reason: Some(EndReason::Closed),
    },
    Story {
        name: "the handler fails",
        says: &["fail"],
        ends: |remote| remote.says(Frame::Close(None)),
        reason: Some(EndReason::HandlerError),
    },
    Story {
        name: "the handler panics",
        says: &["one", "panic"],
        ends: |remote| remote.says(Frame::Close(None)),
        reason: Some(EndReason::HandlerPanic),
    },
];

fn pool(name: &str) -> Pool<Scratch> {
    let mut config = Config::preset(Environment::Ci);
    config.duplicates = DuplicatePolicy::Allow;
    Pool::builder().config(config).name(name).build().unwrap()
}

/// Polls the serving of a story up to `polls` times, then drops it. The report, if it came to its end.
async fn serve_for(
    pool: &Pool<Scratch>,
    story: &Story,
    evicted_at: Option<usize>,
    polls: usize,
) -> Option<CloseReport> {
    let lease = pool.reserve(&context("ada", None)).unwrap().open().unwrap();
    let key = lease.key();
    let (socket, remote) = Scripted::new();
    for text in story.says {
        remote.says(Frame::Text((*text).into()));
        remote.says(Frame::Ping("".into()));
    }
    (story.ends)(&remote);
    if evicted_at.is_some() {
        remote.hangs_up(); // so that the goodbye comes to an end
    }
    let app = Restless::default();
    let closed = app.closed.clone();
    let mut report = None;
    {
        let mut serving = pin!(serve(socket.hesitating(), lease, app));
        for poll in 0..polls {
            if evicted_at == Some(poll) {
                // Late: it was over before.
                let _ = pool.evict(key, EndReason::Operator);
            }
            let _ = pool.send(key, Message::from("from elsewhere"));
            if let Poll::Ready(ended) = poll_fn(|cx| Poll::Ready(serving.as_mut().poll(cx))).await {
                report = Some(ended);
                break;
            }
            yield_now().await;
        }
    }
    let ledger = pool.ledger();
    let what = format!("{}, evicted at {evicted_at:?}, {polls} polls: {ledger:#?}", story.name);
    assert!(ledger.balanced, "{what}");
    let left = (ledger.leases, ledger.users_sum, ledger.isolation_keys, ledger.occupied_slots);
    assert_eq!(left, (0, 0, 0, 0), "{what}");
    assert_eq!(pool.snapshot().outbound_bytes, 0, "{what}");
    assert_eq!(closed.load(Ordering::Relaxed), usize::from(polls > 0), "closed once: {what}");
    report
}

/// A story that goes on for longer has lost its way.
const MANY: usize = 1_000;

#[tokio::test]
async fn a_task_that_is_cancelled_at_any_await_leaves_nothing() {
    let pool = pool("cancelled");
    for story in STORIES {
        let mut polls = 0;
        let report = loop {
            match serve_for(&pool, story, None, polls).await {
                Some(report) => break report,
                None => polls += 1,
            }
            assert!(polls < MANY, "{} does not come to its end", story.name);
        };
        assert!(polls >= 10, "{}: {polls} awaits are too few to be a test", story.name);
        assert_eq!(Some(report.reason), story.reason, "{}", story.name);
    }
}

#[tokio::test]
async fn nor_does_one_that_is_evicted_before() {
    let pool = pool("cancelled-evicted");
    for story in STORIES {
        // Evicted before each poll of the whole story, and cancelled after each later one.
        for evicted_at in 0.. {
            let mut polls = evicted_at + 1;
            let report = loop {
                match serve_for(&pool, story, Some(evicted_at), polls).await {
                    Some(report) => break report,
                    None => polls += 1,
                }
                assert!(polls < MANY, "{} does not come to its end", story.name);
            };
            if report.reason != EndReason::Operator {
                assert_eq!(Some(report.reason), story.reason, "the eviction came late");
                break;
            }
        }
    }
}
