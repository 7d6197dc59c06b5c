//! The results for a person at a terminal.

use crate::figures::{Figure, grouped};
use crate::results::{Measured, Results};
use crate::verdict::{Verdict, goals};

pub(crate) fn print(results: &Results) {
    println!("{}, {}", results.machine.hardware, results.machine.kernel);
    println!(
        "{} idle connections, {} of each user; {} set-ups one by one; {} repetitions, interleaved\n",
        grouped(results.connections as f64),
        results.per_user,
        grouped(results.setups as f64),
        results.repetitions
    );
    println!("medians");
    rows(results, |server, figure| figure.show(server.value(figure)));
    println!("\nminimum–maximum of the repetitions");
    rows(results, |server, figure| {
        let samples = server.figures.of(figure);
        format!("{}–{}", figure.show(samples.min()), figure.show(samples.max()))
    });
    let goals = goals(results);
    if !goals.is_empty() {
        println!("\ngoals");
        for goal in goals {
            let mark = if goal.is_met { "met   " } else { "missed" };
            println!("  {mark}  {:<11} {:<56} {} ({})", goal.server, goal.what, goal.measured, goal.wanted);
        }
    }
    if let Some(verdict) = Verdict::of(results) {
        println!("\n{}", verdict.sentence());
    }
    for note in &results.notes {
        println!("note: {note}");
    }
    println!("measured in {:.0} s", results.took.as_secs_f64());
}

fn rows(results: &Results, show: impl Fn(&Measured, Figure) -> String) {
    let cells: Vec<Vec<String>> = results
        .servers
        .iter()
        .map(|server| Figure::ALL.iter().map(|&figure| show(server, figure)).collect())
        .collect();
    let widths: Vec<usize> = Figure::ALL
        .iter()
        .enumerate()
        .map(|(column, figure)| {
            let texts = figure.heading().into_iter().chain(cells.iter().map(|row| &*row[column]));
            texts.map(|text| text.chars().count()).max().unwrap_or(0)
        })
        .collect();
    for line in 0..3 {
        print!("  {:<26}", if line == 0 { "" } else { " " });
        for (figure, width) in Figure::ALL.iter().zip(&widths) {
            print!("  {:>width$}", figure.heading()[line]);
        }
        println!();
    }
    for (server, row) in results.servers.iter().zip(&cells) {
        print!("  {:<26}", server.name());
        for (cell, width) in row.iter().zip(&widths) {
            print!("  {cell:>width$}");
        }
        println!();
    }
}
