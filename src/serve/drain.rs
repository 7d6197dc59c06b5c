//! Ending all connections of a pool before the server ends.

use crate::manager::{Session, contain};
use crate::pool::{DrainReport, EvictionWalk, Pool};
use crate::reason::EndReason;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};

/// Ends a pool's service: takes no new connections, ends all with code 1001, those included whose
/// handshake is under way, and waits until every serving task has said goodbye. What is still queued for
/// a connection is not sent. The pool takes no connections afterwards.
///
/// Awaited as it is, it keeps to the configured `drain_rate` and `drain_timeout`: connections end at that
/// rate, so that they do not come back elsewhere all at once, or faster, if half of the time would not do
/// for all. When the time is over the report says how many tasks have not come back; they are not waited
/// for. See [`Drain`] for other numbers and for progress, which is also in [`Pool::drain_progress`].
///
/// ```
/// # async fn example(pool: ws_manager_pool::Pool) {
/// use ws_manager_pool::serve::drain;
///
/// let report = drain(&pool).on_progress(|so_far| println!("{so_far:?}")).await;
/// if report.remaining > 0 {
///     eprintln!("{} connections hang", report.remaining);
/// }
/// # }
/// ```
///
/// # Together with axum's shutdown
///
/// hyper's graceful shutdown does not wait for sockets that were upgraded, and stops accepting. Drain
/// first, then let it begin: other requests are answered meanwhile, a health check among them, and whoever
/// asks for an upgrade gets 503.
///
/// ```
/// # #[cfg(feature = "axum")]
/// # async fn example(
/// #     listener: tokio::net::TcpListener,
/// #     router: axum::Router,
/// #     pool: ws_manager_pool::Pool,
/// #     asked_to_stop: impl std::future::Future<Output = ()> + Send + 'static,
/// # ) -> std::io::Result<()> {
/// use ws_manager_pool::serve::drain;
///
/// let shutdown = async move {
///     asked_to_stop.await;
///     drain(&pool).await;
/// };
/// axum::serve(listener, router).with_graceful_shutdown(shutdown).await
/// # }
/// ```
pub fn drain<S: Session>(pool: &Pool<S>) -> Drain<S> {
    Drain { pool: pool.clone(), rate: None, timeout: None, on_progress: Box::new(|_| ()) }
}

/// A drain to be awaited. Dropped while it is awaited it ends nobody any more; the pool goes on refusing
/// new connections, and another [`drain()`] does the rest.
#[must_use = "nothing is drained before it is awaited"]
pub struct Drain<S: Session> {
    pool: Pool<S>,
    rate: Option<usize>,
    timeout: Option<Duration>,
    on_progress: Box<dyn FnMut(&DrainReport) + Send>,
}

impl<S: Session> Drain<S> {
    /// Connections to end in a second, instead of the configured `drain_rate`. At least 1.
    pub fn rate(mut self, connections: usize) -> Self {
        self.rate = Some(connections);
        self
    }

    /// How long it may take, instead of the configured `drain_timeout`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// What to call with the figures: at the beginning, whenever they have changed, some times a second, and
    /// at the end. Keep it short.
    pub fn on_progress(mut self, call: impl FnMut(&DrainReport) + Send + 'static) -> Self {
        self.on_progress = Box::new(call);
        self
    }

    async fn run(mut self) -> DrainReport {
        if !fault!("drain_admits") {
            self.pool.start_drain();
        }
        let config = self.pool.config();
        let timeout = self.timeout.unwrap_or(config.drain_timeout);
        let pace = Pace::new(self.rate.unwrap_or(config.drain_rate), timeout, self.pool.occupied());
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let begun = ticks.tick().await;
        let mut now = begun;
        let served = self.pool.served();
        let mut walk = EvictionWalk::default();
        let mut last = DrainReport::default();
        let mut is_first = true;
        loop {
            let elapsed = now - begun;
            let is_late = elapsed >= timeout;
            let due = pace.due_by(elapsed).saturating_sub(last.evicted);
            let now_due = if is_late { due } else { due.min(BURST) };
            let ended = if self.pool.occupied() > 0 {
                self.pool.evict_some(&mut walk, now_due, EndReason::Drain)
            } else {
                0
            };
            let remaining = self.pool.serving();
            let report = DrainReport {
                evicted: last.evicted + ended,
                finished: self.pool.served().wrapping_sub(served),
                remaining,
                elapsed_ms: elapsed.as_millis() as u64,
                is_over: is_late || (remaining == 0 && self.pool.occupied() == 0),
            };
            let has_changed =
                (last.evicted, last.finished, last.remaining) != (report.evicted, report.finished, remaining);
            last = report;
            self.pool.note_drain(report);
            if has_changed || is_first || report.is_over {
                is_first = false;
                // A panic is reported by the panic hook. The connections are not to suffer for it.
                let _ = contain(|| (self.on_progress)(&report));
            }
            if report.is_over {
                return report;
            }
            if ended >= BURST {
                yield_now().await; // there are more
            } else {
                now = ticks.tick().await;
            }
        }
    }
}

impl<S: Session> IntoFuture for Drain<S> {
    type Output = DrainReport;
    type IntoFuture = Pin<Box<dyn Future<Output = DrainReport> + Send>>;

    /// # Panics
    ///
    /// The future, if polled outside of a Tokio runtime with its timer enabled.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<S: Session> fmt::Debug for Drain<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, rate, timeout, .. } = self;
        f.debug_struct("Drain")
            .field("pool", pool)
            .field("rate", rate)
            .field("timeout", timeout)
            .finish_non_exhaustive()
    }
}

/// Looks again after so long.
const PAUSE: Duration = Duration::from_millis(10);

/// Connections that are ended before others on the same thread have their turn.
const BURST: usize = 256;

/// How many connections are to be ended by when.
struct Pace {
    per_second: f64,
    /// From then on, all.
    all_after: Duration,
}

impl Pace {
    fn new(rate: usize, timeout: Duration, connections: usize) -> Self {
        let all_after = timeout / 2;
        let needed = connections as f64 / all_after.as_secs_f64().max(f64::EPSILON);
        Self { per_second: needed.max(rate as f64), all_after }
    }

    fn due_by(&self, elapsed: Duration) -> usize {
        if elapsed >= self.all_after {
            return usize::MAX;
        }
        // The first one at once.
        (self.per_second * elapsed.as_secs_f64()) as usize + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_paced_and_faster_if_half_of_its_time_would_not_do() {
        let seconds = Duration::from_secs_f64;
        let leisurely = Pace::new(100, seconds(30.0), 200);
        assert_eq!(leisurely.due_by(seconds(0.0)), 1);
        assert_eq!(leisurely.due_by(seconds(1.0)), 101);
        assert_eq!(leisurely.due_by(seconds(15.0)), usize::MAX, "whoever opened late");
        let hurried = Pace::new(100, seconds(30.0), 30_000);
        assert_eq!(hurried.due_by(seconds(7.5)), 15_001);
        let at_once = Pace::new(100, seconds(0.0), 10);
        assert_eq!(at_once.due_by(seconds(0.0)), usize::MAX);
    }
}
