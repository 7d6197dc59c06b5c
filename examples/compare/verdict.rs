//! What the figures say: the comparisons, the goals, and the verdict.

use crate::figures::Figure;
use crate::results::{Measured, Results};
use crate::server::{FASTWEBSOCKETS, Side, TOKIO_TUNGSTENITE_TUNED};
use serde_json::{Value, json};

/// So much less time to set up, and so much less memory, is promised.
pub(crate) const SETUP_PROMISE: f64 = 0.30;
pub(crate) const MEMORY_PROMISE: f64 = 0.20;

/// One of our servers beside one of the others.
pub(crate) fn comparison(way: u8, ours: &Measured, baseline: &Measured) -> Value {
    let mut comparison = json!({ "way": way, "server": ours.name(), "baseline": baseline.name() });
    for figure in Figure::ALL {
        if figure == Figure::Failed {
            comparison[figure.key()] =
                json!({ "ours": ours.value(figure), "baseline": baseline.value(figure) });
        } else {
            comparison[figure.reduction_key()] = json!(ours.reduction(figure, baseline));
        }
    }
    let at_best = |figure| json!(ours.reduction_at_best(figure, baseline));
    comparison["at_best_repetitions"] = json!({
        "setup_time_reduction": at_best(Figure::Setup),
        "client_connect_reduction": at_best(Figure::Connect),
        "cpu_reduction": at_best(Figure::Cpu),
        "broadcast_reduction": at_best(Figure::Broadcast),
    });
    comparison["broadcast_speedup"] =
        json!(baseline.value(Figure::Broadcast) / ours.value(Figure::Broadcast));
    comparison
}

/// The best way there is, beside the best tuned server in each column.
pub(crate) struct Verdict<'a> {
    pub(crate) way: u8,
    pub(crate) ours: &'a Measured,
    results: &'a Results,
}

impl<'a> Verdict<'a> {
    /// `None`: nobody of ours was measured, or no tuned server.
    pub(crate) fn of(results: &'a Results) -> Option<Self> {
        let (way, ours) = results.ways().max_by_key(|&(way, _)| way)?;
        results.on(Side::Tuned).next()?;
        Some(Self { way, ours, results })
    }

    /// By which part our figure is below that of the best tuned server, and which that is.
    pub(crate) fn gain(&self, figure: Figure) -> Option<(f64, &'a Measured)> {
        let best = self.results.best(Side::Tuned, figure)?;
        Some((self.ours.reduction(figure, best)?, best))
    }

    pub(crate) fn is_kept(&self, figure: Figure, promise: f64) -> bool {
        self.gain(figure).is_some_and(|(gain, _)| gain >= promise)
    }

    pub(crate) fn is_met(&self) -> bool {
        self.is_kept(Figure::Setup, SETUP_PROMISE) && self.is_kept(Figure::IdleMemory, MEMORY_PROMISE)
    }

    pub(crate) fn to_json(&self) -> Value {
        let side = |figure: Figure, promise: f64| {
            let (gain, best) = self.gain(figure).unzip();
            json!({
                "baseline": best.map(Measured::name), "reduction": gain,
                "promised": promise, "is_met": self.is_kept(figure, promise),
            })
        };
        json!({
            "way": self.way, "server": self.ours.name(), "is_met": self.is_met(),
            "setup_time": side(Figure::Setup, SETUP_PROMISE),
            "memory": side(Figure::IdleMemory, MEMORY_PROMISE),
        })
    }

    /// One line to read.
    pub(crate) fn sentence(&self) -> String {
        let part = |figure, promise: f64| match self.gain(figure) {
            Some((gain, best)) => format!(
                "{} against {} (of the best repetitions {}; promised {}: {})",
                percent(gain),
                best.name(),
                self.ours.reduction_at_best(figure, best).map(percent).unwrap_or_default(),
                percent(promise),
                if gain >= promise { "met" } else { "missed" }
            ),
            None => "nothing to compare with".to_owned(),
        };
        format!(
            "{}: set-up time {}; idle memory {}",
            self.ours.name(),
            part(Figure::Setup, SETUP_PROMISE),
            part(Figure::IdleMemory, MEMORY_PROMISE)
        )
    }
}

/// A reduction as people write it: 0.3 is −30 %.
pub(crate) fn percent(reduction: f64) -> String {
    let sign = if reduction >= 0.0 { '−' } else { '+' };
    format!("{sign}{:.1} %", reduction.abs() * 100.0)
}

/// Something that this crate sets out to reach.
pub(crate) struct Goal {
    pub(crate) server: &'static str,
    pub(crate) what: String,
    pub(crate) wanted: String,
    pub(crate) measured: String,
    pub(crate) is_met: bool,
}

impl Goal {
    pub(crate) fn to_json(&self) -> Value {
        let Self { server, what, wanted, measured, is_met } = self;
        json!({ "server": server, "goal": what, "wanted": wanted, "measured": measured, "is_met": is_met })
    }
}

/// The goals of the ways that were measured.
pub(crate) fn goals(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (way, ours) in results.ways() {
        let mut of = GoalsOf { ours, results, goals: &mut goals };
        match way {
            1 => of.below_all(Figure::IdleMemory, Side::Tuned, 0.35),
            2 => of.at_most(Figure::IdleMemory, 2_600.0),
            _ => of.third_way(),
        }
        of.no_more_failures();
    }
    goals
}

struct GoalsOf<'a> {
    ours: &'a Measured,
    results: &'a Results,
    goals: &'a mut Vec<Goal>,
}

impl GoalsOf<'_> {
    fn third_way(&mut self) {
        self.at_most(Figure::IdleMemory, 1_700.0);
        self.below_all(Figure::IdleMemory, Side::Default, 0.97);
        for name in [TOKIO_TUNGSTENITE_TUNED, FASTWEBSOCKETS] {
            if let Some(baseline) = self.results.named(name) {
                self.below(Figure::IdleMemory, baseline, 0.80);
            }
        }
        self.message_leaves_nothing(0.10);
        self.below_all(Figure::Setup, Side::Tuned, 0.30);
        self.below_all(Figure::Cpu, Side::Default, 0.60);
        self.below_all(Figure::Cpu, Side::Tuned, 0.15);
        self.at_most(Figure::Allocations, 2.0);
        self.times_as_fast(Figure::Broadcast, 5.0);
    }

    fn at_most(&mut self, figure: Figure, most: f64) {
        // As it is shown: what the first connections of all built is not one of a set-up.
        let value = (self.ours.value(figure) * 10.0).round() / 10.0;
        let wanted = format!("at most {} {}", figure.show(most), figure.unit());
        self.add(figure.label().to_owned(), wanted, figure.show(value), value <= most);
    }

    /// Below the best of a side, and so below all.
    fn below_all(&mut self, figure: Figure, side: Side, least: f64) {
        if let Some(best) = self.results.best(side, figure) {
            self.below(figure, best, least);
        }
    }

    fn below(&mut self, figure: Figure, baseline: &Measured, least: f64) {
        let Some(reduction) = self.ours.reduction(figure, baseline) else { return };
        let what = format!("{} against {}", figure.label(), baseline.name());
        self.add(what, percent(least), percent(reduction), reduction >= least);
    }

    fn message_leaves_nothing(&mut self, most: f64) {
        let growth = self.ours.value(Figure::MemoryAfterMessage) / self.ours.value(Figure::IdleMemory) - 1.0;
        let what = "memory that one 16 KB message each leaves behind".to_owned();
        self.add(what, format!("at most {}", percent(-most)), percent(-growth), growth <= most);
    }

    fn times_as_fast(&mut self, figure: Figure, least: f64) {
        let of_all = self.results.baselines().map(|baseline| baseline.value(figure));
        let Some(best) = of_all.min_by(f64::total_cmp) else { return };
        let speedup = best / self.ours.value(figure);
        let what = format!("{} against the best baseline", figure.label());
        self.add(what, format!("{least:.0} ×"), format!("{speedup:.1} ×"), speedup >= least);
    }

    fn no_more_failures(&mut self) {
        let of_all = self.results.baselines().map(|baseline| baseline.value(Figure::Failed));
        let Some(fewest) = of_all.min_by(f64::total_cmp) else { return };
        let failed = self.ours.value(Figure::Failed);
        let wanted = format!("at most the baselines' {fewest:.0}");
        self.add("connections that failed".to_owned(), wanted, format!("{failed:.0}"), failed <= fewest);
    }

    fn add(&mut self, what: String, wanted: String, measured: String, is_met: bool) {
        self.goals.push(Goal { server: self.ours.name(), what, wanted, measured, is_met });
    }
}
