//! Pools of both kinds, and what the tests say again and again.

use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use ws_manager_pool::testing::FakePool;
use ws_manager_pool::{
    Alert, BuildError, Clock, End, Environment, IdGenerator, ManagerLease, ManagerPool, ManagerReservation,
    ManualClock, Message, Observer, Pool, PoolBuilder, Pressure, ReserveError, Revoked, Session,
    UserExecutionContext, UserId,
};

/// Makes one of the two.
pub(crate) trait Kind {
    type Of<S: Session>: ManagerPool<Session = S>;

    fn build<S: Session>(builder: PoolBuilder<S>) -> Result<Self::Of<S>, BuildError>;
}

pub(crate) struct Real;

impl Kind for Real {
    type Of<S: Session> = Pool<S>;

    #[track_caller]
    fn build<S: Session>(builder: PoolBuilder<S>) -> Result<Pool<S>, BuildError> {
        builder.build()
    }
}

pub(crate) struct Double;

impl Kind for Double {
    type Of<S: Session> = FakePool<S>;

    #[track_caller]
    fn build<S: Session>(builder: PoolBuilder<S>) -> Result<FakePool<S>, BuildError> {
        builder.build_fake()
    }
}

pub(crate) fn context(user: &str, thread: &str) -> UserExecutionContext {
    let ids = IdGenerator::user_context_ids(user, "test").with_client_thread(thread).unwrap();
    UserExecutionContext::from_websocket_request(user, ids).unwrap()
}

pub(crate) fn user(user: &str) -> UserId {
    UserId::new(user).unwrap()
}

pub(crate) fn builder<S: Session>(capacity: usize, per_user: usize) -> PoolBuilder<S> {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    Pool::<S>::builder()
        .name(format!("conformance-{}", NAMES.fetch_add(1, Ordering::Relaxed)))
        .environment(Environment::Ci)
        .capacity(capacity)
        .max_managers_per_user(per_user)
}

pub(crate) fn with_clock<K: Kind>(builder: PoolBuilder) -> (K::Of<()>, ManualClock) {
    let (clock, hand) = Clock::manual();
    (K::build(builder.clock(clock)).unwrap(), hand)
}

pub(crate) fn make<K: Kind>(capacity: usize, per_user: usize) -> K::Of<()> {
    K::build(builder(capacity, per_user)).unwrap()
}

#[track_caller]
pub(crate) fn connect<P: ManagerPool>(pool: &P, user: &str, thread: &str) -> P::Lease {
    pool.reserve(&context(user, thread)).unwrap().open().unwrap()
}

#[track_caller]
pub(crate) fn assert_empty(pool: &impl ManagerPool) {
    let snapshot = pool.snapshot();
    let ledger = &snapshot.ledger;
    assert!(ledger.balanced, "{ledger:?}");
    assert_eq!((snapshot.live, snapshot.reserved, snapshot.users, snapshot.outbound_bytes), (0, 0, 0, 0));
    assert_eq!((ledger.leases, ledger.users_sum, ledger.occupied_slots, ledger.isolation_keys), (0, 0, 0, 0));
    assert_eq!(snapshot.free, snapshot.capacity);
}

pub(crate) fn texts(lease: &mut impl ManagerLease) -> Vec<String> {
    std::iter::from_fn(|| lease.next_message().unwrap())
        .map(|message| message.as_text().unwrap().to_owned())
        .collect()
}

#[derive(Default)]
pub(crate) struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Bell {
    pub(crate) fn rings(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

pub(crate) fn poll<F: Future + Unpin>(future: &mut F, bell: &Arc<Bell>) -> Poll<F::Output> {
    let waker = Waker::from(bell.clone());
    Pin::new(future).poll(&mut Context::from_waker(&waker))
}

pub(crate) fn poll_message<L: ManagerLease>(
    lease: &mut L,
    bell: &Arc<Bell>,
) -> Poll<Result<Message, Revoked>> {
    let waker = Waker::from(bell.clone());
    lease.poll_message(&mut Context::from_waker(&waker))
}

#[track_caller]
pub(crate) fn served<P: ManagerPool>(wait: &mut P::ReserveWait) -> Result<P::Reservation, ReserveError> {
    match poll(wait, &Arc::default()) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("it was not served"),
    }
}

/// An observer that writes down what it hears.
#[derive(Clone, Default)]
pub(crate) struct Ear(Arc<Mutex<Heard>>);

#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) alerts: Vec<Alert>,
    pub(crate) ends: Vec<End>,
    pub(crate) pressures: Vec<Pressure>,
}

impl Observer for Ear {
    fn alert(&self, alert: &Alert) {
        self.0.lock().alerts.push(alert.clone());
    }

    fn pressure(&self, pressure: &Pressure) {
        self.0.lock().pressures.push(pressure.clone());
    }

    fn ended(&self, end: &End) {
        self.0.lock().ends.push(end.clone());
    }
}

impl Ear {
    /// What it has heard since the last call.
    pub(crate) fn take(&self) -> Heard {
        std::mem::take(&mut self.0.lock())
    }
}
