//! The load tool: its arguments, its checker, and the program itself against the chat server and against
//! one that lies.

#![cfg(unix)]

#[path = "../examples/load/checker.rs"]
mod checker;
#[path = "load_tool/liar.rs"]
mod liar;
#[path = "../examples/load/options.rs"]
mod options;
#[path = "clients/server.rs"]
mod server;

use checker::{Account, Inbox, Outbox, Parcel, Verdict};
use liar::Lie;
use options::{Command, DEFAULT_URL, Ending, HELP, Plan};
use proptest::prelude::*;
use serde_json::{Value, json};
use server::{BOUND, Server, example};
use std::process::Output;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;

// ── Arguments ───────────────────────────────────────────────────────────────────────────────────

fn parse(arguments: &[&str]) -> Result<Command, String> {
    options::parse(lexopt::Parser::from_args(arguments)).map_err(|error| error.to_string())
}

fn plan(arguments: &[&str]) -> Plan {
    match parse(arguments) {
        Ok(Command::Load(plan)) => plan,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

#[test]
fn without_arguments_it_loads_a_chat_server_where_that_listens() {
    let plan = plan(&[]);
    assert_eq!(plan, Plan::default());
    assert_eq!(
        (plan.target.to_string().as_str(), plan.target.addr.as_str()),
        (DEFAULT_URL, "127.0.0.1:8080")
    );
    assert!(plan.connections <= 20, "more than the chat server allows a user");
}

#[test]
fn every_option_is_taken_as_it_is_said() {
    let all = "--url ws://[::1]/chat?v=1 --users 7 --connections 11 --rate 13 --seconds 17 \
               --ends silent,kill --life 19 --json";
    let plan = plan(&all.split_whitespace().collect::<Vec<_>>());
    assert_eq!((plan.users, plan.connections, plan.rate, plan.is_json), (7, 11, 13, true));
    assert_eq!(plan.places(), 77, "connections are those of each user");
    assert_eq!((plan.span, plan.life), (Duration::from_secs(17), Duration::from_secs(19)));
    assert_eq!(plan.ends, [Ending::Silent, Ending::Kill]);
    assert_eq!(plan.ends.iter().map(|ending| ending.name()).collect::<Vec<_>>(), ["silent", "kill"]);
    assert_eq!(plan.target.addr, "[::1]:80");
    assert_eq!(plan.target.url("ada", "thread_x"), "ws://[::1]/chat?v=1&user=ada&thread=thread_x");
    assert_eq!(self::plan(&["--ends=none"]).ends, []);
    assert!(matches!(parse(&["--users", "3", "--help"]), Ok(Command::Help)));
}

#[test]
fn a_bad_argument_is_named_with_what_would_be_right() {
    for (arguments, message) in [
        (&["--no-such"][..], "--no-such"),
        (&["extra"], "extra"),
        (&["--users"], "--users"),
        (&["--users", "0"], "--users 0: a whole number from 1 to 60000 is wanted"),
        (&["--connections", "many"], "--connections many: a whole number from 1"),
        (&["--rate", "-1"], "--rate"),
        (&["--seconds", "0.5"], "--seconds 0.5: a whole number from 1"),
        (&["--life", "0"], "--life 0: a whole number from 1"),
        (&["--ends", "close,explode"], "`explode` is no way to end; some of close, reset, kill, silent"),
        (&["--ends", ""], "`` is no way to end"),
        (&["--url", "http://x/ws"], "--url http://x/ws: the address of a WebSocket begins with ws://"),
        (&["--url", "wss://x/ws"], "speaks no TLS"),
        (&["--url", "ws:///ws"], "--url ws:///ws"),
        (&["--url", "127.0.0.1:8080"], "--url 127.0.0.1:8080"),
        (
            &["--users", "5000", "--connections", "20"],
            "100000 connections, and one client has ports for 60000",
        ),
    ] {
        let error = parse(arguments).expect_err("that is wrong");
        assert!(error.contains(message), "{arguments:?}: {error}");
    }
}

// ── The checker ─────────────────────────────────────────────────────────────────────────────────

const RUN: u32 = 7;
const ME: u32 = 3;

fn parcel(writer: u32, number: u32) -> Parcel {
    Parcel { run: RUN, user: ME, writer, number, stamp: 5 }
}

fn hear(inbox: &mut Inbox, numbers: &[u32]) -> Vec<Verdict> {
    numbers.iter().map(|&number| inbox.hear(&parcel(1, number))).collect()
}

/// Written at the times 0, 1, 2 and so on.
fn outbox(messages: u64) -> Outbox {
    let mut outbox = Outbox::new(1);
    for at in 0..messages {
        assert_eq!(u64::from(outbox.number(ME, at)), at);
    }
    outbox.is_handled = true;
    outbox
}

fn inbox(ready_at: u64, heard: &[u32], is_complete: bool) -> Inbox {
    let mut inbox = Inbox::new(RUN, ME);
    hear(&mut inbox, heard);
    inbox.ready_at = Some(ready_at);
    inbox.is_complete = is_complete;
    inbox
}

#[test]
fn a_parcel_survives_its_text_and_nothing_else_is_one() {
    let parcel = Parcel { run: u32::MAX, user: 0, writer: 1, number: 2, stamp: u64::MAX };
    assert_eq!(Parcel::read(&parcel.text()), Some(parcel));
    for text in ["", "load", "load 1 2 3 4", "load 1 2 3 4 5 6", "load 1 2 3 4 x", "loads 1 2 3 4 5"] {
        assert_eq!(Parcel::read(text), None, "{text}");
    }
}

#[test]
fn a_message_for_another_user_or_of_another_run_is_not_mine() {
    let mut inbox = Inbox::new(RUN, ME);
    assert_eq!(inbox.hear(&parcel(1, 0)), Verdict::Good);
    assert_eq!(inbox.hear(&Parcel { user: ME + 1, ..parcel(1, 1) }), Verdict::WrongUser);
    assert_eq!(inbox.hear(&Parcel { run: RUN + 1, ..parcel(1, 1) }), Verdict::WrongUser);
    assert_eq!(inbox.hear(&parcel(1, 1)), Verdict::Good);
}

#[test]
fn a_duplicate_is_told_from_a_message_that_was_overtaken() {
    use Verdict::{Duplicate, Good, OutOfOrder};
    let mut inbox = Inbox::new(RUN, ME);
    // From the middle of a stream: the connection is younger than the stream.
    assert_eq!(
        hear(&mut inbox, &[4, 5, 5, 8, 6, 6, 4]),
        [Good, Good, Duplicate, Good, OutOfOrder, Duplicate, Duplicate]
    );
    assert_eq!(hear(&mut inbox, &[1, 3, 1, 9]), [OutOfOrder, OutOfOrder, Duplicate, Good]);
    assert_eq!(inbox.hear(&parcel(2, 0)), Good, "another writer's numbers are its own");
}

#[test]
fn what_was_sent_while_a_connection_was_open_is_owed_to_it() {
    let settle = |outbox, inbox| Account::settle(&[outbox], &[inbox]);
    let account = |owed, lost| Account { owed, lost };
    assert_eq!(settle(outbox(5), inbox(0, &[0, 1, 2, 3, 4], true)), account(5, 0));
    assert_eq!(settle(outbox(5), inbox(0, &[0, 2, 3], true)), account(5, 2), "a hole and the last");
    assert_eq!(settle(outbox(5), inbox(0, &[], true)), account(5, 5), "nothing at all");
    assert_eq!(settle(outbox(5), inbox(2, &[3, 4], true)), account(3, 1), "not what was before it");
    assert_eq!(settle(outbox(5), inbox(2, &[1, 2, 3, 4], true)), account(3, 0), "more than was owed");
    assert_eq!(settle(outbox(5), inbox(0, &[0, 2], false)), account(3, 1), "its end came first");
    assert_eq!(settle(outbox(5), inbox(0, &[], false)), account(0, 0));
    let never_ready = Inbox::new(RUN, ME);
    assert_eq!(settle(outbox(5), never_ready), account(0, 0));
}

#[test]
fn of_a_writer_that_was_reset_only_what_anybody_heard_is_owed() {
    let mut reset = outbox(5);
    reset.is_handled = false;
    let hearers = [inbox(0, &[0, 1, 2], true), inbox(0, &[0, 1], true)];
    assert_eq!(Account::settle(&[reset], &hearers), Account { owed: 6, lost: 1 });
}

proptest! {
    #[test]
    fn as_much_is_lost_as_was_dropped(dropped in prop::collection::btree_set(0u32..200, 0..200), ready_at in 0u64..200) {
        let heard: Vec<u32> = (ready_at as u32..200).filter(|number| !dropped.contains(number)).collect();
        let account = Account::settle(&[outbox(200)], &[inbox(ready_at, &heard, true)]);
        let lost = dropped.range(ready_at as u32..).count() as u64;
        prop_assert_eq!(account, Account { owed: 200 - ready_at, lost });
    }
}

// ── The program ─────────────────────────────────────────────────────────────────────────────────

async fn run(url: &str, arguments: &str) -> Output {
    let mut command = tokio::process::Command::new(example("load"));
    command.args(["--url", url]).args(arguments.split_whitespace()).kill_on_drop(true);
    timeout(2 * BOUND, command.output()).await.expect("in time").expect("run the load tool")
}

/// Runs it, and reads the report, which is all that it may print.
async fn report(url: &str, arguments: &str) -> (Option<i32>, Value) {
    let output = run(url, &format!("{arguments} --json")).await;
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    (output.status.code(), report)
}

fn ended(report: &Value, by: &str, code: Option<u16>) -> u64 {
    let ended = report["ended"].as_array().expect("a list");
    let found = ended.iter().find(|row| row["by"] == by && row["code"] == json!(code));
    found.map_or(0, |row| row["count"].as_u64().expect("a number"))
}

#[tokio::test]
async fn a_good_server_under_churn_delivers_all_once_and_in_order() {
    let server = Server::start(&[]);
    let load = "--users 5 --connections 4 --rate 400 --seconds 3 --life 1 --ends close,reset,kill,silent";
    let (code, report) = report(&server.socket("from=load"), load).await;
    assert_eq!((code, &report["failures"]), (Some(0), &json!([])), "{report:#}");
    let messages = &report["messages"];
    for none in ["wrong_user", "duplicates", "out_of_order", "strange"] {
        assert_eq!(messages[none], 0, "{none}: {report:#}");
    }
    let count = |figure: &str| messages[figure].as_u64().expect("a number");
    assert!(count("sent") > 0 && count("received") >= count("owed") - count("lost"), "{report:#}");
    if count("errors") == 0 {
        assert_eq!(count("lost"), 0, "{report:#}");
    }
    assert!(report["connected"].as_u64() > Some(20), "nobody came back: {report:#}");
    for (by, code) in
        [("close", Some(1000)), ("reset", None), ("kill", None), ("silent", None), ("run", Some(1000))]
    {
        assert!(ended(&report, by, code) > 0, "{by}: {report:#}");
    }
    for times in ["setup_ms", "latency_ms"] {
        let of = |share: &str| report[times][share].as_f64().expect("milliseconds");
        assert!(of("p50") <= of("p99") && of("p99") <= of("p99_9") && of("p99_9") <= of("max"), "{report:#}");
    }
    server.is_empty_again().await;
    server.interrupt();
    server.ends_with_nothing_left().await;
}

#[tokio::test]
async fn refusals_are_counted_by_status_and_are_no_failure() {
    for (limit, status) in [(["--max-per-user", "2"], "429"), (["--capacity", "2"], "503")] {
        let server = Server::start(&limit);
        let (code, report) =
            report(&server.socket(""), "--users 1 --connections 3 --seconds 1 --ends none").await;
        assert_eq!((code, &report["connected"]), (Some(0), &json!(2)), "{report:#}");
        assert!(report["refused"][status].as_u64() > Some(0), "{report:#}");
        server.is_empty_again().await;
    }
}

#[tokio::test]
async fn a_server_that_lies_is_found_out() {
    for (lie, figure, exit) in [
        (Lie::None, "lost", 0),
        (Lie::Loss, "lost", 0),
        (Lie::WrongUser, "wrong_user", 1),
        (Lie::Duplicate, "duplicates", 1),
        (Lie::OutOfOrder, "out_of_order", 1),
    ] {
        let url = liar::serve(lie).await;
        let load = "--users 2 --connections 2 --rate 400 --seconds 1 --ends none";
        let (code, report) = report(&url, load).await;
        assert_eq!(code, Some(exit), "{lie:?}: {report:#}");
        assert_eq!(
            report["failures"].as_array().expect("a list").len(),
            exit as usize,
            "{lie:?}: {report:#}"
        );
        let messages = &report["messages"];
        assert_eq!(messages[figure].as_u64() > Some(0), lie != Lie::None, "{lie:?}: {report:#}");
        for other in
            ["lost", "wrong_user", "duplicates", "out_of_order"].iter().filter(|name| **name != figure)
        {
            assert_eq!(messages[other], 0, "{lie:?}: {report:#}");
        }
    }
}

#[tokio::test]
async fn for_a_person_it_tells_how_far_it_is_and_ends_with_a_table() {
    let server = Server::start(&[]);
    let output = run(&server.socket(""), "--users 2 --connections 1 --seconds 1").await;
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8"));
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(
        stdout.contains("2 users × 1 connections = 2") && stdout.contains("wrong user     0"),
        "{stdout}"
    );
    assert!(stderr.contains("loading: 2 open") && !stderr.contains(['\r', '\x1b']), "{stderr}");
}

#[tokio::test]
async fn without_a_server_it_says_how_to_start_one() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = closed.local_addr().expect("an address");
    drop(closed);
    let server = Server::start(&[]);
    for (url, what) in [
        (format!("ws://{addr}/ws"), "no server at"),
        (format!("ws://{}/no/such", server.addr), "answers 404"),
    ] {
        let output = run(&url, "").await;
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(what), "{stderr}");
        assert!(stderr.contains("cargo run --release --example chat_server"), "{stderr}");
        assert!(output.stdout.is_empty());
    }
    let output = run(DEFAULT_URL, "--rate fast").await;
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--rate fast") && stderr.contains(HELP), "{stderr}");
}
