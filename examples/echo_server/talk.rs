//! Who comes, and what is said.

use std::sync::atomic::{AtomicU64, Ordering};
use ws_manager_pool::serve::{Application, HandlerError, Transport, application, serve};
use ws_manager_pool::{IdGenerator, Reservation, SendOutcome, UserExecutionContext};

/// A user whom nobody has seen before.
pub(crate) fn stranger() -> UserExecutionContext {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let user = format!("guest-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let ids = IdGenerator::user_context_ids(&user, "echo");
    UserExecutionContext::from_websocket_request(user, ids).expect("a number is a good name")
}

/// Serves a connection whose handshake is done.
pub(crate) async fn echo(socket: impl Transport, reservation: Reservation) {
    if let Ok(lease) = reservation.open() {
        serve(socket, lease, echoing()).await;
    }
}

/// Says it again. What finds no room in the queue ends the connection: an echo is never lost in silence.
pub(crate) fn echoing() -> impl Application<Session = ()> {
    application(|conn, message| match conn.send(message.to_message()) {
        SendOutcome::Queued => Ok(()),
        refused => Err(HandlerError::new(format!("an echo was not queued: {refused:?}"))),
    })
}
