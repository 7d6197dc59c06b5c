//! SIGHUP reads the configuration's file again, and puts it in force under the open connections.

use crate::options::Options;
use crate::say;
use crate::signals::Hangups;
use std::io;
use std::sync::Arc;
use tokio::task::spawn_blocking;
use ws_manager_pool::Pool;

/// Listens from now on.
pub(crate) fn on_hangup(pool: Pool, options: Options) -> io::Result<()> {
    let mut hangups = Hangups::listen()?;
    let options = Arc::new(options);
    tokio::spawn(async move {
        loop {
            hangups.next().await;
            let (pool, options) = (pool.clone(), options.clone());
            // It reads a file. An error: it panicked, and said so on stderr.
            let _ = spawn_blocking(move || reload(&pool, &options)).await;
        }
    });
    Ok(())
}

fn reload(pool: &Pool, options: &Options) {
    match options.config().and_then(|config| pool.reconfigure(config)) {
        Ok(version) => say(format_args!("config: version {} is in force", version.number)),
        Err(error) => say(format_args!("config: nothing has changed: {error}")),
    }
}
