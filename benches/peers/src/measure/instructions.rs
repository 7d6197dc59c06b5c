//! Instructions of the hot paths, which do not depend on what else the machine does.
//!
//! Each path is a function that is not inlined, and Callgrind counts only while it runs. That needs nothing
//! but Valgrind; the harnesses that wrap it want a runner of exactly their version to be installed, which is
//! larger than all of this package.

use crate::ours::{self, Given, Records, Whole};
use crate::place::Place;
use crate::record::{Ids, Record};
use crate::roster::CAPACITY;
use crate::row::Row;
use serde::Serialize;
use std::hint::black_box;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use ws_manager_pool::slab::{Key, Owner, Slab};
use ws_manager_pool::{Lease, ManagerKey, Message, Pool};

#[derive(Clone, Debug, Serialize)]
pub struct Instructions {
    pub what: &'static str,
    pub each: f64,
}

struct HotPath {
    /// Of the function that is counted.
    name: &'static str,
    what: &'static str,
    /// Runs it so many times.
    run: fn(u64),
}

const PATHS: [HotPath; 9] = [
    HotPath { name: "hot_id", what: "an id, which is a part of floor and acquire", run: id },
    HotPath { name: "hot_floor", what: "floor: an id, set 3 strings, clear", run: floor },
    HotPath { name: "hot_acquire", what: "slab: an id, acquire, set 3 strings", run: acquire_and_release },
    HotPath { name: "hot_pin", what: "slab: pin, read, unpin", run: pin },
    HotPath { name: "hot_release", what: "slab: clear, release", run: acquire_and_release },
    HotPath { name: "hot_given", what: "pool: reserve, open, drop", run: given },
    HotPath { name: "hot_whole", what: "pool: ids, reserve, open, drop", run: whole },
    HotPath { name: "hot_enqueue", what: "pool: send to a key", run: enqueue_and_take },
    HotPath { name: "hot_take", what: "pool: take the message", run: enqueue_and_take },
];

/// Repetitions, after as many that are there to warm up.
const TIMES: u64 = 1_000;

/// Counts every path, each in a process of `hot` under Valgrind.
///
/// # Errors
///
/// A text that says what is missing, or what failed.
pub fn count(hot: &Path) -> Result<Vec<Instructions>, String> {
    let count = |path: &HotPath| {
        let each = collected(hot, path.name)? / TIMES as f64;
        Ok(Instructions { what: path.what, each })
    };
    PATHS.iter().map(count).collect()
}

fn collected(hot: &Path, name: &str) -> Result<f64, String> {
    let toggle = format!("--toggle-collect=*::{name}");
    let valgrind = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", &toggle])
        .arg(hot)
        .arg(name)
        .output();
    let said = match valgrind {
        Ok(said) => said,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err("valgrind is missing: install it (apt-get install valgrind)".to_owned());
        }
        Err(error) => return Err(format!("valgrind can't be started: {error}")),
    };
    let log = String::from_utf8_lossy(&said.stderr);
    if !said.status.success() {
        return Err(format!("{name} under valgrind: {}\n{log}", said.status));
    }
    let number = log.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    match number {
        Some(collected) if collected > 0.0 => Ok(collected),
        _ => Err(format!("valgrind has seen no call of {name}:\n{log}")),
    }
}

/// Runs what [`count`] asks for. `false`: there is no such path.
pub fn run(name: &str) -> bool {
    let path = PATHS.iter().find(|path| path.name == name);
    path.map(|path| (path.run)(TIMES)).is_some()
}

fn id(times: u64) {
    let mut ids = Ids::new(0);
    for _ in 0..times {
        hot_id(&mut ids);
    }
}

#[inline(never)]
fn hot_id(ids: &mut Ids) {
    black_box(ids.fresh());
}

fn floor(times: u64) {
    let (mut own, mut ids) = (Record::default(), Ids::new(0));
    for _ in 0..times {
        hot_floor(&mut own, &mut ids);
    }
}

#[inline(never)]
fn hot_floor(own: &mut Record, ids: &mut Ids) {
    own.begin(ids.fresh());
    black_box(&mut *own).clear();
}

fn warm_slab() -> Slab<Records> {
    let Row(_, slab) = ours::slab(CAPACITY);
    let mut ids = Ids::new(1);
    for _ in 0..TIMES {
        slab.release(slab.acquire(&mut ids));
    }
    slab
}

fn acquire_and_release(times: u64) {
    let (slab, mut ids) = (warm_slab(), Ids::new(0));
    for _ in 0..times {
        hot_release(&slab, hot_acquire(&slab, &mut ids));
    }
}

#[inline(never)]
fn hot_acquire(slab: &Slab<Records>, ids: &mut Ids) -> Owner {
    slab.acquire(ids)
}

#[inline(never)]
fn hot_release(slab: &Slab<Records>, held: Owner) {
    slab.release(held);
}

fn pin(times: u64) {
    let slab = warm_slab();
    let held = slab.acquire(&mut Ids::new(0));
    for _ in 0..times {
        assert_eq!(hot_pin(&slab, held.key()), Some(1));
    }
    slab.release(held);
}

#[inline(never)]
fn hot_pin(slab: &Slab<Records>, key: Key) -> Option<u64> {
    slab.get(&key)
}

fn given(times: u64) {
    let (place, mut ids) = (Given::new("hot", CAPACITY), Ids::new(0));
    for _ in 0..TIMES {
        place.release(place.acquire(&mut ids));
    }
    for _ in 0..times {
        hot_given(&place, &mut ids);
    }
}

#[inline(never)]
fn hot_given(place: &Given, ids: &mut Ids) {
    place.release(black_box(place.acquire(ids)));
}

fn whole(times: u64) {
    let (place, mut ids) = (Whole::<()>::new("hot", CAPACITY), Ids::new(0));
    for _ in 0..TIMES {
        place.release(place.acquire(&mut ids));
    }
    for _ in 0..times {
        hot_whole(&place, &mut ids);
    }
}

#[inline(never)]
fn hot_whole(place: &Whole<()>, ids: &mut Ids) {
    place.release(black_box(place.acquire(ids)));
}

fn enqueue_and_take(times: u64) {
    let place = Whole::<()>::new("hot", CAPACITY);
    let mut lease = place.acquire(&mut Ids::new(0));
    for _ in 0..times {
        hot_enqueue(&place.pool, lease.key());
        hot_take(&mut lease);
    }
}

#[inline(never)]
fn hot_enqueue(pool: &Pool, key: ManagerKey) {
    assert!(pool.send(key, Message::text_static("hello")).is_queued());
}

#[inline(never)]
fn hot_take(lease: &mut Lease) {
    assert!(matches!(black_box(lease.next_message()), Ok(Some(_))));
}
