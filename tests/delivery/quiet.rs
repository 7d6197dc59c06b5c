//! A server that only tells its clients their keys. All else is sent from outside.

use crate::letter::Whose;
use crate::log::{Lived, Log, Moment};
use crate::net::{Buffers, Client, Heard, Host, PATIENCE};
use crate::{builder, context};
use std::net::SocketAddr;
use std::sync::Arc;
use ws_manager_pool::serve::{Application, CloseReport, Connection, HandlerError, Received};
use ws_manager_pool::{
    ManagerKey, Message, OutboundLimits, Pool, PoolBuilder, Reservation, ReserveError, UserExecutionContext,
};

pub(crate) struct Quiet {
    pub(crate) pool: Pool,
    pub(crate) log: Log,
}

impl Quiet {
    /// On a pool that gives its clients all the time they want.
    pub(crate) fn new(
        name: &str,
        capacity: usize,
        limits: OutboundLimits,
        more: impl FnOnce(PoolBuilder<()>) -> PoolBuilder<()>,
    ) -> Arc<Self> {
        let builder = builder(name, capacity)
            .outbound(limits)
            .heartbeat_interval(10 * PATIENCE)
            .reservation_deadline(10 * PATIENCE)
            .close_timeout(PATIENCE);
        Arc::new(Self { pool: more(builder).build().unwrap(), log: Log::default() })
    }

    /// A client of a user and a thread, once it has been welcomed.
    pub(crate) async fn arrive(&self, address: SocketAddr, user: usize, thread: usize) -> (Client, Lived) {
        let path = format!("user{user}/thread_{thread}");
        let mut client = Client::connect(address, &path, Buffers::Small).await;
        let Heard::Text(text) = client.hear().await else { panic!("no welcome") };
        let bits = text.strip_prefix("welcome ").expect("a welcome comes first");
        let key = ManagerKey::from_bits(bits.parse().unwrap());
        let mut life = Lived::new(Whose { user, thread, key });
        life.hear(&text);
        (client, life)
    }

    /// The last message of all, to everybody who is there.
    pub(crate) fn say_the_last(&self) {
        let live = self.pool.snapshot().live;
        let last = self.pool.broadcast(Message::from(LAST));
        assert_eq!((last.queued, last.addressed()), (live, live), "{last:?}");
        self.log.also_broadcast(last.queued);
    }
}

pub(crate) const LAST: &str = "last";

impl Application for Quiet {
    type Session = ();

    async fn received(&self, _: &mut Connection<'_, ()>, _: Received<'_>) -> Result<(), HandlerError> {
        Err(HandlerError::new("nobody says anything here"))
    }
}

impl Host for Quiet {
    fn reserve(&self, path: &str) -> Result<Reservation, ReserveError> {
        let (user, thread) = path.split_once('/').unwrap();
        self.pool.reserve(&context(user, thread))
    }

    fn moment(&self) -> Moment {
        self.log.moment()
    }

    fn opened(&self, key: ManagerKey, _: &UserExecutionContext, opening: Moment) {
        self.log.opened(key, opening);
        // Nothing is sent to it before: so it is the first that the client hears.
        let welcome = Message::text(format!("welcome {}", key.to_bits()));
        self.log.also_sent(&self.pool.send(key, welcome));
    }

    fn over(&self, report: &CloseReport) {
        self.log.over(report);
    }
}
