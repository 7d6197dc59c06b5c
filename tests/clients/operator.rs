//! An operator ends a connection. The chat server has no way to say that over the wire, so here is one
//! on the same pool, within the test.

use crate::driver::Client;
use crate::server::BOUND;
use axum::Router;
use axum::http::request::Parts;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use ws_manager_pool::serve::{Entrance, Identify, PooledUpgrade, Refusal, application};
use ws_manager_pool::{EndReason, Environment, IdGenerator, Pool, UserExecutionContext, UserId};

/// Everybody is Ada.
struct OnlyAda;

impl Identify for OnlyAda {
    type Session = ();

    async fn identify(&self, _: &Parts) -> Result<UserExecutionContext, Refusal> {
        let ids = IdGenerator::user_context_ids("ada", "operator");
        Ok(UserExecutionContext::from_websocket_request("ada", ids)?)
    }
}

pub(crate) async fn an_operators_eviction_is_4002_and_says_so(client: &mut Client) {
    let name = format!("operator-{:?}", client.kind);
    let pool: Pool = Pool::builder().name(name).environment(Environment::Ci).build().expect("a pool");
    let enter = async |upgrade: PooledUpgrade<OnlyAda>| upgrade.serve(application(|_, _| Ok(())));
    let routes = Router::new().route("/ws", get(enter)).route("/pool", get(async || "a page's origin"));
    let routes = routes.with_state(Entrance::new(pool.clone(), OnlyAda));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}/ws", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move { axum::serve(listener, routes).await });

    client.open("ada", &url).await;
    live_becomes(&pool, 1).await;
    let keys = pool.keys_of(&UserId::new("ada").expect("a valid id"));
    pool.evict(keys[0], EndReason::Operator).expect("it is live");
    let (code, reason) = client.hear_close("ada").await;
    assert_eq!((code, reason.as_str()), (4002, EndReason::Operator.as_str()));
    live_becomes(&pool, 0).await;
    assert!(pool.ledger().balanced);
    server.abort();
}

async fn live_becomes(pool: &Pool, live: usize) {
    let turns = async {
        while pool.snapshot().live != live {
            sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, turns).await.unwrap_or_else(|_| panic!("never {live} live"));
}
