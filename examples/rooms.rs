//! Rooms on a pool: a room is a list of keys, and nothing has to be cleaned up when a member goes.
//!
//! ```text
//! cargo run --example rooms --features axum
//! ```
//!
//! Then, from any WebSocket client, for instance in a browser's console:
//!
//! ```text
//! s = new WebSocket("ws://127.0.0.1:8081/?ada"); s.onmessage = m => console.log(m.data)
//! s.send("/join lobby")        s.send("hello, lobby")        s.send("/leave lobby")
//! ```
//!
//! A key is 8 bytes, and names one connection for ever: when that is over the key is stale, also if its
//! slot is somebody else's by then. `send_many` says which keys were stale, and the room forgets them.

use axum::Router;
use axum::http::request::Parts;
use axum::routing::any;
use axum::serve::ListenerExt;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use tokio::net::TcpListener;
use ws_manager_pool::serve::{
    Application, Connection, Entrance, HandlerError, Identify, OriginPolicy, PooledUpgrade, Received, Refusal,
};
use ws_manager_pool::{IdGenerator, ManagerKey, Message, Pool, UserExecutionContext};

/// Who is where. Names of rooms come from strangers, so their number and length are bounded.
#[derive(Default)]
struct Rooms(Mutex<HashMap<String, Vec<ManagerKey>>>);

const MAX_ROOMS: usize = 10_000;
const MAX_NAME: usize = 64;

impl Rooms {
    fn join(&self, pool: &Pool, room: &str, key: ManagerKey) -> Result<(), String> {
        let mut rooms = self.0.lock();
        if room.is_empty() || room.len() > MAX_NAME {
            return Err(format!("the name of a room has 1 to {MAX_NAME} bytes"));
        }
        // A room that nobody writes to learns here who is gone.
        let is_here = |key: &ManagerKey| pool.inspect(*key, |_| ()).is_some();
        if rooms.len() == MAX_ROOMS && !rooms.contains_key(room) {
            rooms.retain(|_, members| members.iter().any(is_here));
        }
        if rooms.len() == MAX_ROOMS && !rooms.contains_key(room) {
            return Err(format!("there are {MAX_ROOMS} rooms already: join one of them"));
        }
        let members = rooms.entry(room.to_owned()).or_default();
        if members.len() == members.capacity() {
            members.retain(is_here); // before it grows
        }
        if !members.contains(&key) {
            members.push(key);
        }
        Ok(())
    }

    fn leave(&self, room: &str, gone: &[ManagerKey]) {
        let mut rooms = self.0.lock();
        let Some(members) = rooms.get_mut(room) else { return };
        members.retain(|key| !gone.contains(key));
        if members.is_empty() {
            rooms.remove(room);
        }
    }

    /// The rooms that a connection is in, with their members. Copied, so that nothing is sent under the lock.
    fn of(&self, key: ManagerKey) -> Vec<(String, Vec<ManagerKey>)> {
        let rooms = self.0.lock();
        let is_in = |members: &Vec<ManagerKey>| members.contains(&key);
        rooms
            .iter()
            .filter(|(_, members)| is_in(members))
            .map(|(name, it)| (name.clone(), it.clone()))
            .collect()
    }
}

struct Chat {
    pool: Pool,
    rooms: Rooms,
}

impl Application for Chat {
    type Session = ();

    async fn received(
        &self,
        conn: &mut Connection<'_, ()>,
        message: Received<'_>,
    ) -> Result<(), HandlerError> {
        let key = conn.key();
        let Some(text) = message.as_text() else { return Ok(()) };
        if let Some(room) = text.strip_prefix("/join ") {
            if let Err(why) = self.rooms.join(&self.pool, room.trim(), key) {
                let _ = conn.send(why.into());
            }
        } else if let Some(room) = text.strip_prefix("/leave ") {
            self.rooms.leave(room.trim(), &[key]);
        } else {
            for (room, members) in self.rooms.of(key) {
                let line = Message::text(format!("[{room}] {}: {text}", conn.context().user_id()));
                let report = self.pool.send_many(&members, line);
                // Whoever went without a word is forgotten here, and in `join`.
                self.rooms.leave(&room, &report.stale_keys);
            }
        }
        Ok(())
    }
}

/// Takes people at their word. A real server authenticates here.
struct ByName;

impl Identify for ByName {
    type Session = ();

    async fn identify(&self, request: &Parts) -> Result<UserExecutionContext, Refusal> {
        let user = request.uri.query().unwrap_or_default();
        let ids = IdGenerator::user_context_ids(user, "rooms");
        Ok(UserExecutionContext::from_websocket_request(user, ids)?)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool: Pool = Pool::builder().name("rooms").build()?;
    let chat = Arc::new(Chat { pool: pool.clone(), rooms: Rooms::default() });
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8081".to_owned());
    let listener = TcpListener::bind(&address).await?;
    println!("ws://{}/?<your name>", listener.local_addr()?);
    let enter = |upgrade: PooledUpgrade<ByName>| async move { upgrade.serve(chat) };
    // Anybody may come in, from any page: there are no cookies that one could misuse.
    let entrance = Entrance::with_origins(pool, ByName, OriginPolicy::Any);
    let routes = Router::new().route("/", any(enter)).with_state(entrance);
    // A message is to leave when it is written.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(listener, routes).await?)
}
