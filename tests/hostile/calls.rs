//! Code of the application that panics, or that never returns.

use crate::place::{Client, PATIENCE, Server, Way, config, eventually};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use ws_manager_pool::engine::Request;
use ws_manager_pool::serve::{
    Admission, Application, CloseReport, Connection, Door, Gate, HandlerError, Received, Rejection,
};
use ws_manager_pool::{Alert, EndReason, IdGenerator, Observer, Pool, Session, UserExecutionContext, UserId};

/// The method that panics next; all others do as they should.
static PANICS: AtomicUsize = AtomicUsize::new(NONE);

const NONE: usize = 0;
const DEFAULT: usize = 1;
const RESET: usize = 2;
const ADMIT: usize = 3;
const CONNECTED: usize = 4;
const RECEIVED: usize = 5;
const CLOSED: usize = 6;
const ALERT: usize = 7;
const ALL: [usize; 7] = [DEFAULT, RESET, ADMIT, CONNECTED, RECEIVED, CLOSED, ALERT];

fn call(method: usize) {
    assert!(PANICS.load(Ordering::SeqCst) != method, "planned: method {method}");
}

struct State;

impl Default for State {
    fn default() -> Self {
        call(DEFAULT);
        Self
    }
}

impl Session for State {
    fn reset(&mut self) {
        call(RESET);
    }
}

#[derive(Clone)]
struct App;

impl Application for App {
    type Session = State;

    async fn connected(&self, conn: &mut Connection<'_, State>) -> Result<(), HandlerError> {
        call(CONNECTED);
        conn.with_session(|_state| ()).map_err(|_| HandlerError::new("revoked"))
    }

    async fn received(
        &self,
        conn: &mut Connection<'_, State>,
        message: Received<'_>,
    ) -> Result<(), HandlerError> {
        call(RECEIVED);
        let _ = conn.send(message.to_message());
        Ok(())
    }

    fn closed(&self, _: &CloseReport) {
        call(CLOSED);
    }
}

struct Admits;

impl Door for Admits {
    type Session = State;

    async fn admit(&self, request: &Request<'_>) -> Result<Admission, Rejection> {
        call(ADMIT);
        let user = request.query().unwrap_or_default();
        Ok(UserExecutionContext::from_websocket_request(user, IdGenerator::user_context_ids(user, "calls"))?
            .into())
    }
}

struct Watches;

impl Observer for Watches {
    fn alert(&self, _: &Alert) {
        call(ALERT);
    }
}

#[tokio::test]
async fn whatever_panics_the_others_are_served_and_nothing_is_left() {
    let mut config = config();
    config.max_managers_per_user = 3;
    let pool: Pool<State> =
        Pool::builder().name("hostile-calls").config(config).observer(Watches).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gate = Gate::new(&pool, Admits);
    let listening = tokio::spawn(async move { gate.listen(listener, || App).await });
    let mut bystander = Client::open(address, "bystander").await.expect("let in");
    for method in ALL {
        PANICS.store(method, Ordering::SeqCst);
        for _ in 0..4 {
            // As many as make an alert; each says something, and goes.
            let mut clients = Vec::new();
            for _ in 0..3 {
                if let Some(mut client) = Client::open(address, "victim").await
                    && client.send(b"hello").await.is_some()
                {
                    let _heard = client.receive().await;
                    clients.push(client);
                }
            }
        }
        PANICS.store(NONE, Ordering::SeqCst);
        bystander.echoes(b"still served").await;
        eventually("the victims are gone", || pool.ledger().leases == 1).await;
        let victim = UserId::new("victim").unwrap();
        eventually("their places too", || pool.check_user(&victim).manager_count == 0).await;
        assert!(pool.ledger().balanced, "{:#?}", pool.ledger());
    }
    drop(bystander);
    eventually("all are gone", || pool.ledger().occupied_slots == 0).await;
    assert!(pool.ledger().balanced);
    listening.abort();
}

/// A handler that never returns is taken back like any other.
#[tokio::test]
async fn a_handler_that_hangs_holds_nothing() {
    #[derive(Clone)]
    struct Hangs;

    impl Application for Hangs {
        type Session = ();

        async fn received(&self, _: &mut Connection<'_, ()>, _: Received<'_>) -> Result<(), HandlerError> {
            std::future::pending().await
        }
    }

    for way in [Way::Own, Way::Library] {
        let server = Server::with("hangs", config(), way, || Hangs).await;
        let mut clients = Vec::new();
        for number in 0..10 {
            let mut client = server.open(&format!("user-{number}")).await;
            client.send(&[1; 2_000]).await.unwrap();
            clients.push(client);
        }
        for number in 0..10 {
            let user = UserId::new(format!("user-{number}")).unwrap();
            let key = server.pool.keys_of(&user)[0];
            server.pool.evict(key, EndReason::Operator).unwrap();
        }
        server.is_empty().await;
        for mut client in clients {
            assert_eq!(client.receive().await, None, "told, and closed");
        }
        assert!(PATIENCE > server.pool.config().close_timeout);
    }
}
