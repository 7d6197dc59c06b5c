//! A figure of all servers, as horizontal bars.

use crate::figures::Figure;
use crate::html::colour;
use crate::results::{Measured, Results};
use crate::server::Side;
use std::fmt::Write;

// In the picture's own units, about a pixel each.
const WIDTH: f64 = 520.0;
const NAMES: f64 = 172.0;
const VALUES: f64 = 76.0;
const ROW: f64 = 26.0;
const BAR: f64 = 15.0;

/// A default server that is so many times the rest would leave the rest no room: its bar is cut.
const CUT_FROM: f64 = 4.0;

/// Bars of the medians, with a line from the lowest to the highest repetition.
pub(crate) fn bars(results: &Results, figure: Figure) -> String {
    let end = end_of_scale(results, figure);
    let height = ROW * results.servers.len() as f64 + 4.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{} of each server\">\n\
         <line class=\"axis\" x1=\"{NAMES}\" x2=\"{NAMES}\" y1=\"0\" y2=\"{height}\"/>\n",
        figure.label()
    );
    for (index, server) in results.servers.iter().enumerate() {
        row(&mut svg, server, figure, end, ROW * index as f64 + 2.0);
    }
    svg.push_str("</svg>\n");
    svg
}

fn end_of_scale(results: &Results, figure: Figure) -> f64 {
    let most = |is_counted: fn(&Measured) -> bool| {
        let counted = results.servers.iter().filter(|server| is_counted(server));
        counted.map(|server| server.figures.of(figure).max()).fold(0.0, f64::max)
    };
    let (all, others) = (most(|_| true), most(|server| server.side() != Side::Default));
    let end = if others > 0.0 && all > CUT_FROM * others { others * 1.25 } else { all };
    if end > 0.0 { end } else { 1.0 }
}

fn row(svg: &mut String, server: &Measured, figure: Figure, end: f64, top: f64) {
    let samples = server.figures.of(figure);
    let room = WIDTH - NAMES - VALUES;
    let x = |value: f64| NAMES + (value / end).min(1.0) * room;
    let (value, is_cut) = (samples.median(), samples.median() > end);
    let (middle, bar_top) = (top + ROW / 2.0, top + (ROW - BAR) / 2.0);
    let name_class = if server.side().is_ours() { "ours" } else { "server" };
    let width = (x(value) - NAMES).max(1.0);
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<g><title>{name}: {value}, {low} to {high} {unit}</title>\
         <text class=\"{name_class}\" x=\"{name_x}\" y=\"{text_y}\" text-anchor=\"end\">{name}</text>\
         <rect class=\"{colour}\" x=\"{NAMES}\" y=\"{bar_top}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"3\"/>\
         {mark}<text class=\"{name_class}\" x=\"{value_x:.1}\" y=\"{text_y}\">{value}</text></g>",
        name = server.name(),
        value = figure.show(value),
        low = figure.show(samples.min()),
        high = figure.show(samples.max()),
        unit = figure.unit(),
        name_x = NAMES - 10.0,
        text_y = middle + 4.5,
        colour = colour(server.side()),
        mark = if is_cut { cut(bar_top, x(end)) } else { spread(middle, x(samples.min()), x(samples.max())) },
        value_x = x(if is_cut { end } else { samples.max().max(value) }) + 7.0,
    );
}

/// The bar goes on beyond the picture.
fn cut(top: f64, right: f64) -> String {
    let (left, bottom) = (right - 34.0, top + BAR + 1.0);
    format!(
        "<line class=\"cut\" x1=\"{left:.1}\" y1=\"{bottom:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        left + 8.0,
        top - 1.0
    )
}

fn spread(y: f64, low: f64, high: f64) -> String {
    if high - low < 1.0 {
        return String::new();
    }
    format!(
        "<path class=\"spread\" fill=\"none\" d=\"M{low:.1} {y}H{high:.1}M{low:.1} {0}v7M{high:.1} {0}v7\"/>",
        y - 3.5
    )
}
