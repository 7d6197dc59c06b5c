//! All that was measured, and who was best.

use crate::figures::{Figure, Figures, Samples};
use crate::machine::Machine;
use crate::server::{Contender, Side};
use std::time::Duration;

/// One run of the example.
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) connections: usize,
    pub(crate) setups: usize,
    pub(crate) per_user: usize,
    pub(crate) repetitions: usize,
    pub(crate) took: Duration,
    /// What a reader should know before the figures.
    pub(crate) notes: Vec<String>,
    pub(crate) servers: Vec<Measured>,
}

/// One server.
#[derive(Clone)]
pub(crate) struct Measured {
    pub(crate) contender: &'static Contender,
    pub(crate) figures: Figures<Samples>,
}

impl Measured {
    pub(crate) fn new(contender: &'static Contender) -> Self {
        Self { contender, figures: Figures::default() }
    }

    pub(crate) fn add(&mut self, run: &Figures<f64>) {
        for figure in Figure::ALL {
            self.figures.of_mut(figure).add(*run.of(figure));
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.contender.name
    }

    pub(crate) fn side(&self) -> Side {
        self.contender.side
    }

    /// Connections that failed are counted over all repetitions; everything else is a median.
    pub(crate) fn value(&self, figure: Figure) -> f64 {
        let samples = self.figures.of(figure);
        if figure == Figure::Failed { samples.sum() } else { samples.median() }
    }

    /// By which part its figure is below another's; negative if it is above. `None` of nothing.
    pub(crate) fn reduction(&self, figure: Figure, baseline: &Self) -> Option<f64> {
        reduction(self.value(figure), baseline.value(figure))
    }

    /// The same of the best repetitions, which a busy machine disturbs less.
    pub(crate) fn reduction_at_best(&self, figure: Figure, baseline: &Self) -> Option<f64> {
        reduction(self.figures.of(figure).min(), baseline.figures.of(figure).min())
    }
}

fn reduction(own: f64, other: f64) -> Option<f64> {
    (other > 0.0).then(|| 1.0 - own / other)
}

impl Results {
    pub(crate) fn on(&self, side: Side) -> impl Iterator<Item = &Measured> {
        self.servers.iter().filter(move |server| server.side() == side)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Measured> {
        self.servers.iter().find(|server| server.name() == name)
    }

    /// Who has the least of a figure.
    pub(crate) fn best(&self, side: Side, figure: Figure) -> Option<&Measured> {
        self.on(side).min_by(|one, other| one.value(figure).total_cmp(&other.value(figure)))
    }

    pub(crate) fn baselines(&self) -> impl Iterator<Item = &Measured> {
        self.servers.iter().filter(|server| !server.side().is_ours())
    }

    /// The ways of this crate, each in a server of its own.
    pub(crate) fn ways(&self) -> impl Iterator<Item = (u8, &Measured)> {
        self.servers.iter().filter_map(|server| match server.side() {
            Side::Way(way) => Some((way, server)),
            _ => None,
        })
    }

    /// The ways behind a route of axum.
    pub(crate) fn ways_behind_axum(&self) -> impl Iterator<Item = (u8, &Measured)> {
        self.servers.iter().filter_map(|server| match server.side() {
            Side::WayBehindAxum(way) => Some((way, server)),
            _ => None,
        })
    }
}
