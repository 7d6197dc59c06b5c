//! What was promised, and whether this run shows it. Nothing fails for a time: a reader decides.

use crate::report::Line;
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    pub what: &'static str,
    pub wanted: &'static str,
    pub measured: String,
    /// `None`: it could not be measured in this run.
    pub is_met: Option<bool>,
}

impl Goal {
    fn new(what: &'static str, wanted: &'static str, verdict: Option<(String, bool)>) -> Self {
        let (measured, is_met) = verdict.unzip();
        Self { what, wanted, measured: measured.unwrap_or_else(|| "not measured".to_owned()), is_met }
    }
}

pub fn judge(core: &[Line], whole: &[Line]) -> Vec<Goal> {
    vec![
        over_the_floor(core),
        ratio("slab: both cores at once", "≤ 1.1 × alone", find(core, OURS), 1.1),
        throughput(core),
        ratio("pool, reserve → open → drop: both cores at once", "≤ 1.2 × alone", find(whole, GIVEN), 1.2),
        churn(core),
        get(core),
        walk(core),
        latency(core),
        allocations("slab", core, OURS),
        allocations("pool", whole, BARE),
        overhead(core),
        after_peak(core),
        usual("pool with ids against the usual registry", whole, BARE, "usual: ids, Arc, mpsc, DashMap"),
        usual("the same, with a count for each user", whole, BARE, "usual, a count for each user"),
        usual("the same, and fast ids", whole, BARE, "usual, a count, fast ids"),
        usual("the same, with a 10 KB state", whole, STATEFUL, "usual, a count, a 10 KB state"),
    ]
}

const OURS: &str = "ws-manager-pool: Slab";
const GIVEN: &str = "Pool: reserve, open, drop";
const BARE: &str = "Pool: ids, reserve, open, drop";
const STATEFUL: &str = "Pool, a 10 KB state";

fn find<'a>(lines: &'a [Line], name: &str) -> Option<&'a Line> {
    lines.iter().find(|line| line.facts.name == name)
}

fn over_the_floor(core: &[Line]) -> Goal {
    let verdict = (|| {
        let (ours, floor) = (find(core, OURS)?.lives?.alone, find(core, "floor: reset only")?.lives?.alone);
        let [min, median] = [ours.min - floor.min, ours.median - floor.median];
        Some((format!("{min:.1} ns of minima, {median:.1} of medians"), min <= 18.0))
    })();
    Goal::new("slab: a life over the floor, one thread", "≤ 18 ns (stretch 12)", verdict)
}

fn ratio(what: &'static str, wanted: &'static str, line: Option<&Line>, most: f64) -> Goal {
    let verdict = (|| {
        let (medians, minima) = line?.lives?.ratio()?;
        Some((format!("{medians:.2} × of medians, {minima:.2} × of minima"), medians <= most))
    })();
    Goal::new(what, wanted, verdict)
}

fn throughput(core: &[Line]) -> Goal {
    let verdict = (|| {
        let ours = find(core, OURS)?.lives?.throughput()?;
        let times = ours / find(core, "sharded-slab pool")?.lives?.throughput()?;
        Some((format!("{times:.2} ×, {ours:.1} million a second"), times >= 1.5))
    })();
    Goal::new("slab: throughput of both cores", "≥ 1.5 × sharded-slab", verdict)
}

fn churn(core: &[Line]) -> Goal {
    let verdict = (|| {
        let ours = find(core, OURS)?.churn?.median;
        let peers = core.iter().filter(|line| line.is_peer());
        let best = peers.filter_map(|line| Some((line.churn?.median, line.facts.name)));
        let (best, name) = best.min_by(|first, second| first.0.total_cmp(&second.0))?;
        Some((format!("{ours:.0} ns, the best peer {best:.0} ({name})"), ours < best))
    })();
    Goal::new("slab: churn of 10,000 live ones", "ahead of every peer", verdict)
}

fn get(core: &[Line]) -> Goal {
    let verdict = (|| {
        let ours = find(core, OURS)?.get?;
        Some((format!("{:.1} ns (median {:.1})", ours.min, ours.median), ours.min <= 18.0))
    })();
    Goal::new("slab: get by key, of 10,000", "≤ 18 ns", verdict)
}

fn walk(core: &[Line]) -> Goal {
    let verdict = (|| {
        let ours = find(core, OURS)?.walk?;
        Some((format!("{:.1} ns (median {:.1})", ours.min, ours.median), ours.min <= 5.0))
    })();
    Goal::new("slab: a walk, for each slot", "≤ 5 ns", verdict)
}

fn latency(core: &[Line]) -> Goal {
    let verdict = (|| {
        let ours = find(core, OURS)?.latency?.p99_9;
        let peers = core.iter().filter(|line| line.is_peer());
        let best = peers.filter_map(|line| Some((line.latency?.p99_9, line.facts.name)));
        let (best, name) = best.min()?;
        Some((format!("{ours} ns, the best peer {best} ({name})"), ours <= 400 || ours < best))
    })();
    Goal::new("slab: acquire, p99.9 with 4 threads", "≤ 400 ns, or ahead of every peer", verdict)
}

fn allocations(of: &'static str, lines: &[Line], name: &str) -> Goal {
    let verdict = (|| {
        let memory = find(lines, name)?.memory.as_ref()?;
        let all = [memory.life, memory.churn, memory.hand_off];
        let measured = format!("{:.3} a life, {:.3} in churn, {:.3} across threads", all[0], all[1], all[2]);
        Some((measured, all.iter().all(|&allocations| allocations == 0.0)))
    })();
    let what = match of {
        "slab" => "slab: allocations in the steady state",
        _ => "pool: allocations in the steady state",
    };
    Goal::new(what, "none, across threads too", verdict)
}

fn overhead(core: &[Line]) -> Goal {
    let verdict = (|| {
        let bytes = find(core, OURS)?.memory.as_ref()?.overhead;
        Some((format!("{bytes:.0} B"), bytes <= 128.0))
    })();
    Goal::new("slab: bytes for a live manager, beyond its own", "≤ 128 B", verdict)
}

fn after_peak(core: &[Line]) -> Goal {
    let verdict = (|| {
        let [right_away, turned_over] = find(core, OURS)?.memory.as_ref()?.beyond_fresh()?;
        Some((format!("{turned_over:.2} ×; right away {right_away:.1} ×"), turned_over <= 2.0))
    })();
    Goal::new(
        "slab: 100,000 → 1,000 random survivors, each replaced once",
        "≤ 2 × a fresh one of 1,000",
        verdict,
    )
}

fn usual(what: &'static str, whole: &[Line], ours: &str, usual: &str) -> Goal {
    let verdict = (|| {
        let (ours, usual) = (find(whole, ours)?.lives?.alone, find(whole, usual)?.lives?.alone);
        let [medians, minima] = [usual.median / ours.median, usual.min / ours.min];
        Some((format!("{medians:.1} × of medians, {minima:.1} × of minima"), medians >= 6.0))
    })();
    Goal::new(what, "≥ 6 × faster", verdict)
}
