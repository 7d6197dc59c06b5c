//! What a review found once, each with the test that showed it.

mod common;

use bytes::Bytes;
use common::{builder, context};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;
use ws_manager_pool::{Clock, EndReason, Message, OpenError, Pool};

/// A payload whose drop panics.
struct Spite;

impl AsRef<[u8]> for Spite {
    fn as_ref(&self) -> &[u8] {
        b"spite"
    }
}

impl Drop for Spite {
    fn drop(&mut self) {
        panic!("a payload panics when it is dropped");
    }
}

struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics");
    }
}

#[test]
fn a_lease_in_the_garbage_of_another_crate_is_no_deadlock() {
    let pool: Pool = builder("garbage", 4_000).build().unwrap();
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..2_000 {
            let Ok(reservation) = pool.reserve(&context("ada", None)) else { continue };
            let lease = reservation.open().unwrap();
            // The process-wide collector runs this inside anybody's pin.
            crossbeam_epoch::pin().defer(move || drop(lease));
        }
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).expect("nothing blocks");
}

#[test]
fn an_owner_learns_why_after_maintenance_too() {
    let pool: Pool = builder("why", 2_000).max_managers_per_user(2_000).build().unwrap();
    let open = |n| pool.reserve(&context("ada", format!("thread_{n}").as_str())).unwrap().open().unwrap();
    let leases: Vec<_> = (0..2_000).map(open).collect();
    for lease in &leases {
        pool.evict(lease.key(), EndReason::Drain).unwrap();
    }
    pool.maintain(pool.clock().now());
    assert!(leases.iter().all(|lease| lease.revoked().unwrap().reason() == EndReason::Drain));
}

#[test]
fn a_payload_that_panics_takes_no_bytes_with_it() {
    let pool: Pool = builder("payload", 4).build().unwrap();
    let lease = pool.reserve(&context("ada", None)).unwrap().open().unwrap();
    lease.connected().unwrap();
    lease.closing().unwrap();
    let send = || pool.send(lease.key(), Message::binary(Bytes::from_owner(Spite)));
    let sent = catch_unwind(AssertUnwindSafe(send));
    assert!(sent.is_ok_and(|outcome| !outcome.is_queued()));
    assert_eq!(pool.snapshot().outbound_bytes, 0);
}

#[test]
fn a_waker_that_panics_keeps_no_message_from_others() {
    let pool: Pool = builder("waker", 4).build().unwrap();
    let waker = Waker::from(Arc::new(PanickingWaker));
    let mut leases: Vec<_> =
        ["ada", "bob"].map(|user| pool.reserve(&context(user, None)).unwrap().open().unwrap()).into();
    for lease in &mut leases {
        assert!(lease.poll_message(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(pool.broadcast(Message::from("hello")).queued, 2);
}

#[test]
fn a_late_open_says_so_without_a_sweep() {
    let (clock, hand) = Clock::manual();
    let pool: Pool = builder("late", 2).clock(clock).build().unwrap();
    let late = pool.reserve(&context("ada", None)).unwrap();
    hand.advance(Duration::from_secs(3_600));
    assert_eq!(late.open().unwrap_err(), OpenError::Expired);

    let live = pool.reserve(&context("ada", "thread_7")).unwrap().open().unwrap();
    let other = pool.reserve(&context("bob", None)).unwrap().open().unwrap();
    let late_claim = pool.reserve(&context("ada", "thread_7")).unwrap();
    hand.advance(Duration::from_secs(3_600));
    assert_eq!(late_claim.open().unwrap_err(), OpenError::Expired);
    assert!(live.is_live() && other.is_live(), "a claim that is late harms nobody");
    common::assert_counts(&pool, 2, 0, 0);
}

#[test]
fn a_waiter_takes_over_its_own_thread_wherever_it_stands_in_line() {
    let pool: Pool = builder("own-thread", 1).build().unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let first = pool.reserve(&context("ada", "thread_1")).unwrap();
    let mut stranger = pin!(pool.reserve_wait(&context("eve", None)));
    let mut waiter = pin!(pool.reserve_wait(&context("ada", "thread_1")));
    assert!(stranger.as_mut().poll(&mut cx).is_pending());
    assert!(waiter.as_mut().poll(&mut cx).is_pending(), "there is nothing to take over yet");
    let live = first.open().unwrap();
    assert!(waiter.as_mut().poll(&mut cx).is_ready(), "now there is");
    assert!(stranger.as_mut().poll(&mut cx).is_pending());
    drop(live);
}

#[cfg(feature = "serve")]
mod drains {
    use super::{builder, context};
    use bytes::Bytes;
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier};
    use std::task::Waker;
    use std::task::{Context, Poll};
    use ws_manager_pool::serve::{
        Application, Connection, Fault, Frame, HandlerError, Received, Transport, application, drain, serve,
    };
    use ws_manager_pool::{Clock, Message, Pool};

    /// A socket on which nothing comes and everything goes.
    struct Void;

    impl Transport for Void {
        fn poll_recv(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame, Fault>>> {
            Poll::Pending
        }

        fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
            Poll::Ready(Ok(()))
        }

        fn start_send(self: Pin<&mut Self>, _: Frame) -> Result<(), Fault> {
            Ok(())
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A peer that reads nothing.
    struct Wall;

    impl Transport for Wall {
        fn poll_recv(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame, Fault>>> {
            Poll::Pending
        }

        fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
            Poll::Pending
        }

        fn start_send(self: Pin<&mut Self>, _: Frame) -> Result<(), Fault> {
            Err(Fault::Socket)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
            Poll::Pending
        }
    }

    /// Says something and fails.
    struct Failing;

    impl Application for Failing {
        type Session = ();

        async fn connected(&self, conn: &mut Connection<'_, ()>) -> Result<(), HandlerError> {
            assert!(conn.send(Message::from("last words")).is_queued());
            Err(HandlerError::new("no more"))
        }

        async fn received(&self, _: &mut Connection<'_, ()>, _: Received<'_>) -> Result<(), HandlerError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn last_words_stay_in_the_budget_while_they_are_in_memory() {
        let pool: Pool = builder("last-words", 4).build().unwrap();
        let lease = pool.reserve(&context("ada", None)).unwrap().open().unwrap();
        let mut serving = Box::pin(serve(Wall, lease, Failing));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(serving.as_mut().poll(&mut cx).is_pending());
        let snapshot = pool.snapshot();
        assert_eq!((snapshot.live, snapshot.outbound_bytes), (0, "last words".len()));
        drop(serving);
        assert_eq!(pool.snapshot().outbound_bytes, 0);
    }

    /// A peer that pings without end and reads no answer. Counts what was read from it.
    struct Flood(Arc<AtomicUsize>);

    impl Transport for Flood {
        fn poll_recv(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame, Fault>>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Poll::Ready(Some(Ok(Frame::Ping(Bytes::from_static(&[0; 125])))))
        }

        fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
            Poll::Ready(Ok(()))
        }

        fn start_send(self: Pin<&mut Self>, _: Frame) -> Result<(), Fault> {
            Ok(())
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn who_pings_and_reads_no_answers_fills_no_memory_and_is_ended() {
        let (clock, hand) = Clock::manual();
        let pool: Pool = builder("flood", 4).clock(clock).build().unwrap();
        let lease = pool.reserve(&context("ada", None)).unwrap().open().unwrap();
        let read = Arc::new(AtomicUsize::new(0));
        let mut serving = Box::pin(serve(Flood(read.clone()), lease, application(|_, _| Ok(()))));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..1_000 {
            assert!(serving.as_mut().poll(&mut cx).is_pending());
        }
        assert!(read.load(Ordering::SeqCst) < 100, "{read:?} frames were read");
        hand.advance(pool.config().heartbeat_interval + pool.config().heartbeat_timeout);
        assert!(serving.as_mut().poll(&mut cx).is_pending(), "the close frame waits like the rest");
        assert_eq!(pool.ledger().tally.ends_by_reason.get("slow_consumer"), Some(&1));
    }

    #[tokio::test]
    async fn a_connection_whose_task_has_not_run_yet_is_waited_for() {
        let pool: Pool = builder("not-run-yet", 4).build().unwrap();
        let lease = pool.reserve(&context("ada", None)).unwrap().open().unwrap();
        let serving = serve(Void, lease, application(|_, _| Ok(())));
        assert_eq!(drain(&pool).await.remaining, 1);
        drop(serving);
        assert_eq!(drain(&pool).await.remaining, 0);
    }

    #[tokio::test]
    async fn nothing_opens_after_a_drain_has_returned() {
        for round in 0..500_usize {
            let pool: Pool = builder(&format!("drained-{round}"), 4).build().unwrap();
            let (start, is_drained) = (Arc::new(Barrier::new(4)), Arc::new(AtomicBool::new(false)));
            let threads: Vec<_> = ["ada", "bob", "eve"]
                .map(|user| {
                    let (pool, start, is_drained) = (pool.clone(), start.clone(), is_drained.clone());
                    std::thread::spawn(move || {
                        start.wait();
                        (0..round * 7 % 300).for_each(|_| std::hint::spin_loop());
                        let reservation = pool.reserve(&context(user, None)).ok();
                        is_drained.load(Ordering::SeqCst)
                            && reservation.is_some_and(|reservation| reservation.open().is_ok())
                    })
                })
                .into();
            start.wait();
            drain(&pool).await;
            is_drained.store(true, Ordering::SeqCst);
            let late = threads.into_iter().map(|thread| thread.join().unwrap());
            assert_eq!(late.filter(|&opened| opened).count(), 0, "in round {round}");
        }
    }
}
