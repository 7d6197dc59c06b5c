//! The results for other programs.

use crate::figures::Figure;
use crate::results::{Measured, Results};
use crate::server::Side;
use crate::verdict::{Verdict, comparison, goals};
use serde_json::{Value, json};

pub(crate) fn report(results: &Results) -> Value {
    let servers: Vec<_> = results.servers.iter().map(server).collect();
    let comparisons: Vec<_> = results
        .ways()
        .flat_map(|(way, ours)| results.baselines().map(move |baseline| comparison(way, ours, baseline)))
        .collect();
    let behind_axum: Vec<_> = results
        .ways_behind_axum()
        .flat_map(|(way, ours)| {
            let axum = results.baselines().filter(|baseline| baseline.name().starts_with("axum"));
            axum.map(move |baseline| comparison(way, ours, baseline))
        })
        .collect();
    let goals: Vec<_> = goals(results).iter().map(|goal| goal.to_json()).collect();
    json!({
        "date": results.machine.date,
        "machine": results.machine.to_json(),
        "connections": results.connections,
        "setups": results.setups,
        "per_user": results.per_user,
        "repetitions": results.repetitions,
        "seconds": results.took.as_secs_f64(),
        "notes": results.notes,
        "servers": servers,
        "comparisons": comparisons,
        "comparisons_behind_axum": behind_axum,
        "goals": goals,
        "verdict": Verdict::of(results).map(|verdict| verdict.to_json()),
    })
}

fn server(server: &Measured) -> Value {
    let (kind, way) = match server.side() {
        Side::Default => ("default", None),
        Side::Tuned => ("tuned", None),
        Side::Way(way) => ("ours", Some(way)),
        Side::WayBehindAxum(way) => ("ours-behind-axum", Some(way)),
    };
    let mut figures = json!({});
    for figure in Figure::ALL {
        figures[figure.key()] = server.figures.of(figure).to_json();
    }
    json!({
        "name": server.name(), "kind": kind, "way": way,
        "description": server.contender.description, "figures": figures,
    })
}
