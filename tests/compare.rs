//! The comparison, with a crowd so small that its figures mean nothing: that it runs, that its report
//! holds together, and how it answers mistakes. No time is looked at.

#![cfg(target_os = "linux")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SERVERS: [&str; 5] =
    ["axum-default", "axum-tuned", "tokio-tungstenite-default", "tokio-tungstenite-tuned", "fastwebsockets"];

/// What a comparison calls a reduction, and the figure that it is one of.
const REDUCTIONS: [(&str, &str); 8] = [
    ("memory_reduction", "idle_memory_bytes"),
    ("memory_after_message_reduction", "memory_after_message_bytes"),
    ("memory_after_peak_reduction", "memory_after_peak_bytes"),
    ("setup_time_reduction", "setup_us"),
    ("client_connect_reduction", "client_connect_us"),
    ("cpu_reduction", "cpu_us"),
    ("allocations_reduction", "allocations"),
    ("broadcast_reduction", "broadcast_us"),
];

/// The example's binary, which `cargo test` builds beside this test's.
fn example() -> PathBuf {
    let this = std::env::current_exe().expect("the path of this test");
    let profile = this.parent().and_then(Path::parent).expect("target/<profile>/deps");
    let path = profile.join("examples/compare");
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo build --example compare --features \
         axum,tungstenite,fastwebsockets`, or run `cargo test --all-features` without naming a test target",
        path.display()
    );
    path
}

fn run(arguments: &str) -> Output {
    let output = Command::new(example()).args(arguments.split_whitespace()).output();
    output.expect("run the comparison")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The report, which is all that it may print.
fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(output)))
}

fn list<'a>(report: &'a Value, key: &str) -> &'a [Value] {
    report[key].as_array().unwrap_or_else(|| panic!("{key} is no list: {report:#}"))
}

fn figure<'a>(report: &'a Value, server: &Value, figure: &str) -> &'a Value {
    let found = list(report, "servers").iter().find(|known| known["name"] == *server);
    &found.unwrap_or_else(|| panic!("{server} is not among the servers"))["figures"][figure]
}

fn median(report: &Value, server: &Value, name: &str) -> f64 {
    let median = figure(report, server, name)["median"].as_f64();
    median.unwrap_or_else(|| panic!("{server} has no median of {name}"))
}

#[test]
fn the_report_holds_every_server_and_fractions_of_their_figures() {
    let output = run("--connections 60 --repetitions 1 --json");
    let report = report(&output);
    assert_eq!((&report["connections"], &report["repetitions"]), (&60.into(), &1.into()), "{report:#}");

    let names: Vec<_> = list(&report, "servers").iter().map(|server| server["name"].clone()).collect();
    for baseline in SERVERS {
        assert!(names.contains(&baseline.into()), "{baseline} is missing: {names:?}");
    }
    for name in &names {
        assert_eq!(figure(&report, name, "failed_connections")["max"], 0.0, "{name}: {report:#}");
        for (_, measured) in REDUCTIONS {
            let samples = figure(&report, name, measured);
            let of = |end: &str| samples[end].as_f64().unwrap_or(f64::NAN);
            assert!(of("min") <= of("median") && of("median") <= of("max"), "{name} {measured}: {samples}");
            assert_eq!(samples["samples"].as_array().map(Vec::len), Some(1), "{name} {measured}: {samples}");
        }
        // A process of 60 connections may have had room for them; the rest is more than nothing.
        for more_than_nothing in ["setup_us", "client_connect_us", "cpu_us", "allocations", "broadcast_us"] {
            assert!(median(&report, name, more_than_nothing) > 0.0, "{name} {more_than_nothing}: {report:#}");
        }
    }

    let ways: Vec<_> = list(&report, "servers")
        .iter()
        .filter(|server| server["kind"] == "ours")
        .map(|it| &it["way"])
        .collect();
    assert!(
        !ways.is_empty() && ways.iter().all(|way| (1..=3).contains(&way.as_u64().unwrap_or(0))),
        "{ways:?}"
    );
    let comparisons = list(&report, "comparisons");
    let pairs: Vec<_> = comparisons.iter().map(|it| (&it["way"], &it["baseline"])).collect();
    for way in &ways {
        for baseline in SERVERS.map(Value::from) {
            let times = pairs.iter().filter(|pair| **pair == (*way, &baseline)).count();
            assert_eq!(times, 1, "way {way} beside {baseline}: {pairs:?}");
        }
    }
    for comparison in comparisons.iter().chain(list(&report, "comparisons_behind_axum")) {
        for (reduction, measured) in REDUCTIONS {
            let [ours, baseline] =
                ["server", "baseline"].map(|side| median(&report, &comparison[side], measured));
            if baseline > 0.0 {
                let stated = comparison[reduction].as_f64().unwrap_or(f64::NAN);
                assert!((stated - (1.0 - ours / baseline)).abs() < 1e-9, "{reduction}: {comparison:#}");
            }
        }
        let failed = &comparison["failed_connections"];
        assert!(failed["ours"].as_f64() <= failed["baseline"].as_f64(), "{comparison:#}");
    }

    let verdict = &report["verdict"];
    assert!(
        ways.contains(&&verdict["way"]) && ways.iter().all(|way| way.as_u64() <= verdict["way"].as_u64())
    );
    let side_is_met = |side: &str| verdict[side]["is_met"].as_bool().expect("a verdict");
    let is_met = side_is_met("setup_time") && side_is_met("memory");
    assert_eq!(verdict["is_met"], is_met, "{verdict:#}");
    assert_eq!(output.status.code(), Some(i32::from(!is_met)), "{verdict:#}");
}

#[test]
fn it_measures_fewer_where_files_are_few_and_leaves_a_page_that_needs_nothing_else() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compare");
    let command = format!(
        "ulimit -n 200 && exec '{}' --connections 500 --repetitions 1 --server way-1 --out '{}'",
        example().display(),
        folder.display()
    );
    let output = Command::new("sh").args(["-c", &command]).output().expect("a shell");
    // Nobody to compare with, so nothing to fail.
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("note: 500 connections were wanted and 100 are measured"), "{table}");
    assert!(stderr(&output).contains("[1/2] way-1"), "{}", stderr(&output));
    let read = |file| std::fs::read_to_string(folder.join(file)).expect("a file");
    let report: Value = serde_json::from_str(&read("compare.json")).expect("JSON");
    assert_eq!((&report["connections"], &report["verdict"]), (&100.into(), &Value::Null), "{report:#}");
    let page = read("compare.html");
    for needed in ["<!doctype html>", "<svg", "100 are measured", "What can’t be promised", "</html>"] {
        assert!(page.contains(needed), "{needed} is missing");
    }
    for foreign in ["<script", "http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "the page has {foreign}");
    }
}

#[test]
fn mistakes_end_with_2_and_say_what_is_wrong() {
    for (arguments, why) in [
        ("--connections few", "few"),
        ("--connections 2", "--connections: at least 8"),
        ("--repetitions 0", "--repetitions: at least 1"),
        ("--per-user 0", "--per-user: at least 1"),
        ("--server way-9", "none of axum-default"),
        ("--fast", "--fast"),
        ("more", "more"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {}", stderr(&output));
        assert!(stderr(&output).contains(why) && stderr(&output).contains("Usage:"), "{}", stderr(&output));
        assert!(output.stdout.is_empty(), "{arguments}");
    }
    let help = run("--help");
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("--quick"));
}
