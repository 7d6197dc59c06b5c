//! What a connection's task keeps, by the size of its future.

use super::*;
use crate::engine::Request;
use crate::id::{IdGenerator, UserExecutionContext};
use crate::pool::Pool;
use crate::serve::{Rejection, application, serve_on};
use tokio::net::TcpStream;

type Admitted = Result<UserExecutionContext, Rejection>;

fn anybody(request: &Request<'_>) -> Admitted {
    let user = request.query().unwrap_or_default();
    Ok(UserExecutionContext::from_websocket_request(user, IdGenerator::user_context_ids(user, "size"))?)
}

/// Of the future that a function would make. It is not called.
fn size_of_made<T, F>(_: impl FnOnce(T) -> F) -> usize {
    size_of::<F>()
}

fn silent() -> impl Application<Session = ()> {
    application(|_, _| Ok(()))
}

#[test]
fn a_handshake_makes_a_task_no_larger_than_its_connection_does() {
    let pool: Pool = Pool::builder().name("own-sizes").build().unwrap();
    let gate = Gate::new(&pool, door::<(), _, _>(anybody));
    let accepting = size_of_made(|io: TcpStream| gate.accept(io, silent()));
    let serving = size_of_made(|(io, lease): (TcpStream, Lease)| adopt(io, &[], lease, silent()));
    println!("accept {accepting}, adopt {serving}, lease {}", size_of::<Lease>());
    assert!(
        accepting <= serving + 2 * size_of::<usize>(),
        "{accepting} bytes, and {serving} for the connection"
    );
}

#[test]
fn a_connections_task_keeps_its_lease_and_its_socket_and_little_else() {
    let serving = size_of_made(|(io, lease): (TcpStream, Lease)| {
        serve_on(Own::new(io), Inbound::default(), lease, silent())
    });
    let kept = size_of::<Lease>() + size_of::<Own<TcpStream>>();
    assert!(serving <= kept + 320, "{serving} bytes, {kept} of them for lease and socket");
}
