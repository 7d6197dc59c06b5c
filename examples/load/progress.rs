//! How far a run has come, on stderr.

use crate::board::Board;
use crate::report::grouped;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use tokio::time::{interval, sleep};

/// One line that is rewritten, on a terminal; otherwise a line from time to time.
pub(crate) struct Progress {
    is_terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal() }
    }

    /// Tells until it is dropped.
    pub(crate) async fn watch(&self, board: &Board, doing: &str) -> ! {
        let mut turns = interval(Duration::from_secs_f64(if self.is_terminal { 0.25 } else { 2.0 }));
        loop {
            turns.tick().await;
            self.tell(board, doing);
        }
    }

    /// Waits for a condition, and tells meanwhile. `false`: not within `patience`.
    pub(crate) async fn until(
        &self,
        board: &Board,
        doing: &str,
        patience: Duration,
        is_met: impl Fn(&Board) -> bool,
    ) -> bool {
        let met = async {
            while !is_met(board) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = met => true,
            () = sleep(patience) => false,
            never = self.watch(board, doing) => never,
        }
    }

    /// The line is over.
    pub(crate) fn clear(&self) {
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    fn tell(&self, board: &Board, doing: &str) {
        let line = {
            let figures = board.figures();
            format!(
                "{doing}: {} open, {} connected, {} refused, {} sent, {} received",
                grouped(figures.open as u64),
                grouped(figures.connected),
                grouped(figures.refusals()),
                grouped(figures.sent),
                grouped(figures.received)
            )
        };
        // Whoever closes our stderr does not want to know.
        let _ = match self.is_terminal {
            true => write!(io::stderr(), "\r\x1b[K{line}"),
            false => writeln!(io::stderr(), "{line}"),
        };
    }
}
