//! A chat server, and a page to chat on:
//!
//! ```text
//! cargo run --example chat_server --features axum,serde
//! ```
//!
//! Open <http://127.0.0.1:8080/> in two tabs. `/ws?user=…&thread=…` is the socket, `/pool` shows
//! the pool's figures. Read on in `door.rs` (who comes in), `room.rs` (what happens to a text) and
//! `message.rs` (what goes over the wire).

#[path = "chat_server/door.rs"]
mod door;
#[path = "chat_server/message.rs"]
mod message;
#[path = "chat_server/options.rs"]
mod options;
#[path = "chat_server/room.rs"]
mod room;
#[path = "chat_server/signals.rs"]
mod signals;

use axum::Router;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use door::Door;
use options::{Command, Options};
use room::Room;
use serde::Serialize;
use signals::Signals;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::{self, ExitCode};
use tokio::net::TcpListener;
use ws_manager_pool::serve::{Entrance, Identify, PooledUpgrade, Refusal, drain};
use ws_manager_pool::{BuildError, ManagerSnapshot, Pool, PoolSnapshot};

/// Bad arguments, or an address that can't be had.
const USAGE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match options::parse() {
        Ok(Command::Serve(options)) => options,
        Ok(Command::Help) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => return give_up(format!("{error}\n\n{}", options::HELP)),
    };
    let pool = match build_pool(&options) {
        Ok(pool) => pool,
        Err(error) => return give_up(error),
    };
    let listener = match TcpListener::bind(&options.addr).await {
        Ok(listener) => listener,
        Err(error) => {
            return give_up(format!("can't listen on {}: {error}; choose another --addr", options.addr));
        }
    };
    run(listener, pool).await.unwrap_or_else(give_up)
}

fn build_pool(options: &Options) -> Result<Pool, BuildError> {
    let mut builder = Pool::builder()
        .name("chat")
        .max_managers_per_user(options.max_per_user)
        .duplicates(options.duplicates);
    if let Some(capacity) = options.capacity {
        builder = builder.capacity(capacity);
    }
    builder.build()
}

/// Serves until a signal comes, then ends every connection and gives account.
async fn run(listener: TcpListener, pool: Pool) -> io::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    say(format_args!("http://{}/", listener.local_addr()?));

    let entrance = Entrance::new(pool.clone(), Door);
    let routes = Router::new()
        .route("/", get(page))
        .route("/ws", get(enter))
        .route("/pool", get(figures))
        .with_state(entrance);
    tokio::spawn(async move { axum::serve(listener, routes).await });

    signals.next().await;
    say("draining; a second signal ends at once");
    tokio::spawn(async move { process::exit(signals.next().await) });
    let report = drain(&pool).await;

    let ledger = pool.ledger();
    say(format_args!("drain: {} told, {} gone, {} left", report.evicted, report.finished, report.remaining));
    say(format_args!(
        "ledger: {:?}; leases {}, users' sum {}, occupied slots {}, isolation keys {}",
        ledger.verdict, ledger.leases, ledger.users_sum, ledger.occupied_slots, ledger.isolation_keys
    ));
    let is_zero = ledger.balanced && ledger.leases == 0 && ledger.occupied_slots == 0;
    Ok(if is_zero { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a line. Unlike `println!` it does not panic if nobody reads: Ctrl-C ends a `| tee` as well,
/// and the connections are to be drained all the same.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn give_up(why: impl Display) -> ExitCode {
    eprintln!("chat_server: {why}");
    ExitCode::from(USAGE)
}

/// The chat page.
async fn page() -> impl IntoResponse {
    // Names and texts are shown as text only; this is the second lock on the same door.
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                  img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(include_str!("chat_server/chat.html")))
}

/// The socket. The extractor has checked the origin, asked the door who it is and reserved a place;
/// or it has a refusal for an answer, before the handshake, with the reason in the body.
async fn enter(
    upgrade: Result<PooledUpgrade<Door>, Response>,
    State(entrance): State<Entrance<Door>>,
    request: Parts,
) -> Response {
    let pool = entrance.pool();
    match upgrade {
        Ok(upgrade) => upgrade.serve(Room { pool: pool.clone() }),
        Err(_) if !request.headers.contains_key(header::UPGRADE) => explain(&request, pool).await,
        Err(refusal) => refusal,
    }
}

/// A browser does not show why its WebSocket was refused. So the page asks for the same address
/// without an upgrade, and gets the answer of the same checks.
async fn explain(request: &Parts, pool: &Pool) -> Response {
    let context = match Door.identify(request).await {
        Ok(context) => context,
        Err(refusal) => return refusal.into_response(),
    };
    match pool.reserve(&context) {
        Ok(_given_back) => {
            let refusal = Refusal::new(StatusCode::UPGRADE_REQUIRED, "you may come in, by WebSocket");
            ([(header::UPGRADE, "websocket")], refusal).into_response()
        }
        Err(error) => Refusal::from(error).into_response(),
    }
}

/// The pool's figures and its first hundred managers. A real server shows this to operators only.
async fn figures(State(entrance): State<Entrance<Door>>) -> impl IntoResponse {
    #[derive(Serialize)]
    struct Figures {
        #[serde(flatten)]
        pool: PoolSnapshot,
        managers: Vec<ManagerSnapshot>,
    }

    let pool = entrance.pool();
    let figures = Figures { pool: pool.snapshot(), managers: pool.managers(100) };
    let json = serde_json::to_vec(&figures).expect("figures always have a JSON form");
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], json)
}
