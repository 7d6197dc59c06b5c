//! Buffers of the pool under `axum::serve`.

use super::leased::LeasedIo;
use crate::manager::Session;
use crate::pool::Pool;
use ::axum::serve::Listener;
use std::fmt;
use std::io::Result;

/// A listener for `axum::serve` whose sockets are read into buffers of the pool, so that the connections
/// behind an upgrade need none of their own: [`LeasedIo`] for axum. It takes effect with
/// [`PooledUpgrade::lean`](super::PooledUpgrade::lean).
///
/// ```
/// # async fn example(
/// #     listener: tokio::net::TcpListener,
/// #     router: axum::Router,
/// #     pool: ws_manager_pool::Pool,
/// # ) -> std::io::Result<()> {
/// use ws_manager_pool::serve::{LeasedListener, Porch, PorchListener};
///
/// let listener = PorchListener::new(Porch::new(&pool), LeasedListener::new(listener, &pool));
/// axum::serve(listener, router).await
/// # }
/// ```
///
/// With TLS, put this around the listener that ends it: what is read is what was decrypted.
pub struct LeasedListener<L, S: Session> {
    listener: L,
    pool: Pool<S>,
}

impl<L: Listener, S: Session> LeasedListener<L, S> {
    /// Around a listener.
    pub fn new(listener: L, pool: &Pool<S>) -> Self {
        Self { listener, pool: pool.clone() }
    }
}

impl<L: Listener, S: Session> Listener for LeasedListener<L, S> {
    type Io = LeasedIo<L::Io, S>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, address) = self.listener.accept().await;
        (LeasedIo::new(io, &self.pool), address)
    }

    fn local_addr(&self) -> Result<L::Addr> {
        self.listener.local_addr()
    }
}

impl<L: fmt::Debug, S: Session> fmt::Debug for LeasedListener<L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedListener").field("listener", &self.listener).field("pool", &self.pool).finish()
    }
}
