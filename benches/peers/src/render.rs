//! A report as Markdown, whose tables can be read as they are.

use crate::measure::samples::Summary;
use crate::report::{Line, Report};
use std::fmt;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        writeln!(
            f,
            "{} cores of {}, Linux {}, {}, {}, load {} at the start and {} at the end, {:?}.\n",
            machine.cores,
            machine.processor,
            machine.kernel,
            machine.rustc,
            machine.allocator,
            machine.load[0],
            machine.load[1],
            self.effort
        )?;
        writeln!(f, "Goals:\n")?;
        table(
            f,
            &["goal", "wanted", "measured", ""],
            self.goals.iter().map(|goal| {
                let verdict = match goal.is_met {
                    Some(true) => "met",
                    Some(false) => "MISSED",
                    None => "?",
                };
                vec![goal.what.into(), goal.wanted.into(), goal.measured.clone(), verdict.into()]
            }),
        )?;
        writeln!(
            f,
            "\nThe pool alone, ns for one operation: minimum (median); ~: every block was disturbed.\n"
        )?;
        times(f, &self.core)?;
        writeln!(f, "\nThe whole pool, ns for one operation: minimum (median).\n")?;
        times(f, &self.whole)?;
        let clock = self.clock;
        writeln!(
            f,
            "\nAn acquire with 4 threads at it, ns; the clock's own part is {} / {} / {}.\n",
            clock.p50, clock.p99, clock.p99_9
        )?;
        let all = || self.core.iter().chain(&self.whole);
        table(
            f,
            &["", "p50", "p99", "p99.9", "max", "acquires"],
            all().filter_map(|line| {
                let latency = line.latency?;
                let figures = [latency.p50, latency.p99, latency.p99_9, latency.max, latency.acquires];
                Some(
                    [line.facts.name.to_owned()]
                        .into_iter()
                        .chain(figures.map(|figure| figure.to_string()))
                        .collect(),
                )
            }),
        )?;
        writeln!(
            f,
            "\nMemory: bytes of a live manager beyond its own (of 10,000); bytes for each of 1,000 random survivors of \
             100,000, right away and when each was replaced once, against a fresh one of 1,000; allocations a life.\n"
        )?;
        let heading = [
            "",
            "overhead, B",
            "right away, B",
            "turned over, B",
            "fresh, B",
            "×",
            "one thread",
            "churn",
            "across threads",
            "frees",
            "a stale key",
            "can wait",
        ];
        table(f, &heading, all().filter_map(memory))?;
        match &self.instructions {
            Ok(counts) => {
                writeln!(f, "\nInstructions of the hot paths.\n")?;
                table(
                    f,
                    &["", "instructions"],
                    counts.iter().map(|path| vec![path.what.to_owned(), format!("{:.0}", path.each)]),
                )
            }
            Err(missing) => writeln!(f, "\nInstructions were not counted: {missing}"),
        }
    }
}

fn times(f: &mut fmt::Formatter<'_>, lines: &[Line]) -> fmt::Result {
    let heading = [
        "",
        "one thread",
        "× ours",
        "both cores at once",
        "at once / alone",
        "blocks",
        "10,000 live, churn",
        "× ours",
        "get(key)",
        "walk, a slot",
        "hand-off",
    ];
    let ours = &lines[0];
    table(
        f,
        &heading,
        lines.iter().map(|line| {
            let alone = line.lives.map(|lives| lives.alone);
            let both = line.lives.and_then(|lives| lives.both);
            let ratio = line.lives.and_then(|lives| lives.ratio());
            vec![
                line.facts.name.to_owned(),
                whole(alone),
                times_ours(alone, ours.lives.map(|lives| lives.alone)),
                whole(both),
                ratio.map_or(String::new(), |(medians, minima)| format!("{medians:.2} ({minima:.2})")),
                both.map_or(String::new(), |both| format!("{} of {}", both.kept, both.kept + both.dropped)),
                whole(line.churn),
                times_ours(line.churn, ours.churn),
                tenths(line.get),
                tenths(line.walk),
                whole(line.hand_off),
            ]
        }),
    )
}

fn memory(line: &Line) -> Option<Vec<String>> {
    let memory = line.memory.as_ref()?;
    let bytes = |bytes: Option<f64>| bytes.map_or(String::new(), |bytes| format!("{bytes:.0}"));
    let allocations = |number: f64| if number == 0.0 { "0".to_owned() } else { format!("{number:.2}") };
    Some(vec![
        memory.name.clone(),
        bytes(Some(memory.overhead)),
        bytes(memory.after_peak),
        bytes(memory.turned_over),
        bytes(Some(memory.fresh)),
        memory.beyond_fresh().map_or(String::new(), |[_, turned_over]| format!("{turned_over:.2}")),
        allocations(memory.life),
        allocations(memory.churn),
        allocations(memory.hand_off),
        line.facts.frees.to_owned(),
        line.facts.stale.to_owned(),
        if line.facts.waits { "yes" } else { "" }.to_owned(),
    ])
}

fn whole(summary: Option<Summary>) -> String {
    cell(summary, 0)
}

fn tenths(summary: Option<Summary>) -> String {
    cell(summary, 1)
}

fn cell(summary: Option<Summary>, digits: usize) -> String {
    let Some(Summary { min, median, kept, .. }) = summary else { return String::new() };
    let mark = if kept == 0 { "~" } else { "" };
    format!("{mark}{min:.digits$} ({median:.digits$})")
}

/// The ratio of medians.
fn times_ours(summary: Option<Summary>, ours: Option<Summary>) -> String {
    let ratio = summary.zip(ours).map(|(summary, ours)| summary.median / ours.median);
    ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"))
}

fn table(
    f: &mut fmt::Formatter<'_>,
    heading: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> fmt::Result {
    let rows: Vec<_> = rows.collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heading[column].chars().count(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<_> = (0..heading.len()).map(width).collect();
    let mut line = |cells: &[&str]| -> fmt::Result {
        for (cell, width) in cells.iter().zip(&widths) {
            write!(f, "| {cell:<width$} ")?;
        }
        writeln!(f, "|")
    };
    line(heading)?;
    let rule: Vec<_> = widths.iter().map(|&width| "-".repeat(width)).collect();
    line(&rule.iter().map(String::as_str).collect::<Vec<_>>())?;
    rows.iter().try_for_each(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>()))
}
