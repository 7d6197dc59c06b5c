//! The opening handshake: finds the end of the request's head, reads and checks it, writes the answer.

mod check;
mod request;
mod response;
mod scan;

pub use check::RequestError;
pub use request::{Headers, Request};
pub use response::{ResponseError, accept, accept_key, refuse};
pub use scan::HeadScanner;
