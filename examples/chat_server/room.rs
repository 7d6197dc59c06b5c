//! The chat itself: what happens to a text.

use crate::agent;
use crate::kernel::{SocketInode, UpgradedSockets};
use crate::message::{Inbound, Outbound};
use ws_manager_pool::serve::{Application, Connection, HandlerError, Received};
use ws_manager_pool::{Message, Pool, SendReport, UserId};

/// The chat, as one connection sees it. It keeps no list of who is connected: the pool is that list.
pub(crate) struct Room {
    pub(crate) pool: Pool,
    pub(crate) sockets: UpgradedSockets,
    /// This connection's.
    pub(crate) socket: SocketInode,
}

impl Application for Room {
    type Session = (); // a real application's state of one connection, reused from one to the next

    async fn connected(&self, _: &mut Connection<'_, ()>) -> Result<(), HandlerError> {
        self.sockets.upgraded(self.socket); // the handshake has succeeded, and not before
        Ok(())
    }

    async fn received(
        &self,
        connection: &mut Connection<'_, ()>,
        message: Received<'_>,
    ) -> Result<(), HandlerError> {
        if let Err(error) = self.deliver(connection, message) {
            // How it went does not matter: if the sender's own queue is full, it has worse to read.
            let _ = connection.send(Outbound::Error { error }.encode());
        }
        Ok(())
    }
}

impl Room {
    /// Passes a text on, or says to its sender why not.
    fn deliver(&self, connection: &Connection<'_, ()>, message: Received<'_>) -> Result<(), String> {
        let text = message.as_text().ok_or("this chat takes text, not binary messages")?;
        let context = connection.context();
        let from = context.user_id().as_str();
        match Inbound::read(text) {
            Inbound::ToThread(text) => {
                let message = encode(from, text);
                check(self.pool.send_to_thread(&context.isolation_key(), message), "this thread")
            }
            Inbound::Ask { question } => agent::ask(&self.pool, context, &question),
            Inbound::ToUser { to, text } => {
                let user = UserId::new(&to).map_err(|error| format!("the recipient's {error}"))?;
                check(self.pool.send_to_user(&user, encode(from, &text)), &to)
            }
        }
    }
}

/// The queues of all recipients share these bytes.
fn encode(from: &str, text: &str) -> Message {
    Outbound::Text { from, text }.encode()
}

fn check(report: SendReport, to: &str) -> Result<(), String> {
    let without_room = report.full + report.ended;
    if report.queued + without_room == 0 {
        Err(format!("nobody is connected as {to}"))
    } else if without_room > 0 {
        // The queue of a manager is bounded: too long a text, or a tab that reads too slowly.
        Err(format!("{without_room} of {} connections of {to} had no room for it", report.addressed()))
    } else {
        Ok(())
    }
}
