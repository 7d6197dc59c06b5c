//! How far a run has come, on stderr.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// One line that is rewritten, on a terminal; otherwise a line for each turn.
pub(crate) struct Progress {
    is_terminal: bool,
    begun: Instant,
    turns: usize,
    over: usize,
}

impl Progress {
    pub(crate) fn new(turns: usize) -> Self {
        Self { is_terminal: io::stderr().is_terminal(), begun: Instant::now(), turns, over: 0 }
    }

    /// What is being done.
    pub(crate) fn tell(&self, what: &str) {
        if self.is_terminal {
            let line = format!("[{}/{}] {what}{}", self.over + 1, self.turns, self.left());
            // Whoever closes our stderr does not want to know.
            let _ = write!(io::stderr(), "\r\x1b[K{line}");
        }
    }

    /// One turn is over.
    pub(crate) fn count(&mut self, what: &str) {
        self.over += 1;
        if !self.is_terminal {
            let _ = writeln!(io::stderr(), "[{}/{}] {what}{}", self.over, self.turns, self.left());
        }
    }

    /// The line is over.
    pub(crate) fn clear(&self) {
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    fn left(&self) -> String {
        if self.over == 0 {
            return String::new();
        }
        let each = self.begun.elapsed().as_secs_f64() / self.over as f64;
        format!(", about {:.0} s left", each * (self.turns - self.over) as f64)
    }
}
