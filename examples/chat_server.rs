//! A chat server, and a page to chat on:
//!
//! ```text
//! cargo run --example chat_server --features axum,serde
//! ```
//!
//! Open <http://127.0.0.1:8080/> in two tabs. `/ws?user=…&thread=…&after=…` is the socket, `/pool` shows
//! the pool's figures, `/why?user=…` how a user's last connections ended. Read on in `door.rs` (who comes
//! in), `room.rs` (what happens to a text), `agent.rs` (who answers `{"ask": …}`, step by step, also to a
//! client that was away meanwhile), `message.rs` (what goes over the wire), `ends.rs` (why
//! connections ended), `alerts.rs` (who is close to a limit), `reload.rs` (other numbers while it runs),
//! and `figures.rs` and `kernel.rs` (whether the kernel counts as many connections as the pool).

#[path = "chat_server/agent.rs"]
mod agent;
#[path = "chat_server/alerts.rs"]
mod alerts;
#[path = "chat_server/door.rs"]
mod door;
#[path = "chat_server/ends.rs"]
mod ends;
#[path = "chat_server/figures.rs"]
mod figures;
#[path = "chat_server/kernel.rs"]
mod kernel;
#[path = "chat_server/message.rs"]
mod message;
#[path = "chat_server/options.rs"]
mod options;
#[path = "chat_server/page.rs"]
mod page;
#[path = "chat_server/reload.rs"]
mod reload;
#[path = "chat_server/room.rs"]
mod room;
#[path = "chat_server/signals.rs"]
mod signals;

use alerts::Alerts;
use axum::Router;
use axum::extract::{ConnectInfo, FromRef, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use door::Door;
use ends::Why;
use figures::Figures;
use kernel::{SocketInode, UpgradedSockets, WatchedListener};
use options::{Command, Options};
use room::Room;
use serde::Serialize;
use signals::Signals;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::{self, ExitCode};
use tokio::net::TcpListener;
use ws_manager_pool::serve::{Entrance, Identify, PooledUpgrade, Refusal, drain};
use ws_manager_pool::{BuildError, Pool, UserId};

/// Bad arguments, or an address that can't be had.
const USAGE: u8 = 2;

/// What the handlers share.
#[derive(Clone)]
struct Server {
    entrance: Entrance<Door>,
    sockets: UpgradedSockets,
}

impl FromRef<Server> for Entrance<Door> {
    fn from_ref(server: &Server) -> Self {
        server.entrance.clone()
    }
}

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
    run(listener, pool, options).await.unwrap_or_else(give_up)
}

fn build_pool(options: &Options) -> Result<Pool, BuildError> {
    Pool::builder().name("chat").config(options.config()?).observer(Alerts).build()
}

/// Serves until a signal comes, then ends every connection and gives account.
async fn run(listener: TcpListener, pool: Pool, options: Options) -> io::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    if options.file.is_some() {
        reload::on_hangup(pool.clone(), options)?;
    }
    pool.spawn_maintenance(); // before the first connection, which would start it too
    say(format_args!("http://{}/", listener.local_addr()?));

    let sockets = UpgradedSockets::default();
    let server = Server { entrance: Entrance::new(pool.clone(), Door), sockets: sockets.clone() };
    let routes = Router::new()
        .route("/", get(page::page))
        .route("/ws", get(enter))
        .route("/pool", get(figures))
        .route("/why", get(why))
        .with_state(server)
        .into_make_service_with_connect_info::<SocketInode>();
    let listener = WatchedListener { listener, sockets: sockets.clone() };
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
    match sockets.count().await {
        Ok(open) => say(format_args!("kernel: upgraded sockets {open}")),
        Err(error) => say(format_args!("kernel: upgraded sockets unknown: {error}")),
    }
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

/// The socket. The extractor has checked the origin, asked the door who it is and reserved a place;
/// or it has a refusal for an answer, before the handshake, with the reason in the body.
async fn enter(
    upgrade: Result<PooledUpgrade<Door>, Response>,
    State(Server { entrance, sockets }): State<Server>,
    ConnectInfo(socket): ConnectInfo<SocketInode>,
    request: Parts,
) -> Response {
    let pool = entrance.pool();
    match upgrade {
        Ok(upgrade) => match door::after(&request) {
            Ok(Some(after)) => {
                upgrade.resume_after(after).serve(Room { pool: pool.clone(), sockets, socket })
            }
            Ok(None) => upgrade.serve(Room { pool: pool.clone(), sockets, socket }),
            Err(refusal) => refusal.into_response(),
        },
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
    if let Err(refusal) = door::after(request) {
        return refusal.into_response();
    }
    match pool.reserve(&context) {
        Ok(_given_back) => {
            let refusal = Refusal::new(StatusCode::UPGRADE_REQUIRED, "you may come in, by WebSocket");
            ([(header::UPGRADE, "websocket")], refusal).into_response()
        }
        Err(error) => Refusal::from(error).into_response(),
    }
}

/// The pool's figures, its first hundred managers and its last ends. A real server shows this to
/// operators only.
async fn figures(State(Server { entrance, sockets }): State<Server>) -> Response {
    json(&Figures::read(entrance.pool(), &sockets).await)
}

/// Why a user's last connections ended. A real server tells this to that user only.
async fn why(State(Server { entrance, .. }): State<Server>, request: Parts) -> Result<Response, Refusal> {
    let user = UserId::new(door::parameter(&request, "user")?.unwrap_or_default())?;
    Ok(json(&Why::of(entrance.pool(), &user)))
}

fn json(figures: &impl Serialize) -> Response {
    let text = serde_json::to_vec(figures).expect("figures always have a JSON form");
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}
