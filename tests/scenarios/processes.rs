//! Clients that are killed, or stop, as processes: nobody is left who could say goodbye.

use crate::stage::{play, pool, user};
use crate::support::{PATIENCE, Server, connect, eventually};
use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::timeout;
use ws_manager_pool::{EndReason, Message};

/// Where a client process connects to, and as whom.
const ADDRESS: &str = "SCENARIO_ADDRESS";
const USER: &str = "SCENARIO_USER";

/// Connections of each process.
const EACH: usize = 10;

/// How long silence may last before a ping, and how long the answer may take.
const SILENCE: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_secs(4);

#[test]
fn kill_9_of_clients() {
    let pool = pool("kill-9").max_managers_per_user(EACH);
    play(pool.heartbeat_interval(SILENCE).heartbeat_timeout(ANSWER), async |server| {
        for _ in 0..2 {
            let [killed, stopped, healthy] =
                ["killed", "stopped", "healthy"].map(|name| Process::connect(server.address, name));
            eventually("all are connected", || server.pool.snapshot().live == 3 * EACH).await;
            killed.signal(Signal::KILL);
            stopped.signal(Signal::STOP);
            let mut ends = [hear_of(server, EACH).await, hear_of(server, EACH).await].concat();
            ends.sort_by_key(|&reason| reason as u8);
            assert_eq!(ends[..EACH], [EndReason::SocketError; EACH]);
            assert_eq!(ends[EACH..], [EndReason::Heartbeat; EACH]);

            assert_eq!((server.keys_of("killed"), server.keys_of("stopped")), (vec![], vec![]));
            let report = server.pool.send_to_user(&user("healthy"), Message::from("still there?"));
            assert_eq!((report.queued, report.is_complete()), (EACH, true));
            healthy.signal(Signal::KILL);
            assert_eq!(hear_of(server, EACH).await, [EndReason::SocketError; EACH]);
            server.is_empty().await;
        }
    });
}

/// How the next connections to end ended: no later than several times what silence needs.
async fn hear_of(server: &mut Server, ends: usize) -> Vec<EndReason> {
    let hear = async {
        let mut heard = Vec::new();
        while heard.len() < ends {
            heard.push(server.heard().await);
        }
        heard
    };
    timeout(4 * (SILENCE + ANSWER), hear).await.expect("ends in time")
}

/// A client as a process of its own. Killed when dropped.
struct Process(Child);

impl Process {
    fn connect(address: SocketAddr, name: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::a_client_process", "--ignored"])
            .env(ADDRESS, address.to_string())
            .env(USER, name)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error: it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "what a client process of kill_9_of_clients does"]
fn a_client_process() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let (address, name) = (address.parse().unwrap(), std::env::var(USER).unwrap());
    // Also where the test itself is killed.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..EACH {
            clients.push(connect(address, &name).await);
        }
        let read = clients
            .into_iter()
            .map(|mut client| async move { while let Some(Ok(_)) = client.next().await {} });
        let _ = timeout(10 * PATIENCE, futures_util::future::join_all(read)).await;
    });
}
