//! Sends back what it hears, behind a route of Actix Web:
//!
//! ```text
//! cargo run --example actix --features actix -- 127.0.0.1:9002
//! ```
//!
//! Who connects to `/` is a user of its own. Actix's workers each have a runtime of one thread and
//! share one pool. Ctrl-C closes every connection and ends.

use actix_web::web::{Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, error, rt, web};
use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use ws_manager_pool::serve::{HandlerError, actix, application, drain, serve};
use ws_manager_pool::{
    Config, Environment, IdGenerator, Pool, ReserveError, SendOutcome, UserExecutionContext,
};

fn main() -> ExitCode {
    match rt::System::new().block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("actix: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_owned());
    let pool: Pool = Pool::builder().name("actix-echo").config(wide()).build()?;
    let shared = Data::new(pool.clone());
    let server =
        HttpServer::new(move || App::new().app_data(shared.clone()).route("/", web::get().to(enter)))
            .disable_signals()
            // Actix would wait so long for the client to hang up first; a WebSocket client waits for the
            // server to.
            .client_disconnect_timeout(Duration::ZERO)
            .bind(&address)
            .map_err(|error| format!("can't listen on {address}: {error}; name another address"))?;
    for address in server.addrs() {
        println!("ws://{address}/");
    }
    let server = server.run();
    let handle = server.handle();
    rt::spawn(server);

    rt::signal::ctrl_c().await?;
    let report = drain(&pool).await;
    handle.stop(true).await;
    println!("drain: {} told, {} gone, {} left", report.evicted, report.finished, report.remaining);
    println!("ledger: {:?}", pool.ledger().verdict);
    Ok(())
}

/// Limits so wide that whatever a test sends is sent back.
fn wide() -> Config {
    const MESSAGE: usize = 64 << 20;
    let mut config = Config::preset(Environment::Production);
    (config.inbound_message_bytes, config.inbound_frame_bytes) = (MESSAGE, MESSAGE);
    config.outbound =
        config.outbound.with_messages(1 << 16).with_bytes(4 * MESSAGE).with_message_bytes(MESSAGE);
    config.outbound_pool_bytes = 16 * MESSAGE;
    config
}

/// A place in the pool, the handshake, and a task for the connection on this worker's thread.
async fn enter(
    request: HttpRequest,
    body: Payload,
    pool: Data<Pool>,
) -> Result<HttpResponse, actix_web::Error> {
    let context = stranger().map_err(error::ErrorBadRequest)?;
    let reservation = match pool.reserve(&context) {
        Ok(reservation) => reservation,
        Err(error) => return Ok(refusal(error)),
    };
    let (response, session, stream) = actix_ws::handle(&request, body)?;
    rt::spawn(async move {
        let Ok(lease) = reservation.open() else {
            return;
        };
        let socket = actix(session, stream, &pool.config());
        let echo = application(|conn, message| match conn.send(message.to_message()) {
            SendOutcome::Queued => Ok(()),
            refused => Err(HandlerError::new(format!("an echo was not queued: {refused:?}"))),
        });
        serve(socket, lease, echo).await;
    });
    Ok(response)
}

/// A user whom nobody has seen before. A real server authenticates here.
fn stranger() -> Result<UserExecutionContext, ws_manager_pool::IdError> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let user = format!("guest-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let ids = IdGenerator::user_context_ids(&user, "echo");
    UserExecutionContext::from_websocket_request(user, ids)
}

fn refusal(error: ReserveError) -> HttpResponse {
    let status = error.http_status().try_into().unwrap_or_default();
    let mut response = HttpResponse::build(status);
    if let Some(span) = error.retry_after() {
        response.insert_header(("Retry-After", span.as_secs().to_string()));
    }
    response.body(format!("{error}\n"))
}
