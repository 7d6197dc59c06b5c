//! Figures by name, and the tables they are printed in.

use crate::loopback::Result;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// What was measured at one size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(BTreeMap<String, f64>);

impl Figures {
    pub(crate) fn set(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// The usual ones of a histogram in nanoseconds.
    pub(crate) fn quantiles(&mut self, name: &str, histogram: &Histogram<u64>) {
        for (quantile, suffix) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p999"), (1.0, "max")] {
            self.set(&format!("{name}_{suffix}_ns"), histogram.value_at_quantile(quantile) as f64);
        }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        // Three digits behind the point are more than any of them means.
        let rounded = |value: &f64| serde_json::Value::from((value * 1e3).round() / 1e3);
        self.0.iter().map(|(name, value)| (name.clone(), rounded(value))).collect()
    }

    pub(crate) fn from_json(text: &str) -> Result<Self> {
        Ok(Self(serde_json::from_str(text)?))
    }
}

/// A line of a table: what is said, the figure's name, and whether it is said how much it grew.
pub(crate) struct Line {
    pub(crate) label: &'static str,
    pub(crate) name: &'static str,
    pub(crate) grows: bool,
}

/// A line whose last column says by how much the figure grew from the first size to the last.
pub(crate) const fn growing(label: &'static str, name: &'static str) -> Line {
    Line { label, name, grows: true }
}

pub(crate) const fn plain(label: &'static str, name: &'static str) -> Line {
    Line { label, name, grows: false }
}

/// Prints a column for each size.
pub(crate) fn print(heading: &str, sizes: &[usize], figures: &[Figures], lines: &[Line]) {
    print!("{heading:<52}");
    sizes.iter().for_each(|&size| print!("{:>12}", number(size as f64)));
    println!("{:>10}", if sizes.len() > 1 { "grew ×" } else { "" });
    for line in lines {
        let of: Vec<_> = figures.iter().filter_map(|figures| figures.get(line.name)).collect();
        if of.is_empty() {
            continue;
        }
        print!("{:<52}", line.label);
        of.iter().for_each(|&value| print!("{:>12}", number(value)));
        match of[..] {
            [first, .., last] if line.grows && first > 0.0 => println!("{:>10.2}", last / first),
            _ => println!(),
        }
    }
}

/// 1234567.8 as 1,234,568, and small ones with a digit behind the point.
fn number(value: f64) -> String {
    if value.abs() < 100.0 && value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < -0.5 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
