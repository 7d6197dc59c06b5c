//! The scale example: its arguments, and a run of it with few of everything.

#[path = "../examples/scale/options.rs"]
mod options;

use options::{Command, Effort, HELP, Options, Way};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command as Process, Output};

fn parse(arguments: &str) -> Result<Command, String> {
    let arguments = lexopt::Parser::from_args(arguments.split_whitespace());
    options::parse(arguments).map_err(|error| error.to_string())
}

fn asked(arguments: &str) -> Options {
    match parse(arguments) {
        Ok(Command::Measure(options)) => options,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

#[test]
fn every_option_is_taken_as_it_is_said() {
    assert_eq!(asked(""), Options::default());
    let all = asked("--managers 5,10 --sockets 7 --way 2 --quick --json");
    assert_eq!((all.managers, all.sockets), (vec![5, 10], Some(vec![7])));
    assert_eq!((all.ways, all.is_json), (vec![Way::Leased], true));
    let quick = asked("--quick");
    assert_eq!((quick.managers, quick.sockets), (vec![1_000, 10_000], Some(vec![200, 1_000])));
    assert_eq!(asked("--only managers --sockets 5").sockets, Some(vec![]));
    assert_eq!(asked("--managers 5 --only sockets").managers, [0; 0]);
    assert_eq!((quick.effort.choose(7, 2), all.effort), (2, Effort::Quick));
    assert_eq!(parse("--help"), Ok(Command::Help));
    for option in ["--managers", "--sockets", "--way", "--only", "--quick", "--json"] {
        assert!(HELP.contains(option), "the help says nothing of {option}");
    }
}

#[test]
fn a_wrong_option_is_named_with_what_is_wanted() {
    for (arguments, named) in [
        ("--managers 0", "--managers 0: numbers from 1"),
        ("--managers 2,1", "rising"),
        ("--sockets x", "--sockets x"),
        ("--way 4", "--way 4"),
        ("--only both", "--only both"),
        ("--fast", "--fast"),
    ] {
        let error = parse(arguments).unwrap_err();
        assert!(error.contains(named), "{error:?} does not say {named:?}");
    }
    assert_eq!(run("--way 4").status.code(), Some(2));
}

#[test]
fn a_small_run_has_every_figure_and_no_failure() {
    let ran = run("--managers 50,200 --sockets 20,40 --quick --json");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let figures: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let managers = figures["managers"].as_array().unwrap();
    assert_eq!(managers.iter().map(|of| of["managers"].as_f64().unwrap()).collect::<Vec<_>>(), [50.0, 200.0]);
    for of in managers {
        for name in [
            "bytes_each_allocated",
            "fill_p50_ns",
            "fill_p99_ns",
            "fill_p999_ns",
            "acquire_hot_p50_ns",
            "acquire_any_p50_ns",
            "acquire_any_p999_ns",
            "acquire_flushed_p50_ns",
            "miss_ns",
            "get_hot_ns",
            "get_cold_ns",
            "sweep_us",
            "check_us",
            "ledger_us",
            "snapshot_us",
            "release_ns_each",
            "left_percent_allocated",
        ] {
            assert!(of[name].as_f64().is_some_and(|figure| figure > 0.0), "{name} in {of:#}");
        }
        // So few are less than what moves by itself.
        assert!(of["bytes_each_resident"].is_f64() && of["again_percent_resident"].is_f64(), "{of:#}");
    }
    for way in Way::ALL {
        let sockets = figures["sockets_by_way"][way.to_string()].as_array().unwrap();
        assert_eq!(
            sockets.iter().map(|of| of["sockets"].as_f64().unwrap()).collect::<Vec<_>>(),
            [20.0, 40.0]
        );
        for of in sockets {
            for name in [
                "connects_per_second",
                "allocated_each",
                "allocations_per_connect",
                "broadcast_enqueue_us",
                "broadcast_heard_ms",
                "storm_ms",
                "drain_ms",
            ] {
                assert!(of[name].as_f64().is_some_and(|figure| figure > 0.0), "{name} in {of:#}");
            }
            assert!(of["bytes_each"].is_f64(), "{of:#}");
            assert_eq!((&of["connect_failures"], &of["storm_failures"]), (&0.0.into(), &0.0.into()));
        }
    }
}

fn run(arguments: &str) -> Output {
    let this = std::env::current_exe().expect("the path of this test");
    let profile = this.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
    let example: PathBuf = profile.join("examples/scale");
    assert!(
        example.exists(),
        "{} is missing: build it with `cargo build --example scale --features tungstenite`, or run all tests",
        example.display()
    );
    Process::new(example).args(arguments.split_whitespace()).output().expect("it starts")
}
