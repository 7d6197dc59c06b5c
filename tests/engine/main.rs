//! The engine: what it accepts and refuses, however the bytes are cut, and beside tungstenite.

mod differential;
mod frames;
mod handshake;
#[path = "../../fuzz/scenarios/handshake.rs"]
mod request_scenario;
#[path = "../../fuzz/scenarios/engine.rs"]
mod scenario;
