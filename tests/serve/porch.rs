//! Sockets that have not said whose they are: so many at a time, and for so long.

use crate::support::{Count, PATIENCE};
use futures_util::FutureExt;
use futures_util::future::join_all;
use std::future::{Future, pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Barrier;
use tokio::task::yield_now;
use tokio::time::Instant;
use ws_manager_pool::serve::{HandshakeError, Porch, PorchFull};
use ws_manager_pool::{Config, Environment, Pool};

fn pool(name: &str, max_unauthenticated: usize) -> Pool<Count> {
    let mut config = Config::preset(Environment::Production);
    config.max_unauthenticated = max_unauthenticated;
    Pool::builder().config(config).name(name).build().unwrap()
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nobody waits for ever")
}

#[test]
fn one_too_many_is_refused_until_a_place_is_free() {
    let pool = pool("porch-full", 2);
    let porch = Porch::new(&pool);
    let first = porch.admit().unwrap();
    let second = porch.clone().admit().unwrap();
    assert_eq!(porch.unauthenticated(), 2);
    let full = Porch::new(&pool).admit().unwrap_err();
    assert_eq!(full.max_unauthenticated, 2);
    assert_eq!(HandshakeError::<PorchFull>::from(full), HandshakeError::PorchFull(full));
    drop(first);
    let third = porch.admit().unwrap();
    drop((second, third));
    assert_eq!(pool.unauthenticated(), 0);
}

#[tokio::test]
async fn a_handshake_leaves_the_porch_whatever_its_outcome() {
    let porch = Porch::new(&pool("porch-outcome", 1));
    let shaken = porch.admit().unwrap().handshake(ready(Ok::<_, &str>("hello"))).await;
    assert_eq!(shaken, Ok("hello"));
    let failed = porch.admit().unwrap().handshake(ready(Err::<(), _>("no"))).await;
    assert_eq!(failed, Err(HandshakeError::Failed("no")));
    assert_eq!(porch.unauthenticated(), 0);
    let cancelled = porch.admit().unwrap().handshake(pending::<Result<(), ()>>()).now_or_never();
    assert_eq!(cancelled, None);
    assert_eq!(porch.unauthenticated(), 0);
    drop(porch.admit().unwrap().handshake(pending::<Result<(), ()>>())); // never polled
    assert_eq!(porch.unauthenticated(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_as_long_as_a_reservation() {
    let porch = Porch::new(&pool("porch-slow", 1));
    let begun = Instant::now();
    let slow = porch.admit().unwrap().handshake(pending::<Result<(), ()>>()).await;
    let deadline = Duration::from_secs(10);
    assert_eq!(slow, Err(HandshakeError::TooSlow { deadline }));
    assert_eq!((begun.elapsed(), porch.unauthenticated()), (deadline, 0));
}

#[test]
fn those_who_wait_get_in_in_their_order_and_nobody_overtakes_them() {
    let porch = Porch::new(&pool("porch-order", 1));
    let inside = porch.admit().unwrap();
    let mut first = Box::pin(porch.admit_wait());
    let mut second = Box::pin(porch.admit_wait());
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    drop(inside);
    assert!(porch.admit().is_err(), "somebody waits for that place");
    assert!(second.as_mut().now_or_never().is_none(), "it is not its turn");
    let inside = first.as_mut().now_or_never().unwrap();
    drop(inside);
    drop(second.as_mut().now_or_never().unwrap());
    assert_eq!(porch.unauthenticated(), 0);
}

#[tokio::test]
async fn whoever_gives_up_waiting_passes_its_place_on() {
    let porch = Porch::new(&pool("porch-cancelled", 1));
    let inside = porch.admit().unwrap();
    let mut first = Box::pin(porch.admit_wait());
    assert!(first.as_mut().now_or_never().is_none());
    let second = tokio::spawn(porch.admit_wait());
    yield_now().await;
    drop(inside); // wakes the first one
    drop(first); // which does not come
    drop(in_time(second).await.unwrap());
    drop(porch.admit().unwrap());
}

#[tokio::test]
async fn a_raised_bound_lets_those_in_who_wait() {
    let pool = pool("porch-raised", 1);
    assert!(pool.spawn_maintenance());
    let porch = Porch::new(&pool);
    let _inside = porch.admit().unwrap();
    let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(porch.admit_wait())).collect();
    yield_now().await;
    let mut config = Config::clone(&pool.config());
    config.max_unauthenticated = 4;
    pool.reconfigure(config).unwrap();
    let inside = in_time(join_all(waiting)).await;
    assert_eq!(porch.unauthenticated(), 4);
    drop(inside);
}

/// Many threads come, wait, give up and go as they like.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn there_are_never_too_many_and_nobody_is_forgotten() {
    const MOST: usize = 3;
    let porch = Porch::new(&pool("porch-crowd", MOST));
    let inside = Arc::new(AtomicUsize::new(0));
    let start = Arc::new(Barrier::new(16));
    let visitors = (0..16_usize).map(|visitor| {
        let (porch, inside, start) = (porch.clone(), inside.clone(), start.clone());
        tokio::spawn(async move {
            start.wait().await;
            for turn in 0..300_usize {
                let place = match (visitor + turn) % 4 {
                    0 => porch.admit().ok(),
                    1 => {
                        let mut waiting = Box::pin(porch.admit_wait());
                        let place = waiting.as_mut().now_or_never();
                        yield_now().await;
                        place // or it gives up here, woken or not
                    }
                    _ => Some(porch.admit_wait().await),
                };
                if place.is_some() {
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < MOST);
                    yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
                drop(place);
            }
        })
    });
    for visitor in in_time(join_all(visitors)).await {
        visitor.unwrap();
    }
    assert_eq!(porch.unauthenticated(), 0);
}
