//! One figure, measured several times.

use serde::Serialize;
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub struct Samples {
    kept: Vec<f64>,
    /// Those during which somebody disturbed.
    dropped: Vec<f64>,
}

/// What is told of it. In nanoseconds an operation, unless said otherwise.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Summary {
    pub min: f64,
    pub median: f64,
    pub p90: f64,
    /// 0: all were disturbed, and the figures are of those.
    pub kept: usize,
    pub dropped: usize,
}

impl Samples {
    pub fn add_time(&mut self, took: Duration, operations: u64, was_disturbed: bool) {
        let to = if was_disturbed { &mut self.dropped } else { &mut self.kept };
        to.push(took.as_nanos() as f64 / operations as f64);
    }

    /// `None`: nothing was measured.
    pub fn summary(&self) -> Option<Summary> {
        let mut sorted = if self.kept.is_empty() { self.dropped.clone() } else { self.kept.clone() };
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| sorted.get((sorted.len().saturating_sub(1) as f64 * part) as usize).copied();
        Some(Summary {
            min: at(0.0)?,
            median: at(0.5)?,
            p90: at(0.9)?,
            kept: self.kept.len(),
            dropped: self.dropped.len(),
        })
    }
}
