//! A handler that has much to say waits for its peer.

use crate::scripted::{Remote, Scripted};
use crate::support::{PATIENCE, context, eventually};
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::task::{ArcWake, waker};
use futures_util::{FutureExt, StreamExt};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;
use tokio::task::yield_now;
use ws_manager_pool::serve::{Application, CloseReport, Connection, Frame, HandlerError, Received, serve};
use ws_manager_pool::{Config, EndReason, Environment, Lease, Message, Pool};

/// Says so many messages as soon as it is connected, in one of several ways.
#[derive(Clone, Copy)]
enum Talkative {
    /// One after the other.
    Alone(usize),
    /// By so many producers side by side, each polled only when it is woken itself.
    Unordered(usize, usize),
    /// The same by `join_all`.
    Joined(usize, usize),
    /// Begins to wait again and again, and gives up each time for something that is ready.
    Selecting(usize),
}

/// For one that sends without looking, so that a loss would be seen.
async fn say(conn: &Connection<'_, ()>, text: String) -> Result<(), HandlerError> {
    match conn.send(Message::text(text)).is_queued() {
        true => Ok(()),
        false => Err(HandlerError::new("there was room, and the message was refused")),
    }
}

async fn produce(conn: &Connection<'_, ()>, producer: usize, count: usize) -> Result<(), HandlerError> {
    for number in 0..count {
        conn.room().await?;
        say(conn, format!("{producer} {number}")).await?;
    }
    Ok(())
}

impl Application for Talkative {
    type Session = ();

    async fn connected(&self, conn: &mut Connection<'_, ()>) -> Result<(), HandlerError> {
        let conn: &Connection<'_, ()> = conn;
        match *self {
            Self::Alone(count) => produce(conn, 0, count).await,
            Self::Unordered(producers, count) => {
                let mut running: FuturesUnordered<_> =
                    (0..producers).map(|producer| produce(conn, producer, count)).collect();
                while let Some(outcome) = running.next().await {
                    outcome?;
                }
                Ok(())
            }
            Self::Joined(producers, count) => {
                let running = (0..producers).map(|producer| produce(conn, producer, count));
                join_all(running).await.into_iter().collect()
            }
            Self::Selecting(count) => {
                for number in 0..count {
                    loop {
                        let mut room = pin!(conn.room().fuse());
                        futures_util::select_biased! {
                            room = room => break room?,
                            () = yield_now().fuse() => {}
                        }
                    }
                    say(conn, format!("0 {number}")).await?;
                }
                Ok(())
            }
        }
    }

    async fn received(&self, _: &mut Connection<'_, ()>, _: Received<'_>) -> Result<(), HandlerError> {
        Ok(())
    }
}

fn open(name: &str) -> (Pool, Lease) {
    let mut config = Config::preset(Environment::Production);
    config.outbound = config.outbound.with_messages(16);
    let pool: Pool = Pool::builder().config(config).name(name).build().unwrap();
    let lease = pool.reserve(&context("ada", None)).unwrap().open().unwrap();
    (pool, lease)
}

/// The peer reads one frame at a time, and now and then pauses.
async fn hears_everything(name: &str, app: Talkative, producers: usize, count: usize) {
    let (pool, lease) = open(name);
    let key = lease.key();
    let (socket, remote) = Scripted::new();
    remote.stops_reading();
    let reading = async {
        while remote.heard().len() < producers * count {
            assert!(pool.inspect(key, |manager| manager.queued()).is_none_or(|queued| queued <= 16));
            if !remote.reads_one() {
                yield_now().await;
            }
        }
        remote.says(Frame::Close(None));
        while remote.reads_one() || pool.inspect(key, |_| ()).is_some() {
            yield_now().await;
        }
        remote.hangs_up();
        while remote.reads_one() {}
    };
    let both = async { tokio::join!(serve(socket, lease, app), reading).0 };
    let report: CloseReport = tokio::time::timeout(PATIENCE, both).await.expect("no wake is lost");
    assert_eq!(report.reason, EndReason::Closed, "{report:?}");
    let mut next = vec![0; producers];
    for frame in remote.heard() {
        let Frame::Text(text) = frame else { continue };
        let text = String::from_utf8(text.to_vec()).unwrap();
        let (producer, number) = text.split_once(' ').unwrap();
        let next = &mut next[producer.parse::<usize>().unwrap()];
        assert_eq!(number, next.to_string(), "in order, and none is missing");
        *next += 1;
    }
    assert_eq!(next, vec![count; producers]);
}

#[tokio::test]
async fn a_producer_loses_nothing_to_a_slow_peer() {
    hears_everything("room-alone", Talkative::Alone(2_000), 1, 2_000).await;
}

#[tokio::test]
async fn neither_do_several_in_one_handler_whose_wakers_differ() {
    hears_everything("room-unordered", Talkative::Unordered(4, 500), 4, 500).await;
    hears_everything("room-joined", Talkative::Joined(4, 500), 4, 500).await;
}

#[tokio::test]
async fn neither_does_one_that_begins_to_wait_again_and_again() {
    hears_everything("room-select", Talkative::Selecting(500), 1, 500).await;
}

#[derive(Default)]
struct Count(AtomicUsize);

impl ArcWake for Count {
    fn wake_by_ref(this: &Arc<Self>) {
        this.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls as long as it is woken.
fn settle(serving: &mut std::pin::Pin<&mut impl Future<Output = CloseReport>>, wakes: &Arc<Count>) -> usize {
    let waker = waker(wakes.clone());
    for polls in 1..1_000 {
        let before = wakes.0.load(Ordering::Relaxed);
        assert!(serving.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        if wakes.0.load(Ordering::Relaxed) == before {
            return polls;
        }
    }
    panic!("it wakes itself for ever");
}

#[tokio::test]
async fn whoever_waits_for_room_sleeps() {
    for app in [Talkative::Alone(100), Talkative::Unordered(3, 100)] {
        let (pool, lease) = open("room-asleep");
        let key = lease.key();
        let (socket, remote): (_, Remote) = Scripted::new();
        remote.stops_reading();
        let wakes = Arc::new(Count::default());
        let mut serving = pin!(serve(socket, lease, app));
        settle(&mut serving, &wakes);
        let queued = || pool.inspect(key, |manager| manager.queued()).unwrap();
        assert!(queued() > 4, "it is above its low water");
        let before = wakes.0.load(Ordering::Relaxed);
        yield_now().await;
        assert_eq!(wakes.0.load(Ordering::Relaxed), before, "nothing wakes it");
        // Down to the low water, and up again.
        let heard = remote.heard().len();
        while remote.reads_one() {
            settle(&mut serving, &wakes);
            if remote.heard().len() > heard + 20 {
                break;
            }
        }
        assert!(remote.heard().len() > heard + 20, "it went on");
    }
}

#[tokio::test]
async fn the_end_of_the_lease_ends_the_waiting() {
    let (pool, lease) = open("room-revoked");
    let key = lease.key();
    let (socket, remote) = Scripted::new();
    remote.stops_reading();
    let serving = tokio::spawn(serve(socket, lease, Talkative::Unordered(3, 1_000)));
    eventually("it waits", || pool.inspect(key, |manager| manager.queued()) > Some(4)).await;
    pool.evict(key, EndReason::Operator).unwrap();
    remote.hangs_up();
    while !serving.is_finished() {
        remote.reads_one();
        yield_now().await;
    }
    assert_eq!(serving.await.unwrap().reason, EndReason::Operator);
}
