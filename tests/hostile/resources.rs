//! Files that run out, and a runtime that ends. In processes of their own.

use crate::place::{Client, Server, Way, config, eventually};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::Command;
use std::time::Duration;

/// Says to the process that a test starts that it is the one.
const ALONE: &str = "HOSTILE_ALONE";

/// Runs the test of this name once more, by itself: what it does to its process is its own affair.
fn alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let this = std::env::current_exe().unwrap();
    let output = Command::new(this).args(["--exact", test, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    false
}

#[test]
fn a_server_without_files_left_serves_on_when_some_are_free() {
    if !alone("resources::a_server_without_files_left_serves_on_when_some_are_free") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::start("files", config(), Way::Own).await;
        let mut bystander = server.open("bystander").await;
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).unwrap();

        // Clients of the same process take a file each, too: until the client's side fails, or nobody
        // answers any more.
        let mut clients = Vec::new();
        for number in 0..40 {
            let who = format!("user-{number}");
            let opening = Client::open(server.address, &who);
            match tokio::time::timeout(Duration::from_millis(300), opening).await {
                Ok(Some(client)) => clients.push(client),
                Ok(None) | Err(_) => break,
            }
        }
        assert!((10..40).contains(&clients.len()), "{} came before the files were gone", clients.len());
        bystander.echoes(b"still served").await;
        clients.truncate(5);
        eventually("the others are gone", || server.pool.ledger().leases == 6).await;
        let mut again = server.open("again").await;
        again.echoes(b"and new ones too").await;
        drop((clients, bystander, again));
        server.is_empty().await;
    });
}

#[test]
fn a_runtime_that_ends_in_the_middle_leaves_nothing() {
    for way in [Way::Own, Way::Library] {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (pool, clients) = runtime.block_on(async {
            let server = Server::start("runtime", config(), way).await;
            let mut clients = Vec::new();
            for number in 0..30 {
                let mut client = server.open(&format!("user-{number}")).await;
                client.send(&[1; 3_000]).await.unwrap();
                clients.push(client);
            }
            (server.pool.clone(), clients)
        });
        runtime.shutdown_timeout(Duration::from_secs(30));
        drop(clients);
        let ledger = pool.ledger();
        assert!(ledger.balanced && ledger.occupied_slots == 0, "{ledger:#?}");
        assert_eq!(pool.snapshot().inbound.leased_bytes, 0);
        assert_eq!(pool.unauthenticated(), 0);
    }
}
