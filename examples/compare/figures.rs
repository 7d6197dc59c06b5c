//! What is measured of a server, and the figures of several repetitions.

use serde_json::{Value, json};

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    IdleMemory,
    MemoryAfterMessage,
    MemoryAfterPeak,
    Setup,
    Connect,
    Cpu,
    Allocations,
    Broadcast,
    Failed,
}

impl Figure {
    pub(crate) const ALL: [Self; 9] = [
        Self::IdleMemory,
        Self::MemoryAfterMessage,
        Self::MemoryAfterPeak,
        Self::Setup,
        Self::Connect,
        Self::Cpu,
        Self::Allocations,
        Self::Broadcast,
        Self::Failed,
    ];

    /// In JSON.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::IdleMemory => "idle_memory_bytes",
            Self::MemoryAfterMessage => "memory_after_message_bytes",
            Self::MemoryAfterPeak => "memory_after_peak_bytes",
            Self::Setup => "setup_us",
            Self::Connect => "client_connect_us",
            Self::Cpu => "cpu_us",
            Self::Allocations => "allocations",
            Self::Broadcast => "broadcast_us",
            Self::Failed => "failed_connections",
        }
    }

    /// How much less of it there is, as a fraction, in a comparison.
    pub(crate) fn reduction_key(self) -> &'static str {
        match self {
            Self::IdleMemory => "memory_reduction",
            Self::MemoryAfterMessage => "memory_after_message_reduction",
            Self::MemoryAfterPeak => "memory_after_peak_reduction",
            Self::Setup => "setup_time_reduction",
            Self::Connect => "client_connect_reduction",
            Self::Cpu => "cpu_reduction",
            Self::Allocations => "allocations_reduction",
            Self::Broadcast => "broadcast_reduction",
            Self::Failed => "failed_connections_reduction",
        }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::IdleMemory => "memory, idle",
            Self::MemoryAfterMessage => "memory after a 16 KB message",
            Self::MemoryAfterPeak => "memory after a peak",
            Self::Setup => "set-up",
            Self::Connect => "connect, seen by the client",
            Self::Cpu => "CPU",
            Self::Allocations => "allocations",
            Self::Broadcast => "broadcast, enqueue",
            Self::Failed => "failed",
        }
    }

    /// The heading of a column of text: two lines and the unit.
    pub(crate) fn heading(self) -> [&'static str; 3] {
        match self {
            Self::IdleMemory => ["memory", "idle", "B/conn"],
            Self::MemoryAfterMessage => ["memory", "after 16 KB", "B/conn"],
            Self::MemoryAfterPeak => ["memory", "after a peak", "B/conn"],
            Self::Setup => ["set-up", "median", "µs"],
            Self::Connect => ["connect", "client's", "µs"],
            Self::Cpu => ["CPU", "16 at once", "µs/conn"],
            Self::Allocations => ["allocs", "set-up", ""],
            Self::Broadcast => ["broadcast", "enqueue", "µs"],
            Self::Failed => ["failed", "connects", ""],
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::IdleMemory | Self::MemoryAfterMessage | Self::MemoryAfterPeak => "bytes a connection",
            Self::Setup | Self::Connect | Self::Broadcast => "µs",
            Self::Cpu => "µs a connection",
            Self::Allocations => "a set-up",
            Self::Failed => "connections",
        }
    }

    /// As it is printed.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::IdleMemory | Self::MemoryAfterMessage | Self::MemoryAfterPeak | Self::Failed => {
                grouped(value)
            }
            Self::Broadcast => grouped(value),
            Self::Setup | Self::Connect | Self::Cpu | Self::Allocations => format!("{value:.1}"),
        }
    }
}

/// A whole number, its thousands apart.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value <= -0.5 { "-".to_owned() } else { String::new() };
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The figures of one repetition, or of one server in all: a value for each column.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures<T>([T; Figure::ALL.len()]);

impl<T> Figures<T> {
    pub(crate) fn of(&self, figure: Figure) -> &T {
        &self.0[figure as usize]
    }

    pub(crate) fn of_mut(&mut self, figure: Figure) -> &mut T {
        &mut self.0[figure as usize]
    }
}

/// One figure, measured several times; sorted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, sample: f64) {
        let at = self.0.partition_point(|&other| other < sample);
        self.0.insert(at, sample);
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    /// The middle one; of an even number, the better of the two in the middle would flatter, so it is
    /// their mean.
    pub(crate) fn median(&self) -> f64 {
        let (middle, is_odd) = (self.0.len() / 2, self.0.len() % 2 == 1);
        match self.0.get(middle) {
            Some(&upper) if is_odd => upper,
            Some(&upper) => f64::midpoint(self.0[middle - 1], upper),
            None => f64::NAN,
        }
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn sum(&self) -> f64 {
        self.0.iter().sum()
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({ "min": self.min(), "median": self.median(), "max": self.max(), "samples": self.0 })
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        let mut sorted: Vec<_> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Self(sorted)
    }
}
