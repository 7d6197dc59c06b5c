//! The pool alone, without a server or an async runtime: `cargo run --example minimal`.

use ws_manager_pool::{IdGenerator, Message, Pool, UserExecutionContext};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool: Pool = Pool::builder().name("minimal").capacity(100).build()?;

    // Who is it? Made once, at the door; an error is the text of an HTTP 400.
    let ids = IdGenerator::user_context_ids("ada", "greet");
    let context = UserExecutionContext::from_websocket_request("ada", ids)?;

    // A place before the handshake (an error is a 429 or a 503), a manager after it.
    let mut lease = pool.reserve(&context)?.open()?;

    // Anybody may send; the lease's owner receives.
    assert!(pool.send_to_user(context.user_id(), Message::from("hello")).is_complete());
    println!("received: {:?}", lease.next_message()?.as_ref().and_then(Message::as_text));

    // However the connection ends, dropping its lease gives everything back.
    drop(lease);
    println!("{:#?}", pool.snapshot());
    Ok(())
}
