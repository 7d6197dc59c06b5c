//! On what, with what and when it was measured.

use crate::process;
use serde_json::{Value, json};
use std::process::Command;
use std::time::SystemTime;

pub(crate) struct Machine {
    pub(crate) date: String,
    /// Cores, processor and load.
    pub(crate) hardware: String,
    pub(crate) kernel: String,
    pub(crate) allocator: &'static str,
    /// Name and version of what is compared.
    pub(crate) versions: Vec<String>,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            hardware: process::machine(),
            kernel: format!("Linux {}", kernel.trim()),
            allocator: if cfg!(target_env = "musl") { "musl" } else { "the system's (glibc)" },
            versions: versions(),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "hardware": self.hardware, "kernel": self.kernel, "allocator": self.allocator,
            "profile": profile(), "versions": self.versions,
        })
    }
}

pub(crate) fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

fn versions() -> Vec<String> {
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let mut versions = vec![concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned()];
    versions.extend(rustc.split(" (").next().filter(|rustc| !rustc.is_empty()).map(str::to_owned));
    versions.extend(locked());
    versions
}

/// What Cargo has built this with, of the libraries that matter here. axum has a tungstenite of its own.
fn locked() -> impl Iterator<Item = String> {
    const LOCK: &str = include_str!("../../Cargo.lock");
    const SHOWN: [&str; 7] =
        ["axum", "dashmap", "fastwebsockets", "hyper", "tokio", "tokio-tungstenite", "tungstenite"];
    LOCK.split("[[package]]").filter_map(|package| {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
            line.and_then(|rest| rest.strip_suffix('"'))
        };
        let (name, version) = (value("name")?, value("version")?);
        SHOWN.contains(&name).then(|| format!("{name} {version}"))
    })
}
