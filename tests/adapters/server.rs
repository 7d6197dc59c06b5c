//! A server for one test: a pool with narrow limits, a library in front of it.

use crate::actix_door;
use crate::client::{Client, PATIENCE};
use crate::doors::{self, Adapter, Way};
use actix_web::dev::ServerHandle;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use ws_manager_pool::{Config, EndReason, Environment, Pool, Verdict};

/// Bytes of the largest message that is read, and of the largest frame.
pub(crate) const MESSAGE: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    Axum,
    Tungstenite,
    TokioWebsockets,
    Fastwebsockets,
    Generic,
    Actix,
    LeanTungstenite,
    LeanAxum,
    Own,
    OwnUnderAxum,
}

pub(crate) struct Server {
    pub(crate) pool: Pool,
    address: SocketAddr,
    _accepting: JoinSet<()>,
    actix: Option<ServerHandle>,
}

impl Server {
    pub(crate) async fn start(library: Library) -> Self {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let pool = Pool::builder().name(test).config(narrow()).build().unwrap();
        let mut accepting = JoinSet::new();
        let (adapter, way) = match library {
            Library::Axum => (Adapter::Axum, Way::One),
            Library::Tungstenite => (Adapter::Tungstenite, Way::One),
            Library::TokioWebsockets => (Adapter::TokioWebsockets, Way::One),
            Library::Fastwebsockets => (Adapter::Fastwebsockets, Way::One),
            Library::Generic => (Adapter::Generic, Way::One),
            Library::LeanTungstenite => (Adapter::Tungstenite, Way::Two),
            Library::LeanAxum => (Adapter::Axum, Way::Two),
            Library::Own => (Adapter::Tungstenite, Way::Three),
            Library::OwnUnderAxum => (Adapter::Axum, Way::Three),
            Library::Actix => {
                let (address, actix) = actix_door::open(pool.clone());
                return Self { pool, address, _accepting: accepting, actix: Some(actix) };
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = pool.clone();
        accepting.spawn(async move { doors::open(listener, served, adapter, way).await.unwrap() });
        Self { pool, address, _accepting: accepting, actix: None }
    }

    /// A client whose connection is open.
    pub(crate) async fn client(&self) -> Client {
        let client = Client::connect(self.address).await;
        self.eventually("it is open", || self.pool.snapshot().live > 0).await;
        client
    }

    /// The one client's messages have come in, as many.
    pub(crate) async fn has_heard(&self, count: u64) {
        self.eventually("it was heard", || self.pool.managers(1)[0].messages_in == count).await;
    }

    /// Everything is free, and all connections since the last call ended for these reasons.
    pub(crate) async fn is_empty_after(&self, reasons: &[(EndReason, u64)]) {
        self.eventually("every manager is free", || self.pool.ledger().occupied_slots == 0).await;
        let ledger = self.pool.ledger();
        assert_eq!(self.pool.check(), Verdict::Balanced, "{ledger:#?}");
        assert_eq!((ledger.leases, ledger.users_sum, ledger.isolation_keys), (0, 0, 0), "{ledger:#?}");
        let reasons = reasons.iter().map(|(reason, count)| (reason.name(), *count));
        assert_eq!(ledger.tally.ends_by_reason, reasons.collect());
    }

    async fn eventually(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let waiting = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "in vain: {what}; {:#?}", self.pool.ledger());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(actix) = &self.actix {
            drop(actix.stop(false)); // the command is sent by the call
        }
    }
}

/// Little is read at a time; a lot may wait to be sent.
fn narrow() -> Config {
    let mut config = Config::preset(Environment::Ci);
    (config.inbound_message_bytes, config.inbound_frame_bytes) = (MESSAGE, MESSAGE);
    config.outbound =
        config.outbound.with_messages(1 << 16).with_bytes(256 << 20).with_message_bytes(64 << 20);
    (config.heartbeat_interval, config.reservation_deadline) = (PATIENCE, PATIENCE);
    config.close_timeout = PATIENCE;
    config
}
