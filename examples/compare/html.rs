//! The results as a page to look at: one file, nothing loaded, no script.

use crate::chart;
use crate::figures::{Figure, grouped};
use crate::machine::profile;
use crate::results::{Measured, Results};
use crate::server::Side;
use crate::verdict::{MEMORY_PROMISE, SETUP_PROMISE, Verdict, goals};
use std::fmt::Display;

const STYLE: &str = include_str!("report.css");

pub(crate) fn page(results: &Results) -> String {
    let verdict = Verdict::of(results);
    let parts = [
        head(results, verdict.as_ref()),
        verdict.map(|verdict| tiles(&verdict)).unwrap_or_default(),
        table(results),
        charts(results),
        goals_of(results),
        LIMITS.to_owned(),
        method(results),
        machine(results),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Connections, compared</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n\
         </body>\n</html>\n",
        parts.concat()
    )
}

fn head(results: &Results, verdict: Option<&Verdict<'_>>) -> String {
    let title = verdict.map_or_else(|| "Connections, compared".to_owned(), headline);
    let notes: String =
        results.notes.iter().map(|note| format!("<p><b>Note:</b> {}</p>\n", escape(note))).collect();
    format!(
        "<header>\n<p class=\"soft\">ws-manager-pool beside servers as they are usually written · {}</p>\n\
         <h1>{title}</h1>\n<p class=\"soft\">{} idle connections, {} of each user; measured {}, in turns; \
         {}.</p>\n{notes}</header>\n",
        escape(&results.machine.date),
        grouped(results.connections as f64),
        results.per_user,
        times(results.repetitions),
        escape(&results.machine.hardware),
    )
}

fn times(repetitions: usize) -> String {
    match repetitions {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        more => format!("{more} times"),
    }
}

fn headline(verdict: &Verdict<'_>) -> String {
    let less = |figure| verdict.gain(figure).map_or(0.0, |(gain, _)| gain);
    let part = |gain: f64, what: &str| {
        let more_or_less = if gain >= 0.0 { "less" } else { "more" };
        format!("{:.0} % {more_or_less} {what}", gain.abs() * 100.0)
    };
    format!(
        "Way {}: {} and {} than the best tuned server",
        verdict.way,
        part(less(Figure::IdleMemory), "memory"),
        part(less(Figure::Setup), "set-up time"),
    )
}

/// The figures that a reader wants first.
fn tiles(verdict: &Verdict<'_>) -> String {
    let shown = [
        (Figure::Setup, Some(SETUP_PROMISE)),
        (Figure::IdleMemory, Some(MEMORY_PROMISE)),
        (Figure::MemoryAfterMessage, None),
        (Figure::Cpu, None),
        (Figure::Allocations, None),
        (Figure::Broadcast, None),
    ];
    let tiles: String =
        shown.iter().filter_map(|&(figure, promise)| tile(verdict, figure, promise)).collect();
    format!("<div class=\"tiles\">\n{tiles}</div>\n")
}

fn tile(verdict: &Verdict<'_>, figure: Figure, promise: Option<f64>) -> Option<String> {
    let (gain, best) = verdict.gain(figure)?;
    let badge = promise.map_or_else(String::new, |promise| {
        badge(gain >= promise, &format!("goal {}:", percent_short(promise)))
    });
    Some(format!(
        "<div class=\"card tile\"><div class=\"name\">{}</div><div class=\"number\">{}</div>\
         <p class=\"why\">{} {}, against {} of {}</p>{badge}</div>\n",
        figure.label(),
        percent_short(gain),
        figure.show(verdict.ours.value(figure)),
        figure.unit(),
        figure.show(best.value(figure)),
        best.name(),
    ))
}

/// To a hundredth, for what is to be seen from afar.
fn percent_short(reduction: f64) -> String {
    let hundredths = (reduction * 100.0).round();
    match hundredths {
        0.0 => "0 %".to_owned(),
        less if less > 0.0 => format!("−{less:.0} %"),
        more => format!("+{:.0} %", more.abs()),
    }
}

fn badge(is_met: bool, text: &str) -> String {
    let (class, word) = if is_met { ("met", "met") } else { ("missed", "missed") };
    format!("<span class=\"badge {class}\">{text} {word}</span>")
}

fn table(results: &Results) -> String {
    let headings: String = Figure::ALL
        .iter()
        .map(|figure| {
            let [first, second, unit] = figure.heading();
            format!("<th scope=\"col\">{first}<br>{second}<small>{unit}</small></th>")
        })
        .collect();
    let rows: String = results.servers.iter().map(|server| row(results, server)).collect();
    format!(
        "<h2>Every figure</h2>\n<div class=\"card wide\">\n<table>\n<thead><tr><th scope=\"col\">server</th>\
         {headings}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n\
         <p class=\"soft\">The median of the repetitions, and below it the lowest and the highest; the best of a \
         column is bold. 16 KB are 16,384 bytes.</p>\n"
    )
}

fn row(results: &Results, server: &Measured) -> String {
    let cells: String = Figure::ALL
        .iter()
        .map(|&figure| {
            let samples = server.figures.of(figure);
            let value = figure.show(server.value(figure));
            let of_all = results.servers.iter().map(|other| other.value(figure)).min_by(f64::total_cmp);
            let is_best = figure != Figure::Failed && of_all == Some(server.value(figure));
            let class = if is_best { " class=\"best\"" } else { "" };
            let (min, max) = (figure.show(samples.min()), figure.show(samples.max()));
            format!("<td{class}>{value}<small>{min}–{max}</small></td>")
        })
        .collect();
    let class = if server.side().is_ours() { " class=\"ours\"" } else { "" };
    format!(
        "<tr{class}><th scope=\"row\" title=\"{}\"><span class=\"dot {}\"></span>{}</th>{cells}</tr>\n",
        escape(server.contender.description),
        colour(server.side()),
        server.name()
    )
}

fn charts(results: &Results) -> String {
    let cards: String = Figure::ALL
        .iter()
        .filter(|&&figure| figure != Figure::Failed)
        .map(|&figure| {
            format!(
                "<figure class=\"card chart\" style=\"margin:0\">\n<h3>{}</h3>\n<p>{}</p>\n{}</figure>\n",
                capital(figure.label()),
                caption(figure),
                chart::bars(results, figure)
            )
        })
        .collect();
    let mut kinds: Vec<(&str, String)> = Vec::new();
    for server in &results.servers {
        let kind = match server.side() {
            Side::Default => "libraries as they come".to_owned(),
            Side::Tuned => "with small buffers".to_owned(),
            Side::Way(way) | Side::WayBehindAxum(way) => format!("this crate, way {way}"),
        };
        if !kinds.iter().any(|(_, other)| *other == kind) {
            kinds.push((colour(server.side()), kind));
        }
    }
    let legend: String = kinds
        .iter()
        .map(|(colour, kind)| format!("<li><span class=\"dot {colour}\"></span>{kind}</li>\n"))
        .collect();
    format!(
        "<h2>Side by side</h2>\n<ul class=\"legend\">\n{legend}</ul>\n<div class=\"charts\">\n{cards}</div>\n"
    )
}

/// What the bars of a chart are, and which end is good.
fn caption(figure: Figure) -> &'static str {
    match figure {
        Figure::IdleMemory => "Bytes for each open connection that says nothing. Less is better.",
        Figure::MemoryAfterMessage => "The same, once each has sent one message of 16 KB.",
        Figure::MemoryAfterPeak => "Bytes for each of the tenth that stayed when the others had left.",
        Figure::Setup => "µs from accept to the first message that could be sent to the user, one at a time.",
        Figure::Connect => "µs from connect to the response, as a client sees it, one at a time.",
        Figure::Cpu => "µs of the server's core for each connection, kernel included, 16 at once.",
        Figure::Allocations => "Calls of the allocator for each connection that is set up.",
        Figure::Broadcast => "µs until a message of 512 B is handed to every connection.",
        Figure::Failed => "Connections that failed.",
    }
}

fn goals_of(results: &Results) -> String {
    let goals = goals(results);
    if goals.is_empty() {
        return String::new();
    }
    let rows: String = goals
        .iter()
        .map(|goal| {
            let (class, word) = if goal.is_met { ("met", "met") } else { ("missed", "missed") };
            format!(
                "<tr><td><span class=\"badge {class}\">{word}</span></td><td>{}</td><td>{}</td><td>{}</td>\
                 <td>{}</td></tr>\n",
                goal.server,
                escape(&goal.what),
                goal.measured,
                goal.wanted
            )
        })
        .collect();
    format!(
        "<h2>Goals</h2>\n<div class=\"card wide\">\n<table class=\"goals\">\n<thead><tr><th></th><th>server</th>\
         <th>goal</th><th>measured</th><th>wanted</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )
}

const LIMITS: &str = "<h2>What can’t be promised</h2>\n<div class=\"card\">\n\
    <p style=\"margin-top:0\">Most of the time in which a connection comes to be is not a server’s to save. The \
    kernel’s handshake, its wake-ups and the runtime’s scheduling put a floor under <b>the connect time that a \
    client sees</b> and under <b>the CPU of a connection</b>: about 24 % below the tuned servers, nobody gets \
    further.</p>\n<p style=\"margin-bottom:0\"><b>The kernel’s own memory</b> of a socket, 3.8 to 4.1 KB, comes on \
    top of every figure here. And the system’s allocator gives back what lies at the end of its heap only, so \
    after a peak that a tenth outlives here and there, a process keeps most of what it had, whichever the \
    server.</p>\n</div>\n";

fn method(results: &Results) -> String {
    let terms = [
        ("memory", "the proportional set size of the server’s process with the connections, less what it had before the first, divided by their number; looked at when it does not change any more".to_owned()),
        ("after a peak", "in a server of its own: all connect, nine of ten leave, and the rest is divided among those who stayed".to_owned()),
        ("set-up", format!("from <code>accept</code> returned until another task’s send to that user would be delivered, HTTP included; noted by the server; way 3 can be sent to before it has written its answer, the others once their library has; the median of {} connections, one at a time, the servers taking turns after every 50", grouped(results.setups as f64))),
        ("CPU", "of the thread that serves, user and kernel, while all connect, 16 at once".to_owned()),
        ("allocations", "calls that allocate or grow, while some hundred connect, 16 at once, to a server that has had more before".to_owned()),
        ("broadcast", format!("the call alone, to {} connections whose tasks sleep; the median of 11", grouped(results.setups as f64))),
        ("usual application", "reader and writer task, an <code>mpsc</code> of 64 messages, a <code>DashMap</code> by <code>user:thread</code> and one by user, four ids as strings, a heartbeat’s interval".to_owned()),
        ("the request", "the smallest that is a handshake: more headers cost the others more".to_owned()),
    ];
    format!("<h2>How it was measured</h2>\n<div class=\"card\">\n{}</div>\n", list(terms))
}

fn machine(results: &Results) -> String {
    let machine = &results.machine;
    let terms = [
        ("machine", escape(&machine.hardware)),
        ("kernel", escape(&machine.kernel)),
        ("allocator", format!("{} in every server", machine.allocator)),
        ("versions", escape(&machine.versions.join(", "))),
        ("build", profile().to_owned()),
        ("took", format!("{:.0} s", results.took.as_secs_f64())),
    ];
    format!("<h2>On what</h2>\n<div class=\"card\">\n{}</div>\n", list(terms))
}

fn list<T: Display, const N: usize>(terms: [(T, String); N]) -> String {
    let terms: String =
        terms.iter().map(|(term, text)| format!("<dt>{term}</dt><dd>{text}</dd>\n")).collect();
    format!("<dl>\n{terms}</dl>\n")
}

/// The class that gives a server its colour.
pub(crate) fn colour(side: Side) -> &'static str {
    match side {
        Side::Default => "default",
        Side::Tuned => "tuned",
        Side::Way(1) | Side::WayBehindAxum(1) => "way1",
        Side::Way(2) | Side::WayBehindAxum(2) => "way2",
        Side::Way(_) | Side::WayBehindAxum(_) => "way3",
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
