//! Days of traffic in virtual time, over the real pool: nothing accumulates, the account is balanced in
//! every minute, and nothing active is ever cleaned.
//!
//! A failing seed is in the message of its test; `cargo run --release --example simulate -- --seed …`
//! with the same hours and users replays it.

#[path = "../examples/simulate/engine.rs"]
mod engine;
#[path = "../examples/simulate/options.rs"]
mod options;
#[path = "../examples/simulate/picture.rs"]
mod picture;
#[path = "../examples/simulate/table.rs"]
mod table;

use engine::{Cleaning, Clients, Outcome, Plan};
use options::Command;
use serde_json::Value;
use table::Table;

fn plan(hours: u32, users: u32, seed: u64) -> Plan {
    Plan { hours, users, seed, clients: Clients::Ordinary, cleaning: Cleaning::All }
}

/// Runs it, and looks for what must never happen.
#[track_caller]
fn run(plan: &Plan) -> Outcome {
    let outcome = engine::run(plan, |_, _| {});
    let failures = outcome.failures();
    assert!(failures.is_empty(), "{plan:?} failed: {failures:#?}\n{:#}", outcome.to_json());
    outcome
}

/// The JSON without what may differ.
fn figures(outcome: &Outcome) -> String {
    let Value::Object(mut object) = outcome.to_json() else { panic!("one object") };
    object.retain(|name, _| !name.ends_with("_seconds"));
    Value::from(object).to_string()
}

#[test]
fn a_normal_day_without_one_limit_hit() {
    let day = run(&plan(24, 150, 1));
    assert_eq!((day.counts.limit_hits, day.users_refused, day.counts.other_refusals), (0, 0, 0));
}

#[test]
fn twenty_four_hours_of_simulated_traffic() {
    let day = run(&plan(24, 200, 7));
    assert_eq!((day.accumulated(), day.unbalanced_minutes, day.counts.wrong_cleanups), (0, 0, 0));
    assert_eq!(day.overdue, 0, "a background round finds all that is dead");
    assert!(day.minutes > 24 * 60, "and some minutes to find what was left behind");
    assert!(day.counts.connections > 40_000, "{}", day.counts.connections);
    // It was a day on which things went wrong.
    for reason in ["takeover", "heartbeat", "idle", "disconnected", "errored", "dropped", "socket_error"] {
        assert!(day.ended_as(reason) > 20, "{reason}: {}", day.ended_as(reason));
    }
    assert!(day.outages > 3 && day.counts.late_closes > 1_000 && day.expired > 10);
    assert_eq!(day.expired, day.counts.forgotten_reservations);
}

#[test]
fn many_seeds_leave_nothing_behind() {
    for seed in [2, 3, 5, 8, 1_234_567_890] {
        run(&plan(4, 150, seed));
    }
}

#[test]
fn a_pool_that_is_larger_than_a_batch_is_swept_to_its_end() {
    let day = run(&plan(2, 5_000, 4));
    assert!(day.counts.peak_live > 4_500, "{}", day.counts.peak_live);
}

#[test]
fn proactive_cleaning_prevents_most_limit_hits() {
    let leaky = Plan { clients: Clients::Leaky, ..plan(5, 300, 1) };
    let with = run(&leaky);
    let without = run(&Plan { cleaning: Cleaning::BackgroundOnly, ..leaky });
    println!("{}", Table(&[("with proactive cleaning", &with), ("without", &without)]));
    let (with, without) = (with.counts.limit_hits, without.counts.limit_hits);
    assert!(without > 1_000, "{without} limit hits are no disease");
    assert!(with * 5 <= without, "{with} limit hits instead of {without}");
}

#[test]
fn a_seed_replays_byte_for_byte() {
    let ordinary = plan(3, 100, 42);
    let leaky = Plan { clients: Clients::Leaky, ..ordinary.clone() };
    for plan in [ordinary, leaky] {
        let first = figures(&run(&plan));
        // On another thread, whose number and hints are others.
        let again = std::thread::spawn(move || figures(&run(&plan))).join().expect("it does not panic");
        assert_eq!(first, again);
    }
    let (one, other) = (figures(&run(&plan(1, 50, 1))), figures(&run(&plan(1, 50, 2))));
    assert_ne!(one.replace("\"seed\":1", ""), other.replace("\"seed\":2", ""));
}

#[test]
fn the_json_has_what_was_promised() {
    let json = run(&plan(1, 30, 1)).to_json();
    for name in [
        "connections",
        "accumulated",
        "unbalanced_minutes",
        "wrong_cleanups",
        "limit_hits",
        "takeovers",
        "peak_live",
        "seed",
        "hours",
        "users",
    ] {
        assert!(json[name].is_u64(), "{name}: {}", json[name]);
    }
    assert!(json["wall_seconds"].is_f64());
    assert!(json["ends"].is_object() && json["sweeps"]["background"]["runs"].is_u64());
}

#[test]
fn the_picture_needs_nothing_else() {
    let day = run(&plan(3, 60, 1));
    let page = picture::page(&[("a day", &day)]);
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(page.matches("<svg").count() >= 5 && page.contains("11:00"));
    for foreign in ["http", "src=", "href=", "@import", "url(", "<script", "NaN", "inf"] {
        assert!(!page.replace("info", "").contains(foreign), "{foreign}");
    }
}

#[test]
fn a_bad_option_is_explained() {
    let parse = |arguments: &[&str]| options::parse(lexopt::Parser::from_args(arguments));
    for (arguments, problem) in [
        (&["--hours", "0"][..], "--hours 0: a whole number from 1"),
        (&["--users", "many"], "--users many: a whole number from 1"),
        (&["--seed", "-1"], "--seed -1: a whole number from 0"),
        (&["--seed"], "missing argument for option '--seed'"),
        (&["--sed", "1"], "invalid option '--sed'"),
        (&["24"], "unexpected argument \"24\""),
    ] {
        let error = parse(arguments).expect_err("it is wrong").to_string();
        assert!(error.contains(problem), "{arguments:?}: {error}");
    }
    let all = ["--hours", "2", "--users", "3", "--seed", "4", "--leaky", "--json", "--html", "day.html"];
    let Ok(Command::Simulate(options)) = parse(&all) else { panic!("all of them are right") };
    assert_eq!((options.hours, options.users, options.seed), (2, 3, 4));
    assert!(
        options.is_leaky && options.is_json && options.html.is_some_and(|path| path.ends_with("day.html"))
    );
    assert!(matches!(parse(&["--help"]), Ok(Command::Help)));
    for option in all.iter().filter(|option| option.starts_with("--")) {
        assert!(options::HELP.contains(option), "{option}");
    }
}
