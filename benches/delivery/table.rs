//! Figures of several repetitions, and the lines they are printed in.

/// One figure, measured several times.
#[derive(Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, sample: f64) {
        self.0.push(sample);
        self.0.sort_by(f64::total_cmp);
    }

    pub(crate) fn min(&self) -> f64 {
        self.0[0]
    }

    pub(crate) fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    pub(crate) fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}

/// Which end of a figure is good.
#[derive(Clone, Copy)]
pub(crate) enum Better {
    Less,
    More,
}

/// The ratios of most tables.
pub(crate) const GAIN: &str = "pool is better by";

/// Prints the heading of a table. `gain` says what the ratios at its right are.
pub(crate) fn heading(what: &str, unit: &str, gain: &str) {
    println!("{:<44} {:>12} {:>12} {:>12}   {gain}", format!("{what}, {unit}"), "min", "median", "max");
}

/// Prints one figure for all contenders. How much better the first one is than another is a ratio of
/// medians, and in brackets of the best repetitions.
pub(crate) fn lines(figures: &[(&str, Samples)], better: Better) {
    let best = |samples: &Samples| match better {
        Better::Less => samples.min(),
        Better::More => samples.max(),
    };
    let gain = |first: f64, other: f64| match better {
        Better::Less => other / first,
        Better::More => first / other,
    };
    let first = &figures[0].1;
    for (index, (name, samples)) in figures.iter().enumerate() {
        print!(
            "  {name:<42} {:>12} {:>12} {:>12}",
            number(samples.min()),
            number(samples.median()),
            number(samples.max())
        );
        if index > 0 {
            let (median, best) = (gain(first.median(), samples.median()), gain(best(first), best(samples)));
            print!("   {median:.2} × ({best:.2} ×)");
        }
        println!();
    }
}

fn number(value: f64) -> String {
    if value >= 1_000.0 {
        let digits = format!("{value:.0}");
        let (head, tail) = digits.split_at(digits.len() - 3);
        if head.len() > 3 {
            let (first, second) = head.split_at(head.len() - 3);
            return format!("{first},{second},{tail}");
        }
        format!("{head},{tail}")
    } else {
        format!("{value:.1}")
    }
}
