//! The way in through Actix Web, which has its own runtime on its own threads.

use crate::talk::{echoing, stranger};
use actix_web::dev::ServerHandle;
use actix_web::web::{Data, Payload};
use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, rt, web};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use ws_manager_pool::Pool;
use ws_manager_pool::serve::{actix, serve};

/// Listens on a free port.
pub(crate) fn open(pool: Pool) -> (SocketAddr, ServerHandle) {
    let (ready, listening) = mpsc::channel();
    thread::spawn(move || {
        rt::System::new().block_on(async move {
            let app = move || App::new().app_data(Data::new(pool.clone())).route("/", web::get().to(enter));
            let server = HttpServer::new(app)
                .workers(1)
                .disable_signals()
                .client_disconnect_timeout(Duration::ZERO)
                .bind("127.0.0.1:0")
                .unwrap();
            let address = server.addrs()[0];
            let server = server.run();
            ready.send((address, server.handle())).unwrap();
            server.await.unwrap();
        });
    });
    listening.recv().unwrap()
}

async fn enter(request: HttpRequest, body: Payload, pool: Data<Pool>) -> Result<HttpResponse, Error> {
    let reservation = pool.reserve(&stranger()).unwrap();
    let (response, session, stream) = actix_ws::handle(&request, body)?;
    rt::spawn(async move {
        let lease = reservation.open().unwrap();
        serve(actix(session, stream, &pool.config()), lease, echoing()).await;
    });
    Ok(response)
}
