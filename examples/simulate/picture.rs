//! The timeline, as one HTML page that needs nothing else.

use super::engine::{FIRST_HOUR, Moment, Outcome, Swept};
use super::table::grouped;
use std::fmt::Write;
use ws_manager_pool::{AlertLevel, Operation};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 150.0;
/// Room for the labels of the axis at the left, and beside the picture.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 24.0;

const STYLE: &str = "\
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6675; --line: #d5dae1; --paper: #fff;
  --plain: #5b7fa6; --calm: #3a8f7b; --info: #3f7fd1; --warning: #d99a1c; --critical: #d9641c;
  --emergency: #c22f3d; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --soft: #9aa5b4; --line: #353d49; --paper: #161a20; --plain: #7fa3ca;
    --calm: #55b39d; --info: #6ba4ec; --warning: #e8b445; --critical: #ee8747; --emergency: #e8616d; }
}
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 990px; margin: 24px auto; padding: 0 15px; }
h1 { font-size: 20px; } h2 { font-size: 17px; margin-top: 36px; }
h3 { font-size: 14px; margin: 22px 0 2px; }
p { margin: 2px 0 6px; color: var(--soft); }
svg { width: 100%; height: auto; display: block; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg line { stroke: var(--line); }
i { display: inline-block; width: 10px; height: 10px; margin: 0 5px 0 14px; border-radius: 2px; }
i:first-child { margin-left: 0; }
";

/// One part of the stack.
struct Series {
    name: String,
    colour: &'static str,
    values: Vec<u64>,
}

/// A page with a timeline for each outcome.
pub(crate) fn page(outcomes: &[(&str, &Outcome)]) -> String {
    let plan = &outcomes[0].1.plan;
    let title = format!("{} hours of {} users, seed {}", plan.hours, grouped(plan.users.into()), plan.seed);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    );
    for (name, outcome) in outcomes {
        if outcomes.len() > 1 {
            put(&mut page, format_args!("<h2>{name}</h2>\n"));
        }
        timeline(&mut page, outcome);
    }
    page.push_str("</body></html>\n");
    page
}

fn timeline(page: &mut String, outcome: &Outcome) {
    let counts = &outcome.counts;
    put(
        page,
        format_args!(
            "<p>{} connections; {} accumulated, {} of {} minutes unbalanced, {} wrong clean-ups, {} limit \
             hits.</p>\n",
            grouped(counts.connections),
            outcome.accumulated(),
            outcome.unbalanced_minutes,
            outcome.minutes,
            counts.wrong_cleanups,
            grouped(counts.limit_hits)
        ),
    );
    let moments = &outcome.moments;
    let per = match moments.first() {
        Some(&Moment { minute: 1, .. }) | None => "in each minute".to_owned(),
        Some(first) => format!("in each {} minutes", first.minute),
    };
    let live = moments.iter().map(|moment| moment.live as u64).collect();
    panel(page, moments, "Live managers", &[series("live", "plain", live)]);
    let levels: Vec<Series> = AlertLevel::ALL
        .iter()
        .zip(["calm", "info", "warning", "critical", "emergency"])
        .map(|(&level, colour)| {
            let users = moments.iter().map(|moment| moment.users_at_level[level as usize] as u64);
            series(&level.to_string(), colour, users.collect())
        })
        .collect();
    panel(page, moments, "Users with a connection, by alert level", &levels);
    panel(page, moments, "The same, without those at the normal level", &levels[1..]);
    let swept = |figure: fn(&Swept) -> u64| -> Vec<Series> {
        [
            (Operation::Background, "background", "plain"),
            (Operation::Proactive, "proactive", "calm"),
            (Operation::Emergency, "emergency", "emergency"),
        ]
        .map(|(operation, name, colour)| {
            let total = moments.iter().map(|moment| figure(&moment.sweeps[operation as usize]));
            series(name, colour, differences(total))
        })
        .into()
    };
    panel(page, moments, &format!("Sweeps {per}"), &swept(|swept| swept.runs));
    panel(page, moments, &format!("Managers cleaned {per}"), &swept(|swept| swept.cleaned));
    let refusals = [
        series("limit hits", "emergency", differences(moments.iter().map(|moment| moment.limit_hits))),
        series("other refusals", "plain", differences(moments.iter().map(|moment| moment.other_refusals))),
    ];
    panel(page, moments, &format!("Refusals {per}"), &refusals);
}

/// Stacked columns over the day, with a legend and both axes.
fn panel(page: &mut String, moments: &[Moment], title: &str, stack: &[Series]) {
    let sum_at = |at: usize| stack.iter().map(|series| series.values[at]).sum::<u64>();
    let peak = (0..moments.len()).map(sum_at).max().unwrap_or(0);
    put(page, format_args!("<h3>{title}</h3>\n<p>"));
    for Series { name, colour, values } in stack {
        let most = grouped(values.iter().copied().max().unwrap_or(0));
        put(page, format_args!("<i style=\"background:var(--{colour})\"></i>{name}, at most {most}"));
    }
    let full = HEIGHT + TOP + BOTTOM;
    put(
        page,
        format_args!("</p>\n<svg viewBox=\"0 0 {WIDTH} {full}\" role=\"img\" aria-label=\"{title}\">\n"),
    );
    let ceiling = ceiling(peak);
    let y = |value: u64| TOP + HEIGHT * (1.0 - value as f64 / ceiling as f64);
    // Four steps, or as many as there are whole numbers.
    let step = ceiling.div_ceil(4);
    for value in (0..=ceiling).step_by(step as usize) {
        let (at, right) = (y(value), WIDTH - RIGHT);
        let (label, end, below) = (grouped(value), LEFT - 8.0, at + 4.0);
        put(page, format_args!("<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"));
        put(page, format_args!("<text x=\"{end}\" y=\"{below:.1}\" text-anchor=\"end\">{label}</text>\n"));
    }
    hours(page, moments);
    let column = (WIDTH - LEFT - RIGHT) / moments.len().max(1) as f64;
    let mut floor = vec![0; moments.len()];
    for Series { colour, values, .. } in stack {
        let mut path = String::new();
        for (at, (floor, &value)) in floor.iter_mut().zip(values).enumerate() {
            if value > 0 {
                let (left, bottom, top) = (LEFT + column * at as f64, y(*floor), y(*floor + value));
                put(&mut path, format_args!("M{left:.1} {bottom:.1}V{top:.1}h{column:.2}V{bottom:.1}z"));
            }
            *floor += value;
        }
        if !path.is_empty() {
            put(page, format_args!("<path fill=\"var(--{colour})\" d=\"{path}\"/>\n"));
        }
    }
    if peak == 0 {
        let (x, y) = (WIDTH / 2.0, TOP + HEIGHT / 2.0);
        put(page, format_args!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">none</text>\n"));
    }
    page.push_str("</svg>\n");
}

/// The time of day below the columns.
fn hours(page: &mut String, moments: &[Moment]) {
    let Some(last) = moments.last() else { return };
    let hours = last.minute / 60;
    let step = hours.div_ceil(12).max(1);
    for hour in (0..=hours).step_by(step as usize) {
        let x = LEFT + (WIDTH - LEFT - RIGHT) * (hour * 60) as f64 / last.minute as f64;
        let label = (FIRST_HOUR + hour) % 24;
        let y = TOP + HEIGHT + 16.0;
        put(page, format_args!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label:02}:00</text>\n"));
    }
}

/// The next number that is easy to read an axis by.
fn ceiling(peak: u64) -> u64 {
    let mut unit = 1;
    loop {
        for step in [1, 2, 3, 4, 6, 8] {
            if step * unit >= peak.max(1) {
                return step * unit;
            }
        }
        unit *= 10;
    }
}

fn series(name: &str, colour: &'static str, values: Vec<u64>) -> Series {
    Series { name: name.to_owned(), colour, values }
}

/// What came to a running total at each step.
fn differences(totals: impl Iterator<Item = u64>) -> Vec<u64> {
    let step = |last: &mut u64, total: u64| Some(total - std::mem::replace(last, total));
    totals.scan(0, step).collect()
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes it");
}
