//! What a server notes of itself, and tells when it is asked. The same few lines in every server.

use crate::allocations;
use parking_lot::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

static OPEN: AtomicUsize = AtomicUsize::new(0);
static ACCEPTED: AtomicU64 = AtomicU64::new(0);
static SETUPS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static BROADCASTS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static MAINTAIN: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// `accept` has returned. The client connects one at a time where set-ups are looked at, so the last
/// one that was accepted is the next one that is registered.
pub(crate) fn accepted() {
    ACCEPTED.store(now(), Ordering::Relaxed);
}

/// From now on, what another task sends to this user is delivered; until [`left`].
pub(crate) fn registered() {
    let took = now() - ACCEPTED.load(Ordering::Relaxed);
    OPEN.fetch_add(1, Ordering::Relaxed);
    note(&SETUPS, took);
}

/// The connection is over.
pub(crate) fn left() {
    OPEN.fetch_sub(1, Ordering::Relaxed);
}

/// Times the call that hands a message to everybody.
pub(crate) fn broadcast(enqueue: impl FnOnce()) {
    let begun = now();
    enqueue();
    note(&BROADCASTS, now() - begun);
}

/// Notes it if there is room: room is made by whoever asks for figures, and never here.
fn note(figures: &Mutex<Vec<u32>>, nanoseconds: u64) {
    let mut figures = figures.lock();
    if figures.len() < figures.capacity() {
        figures.push(nanoseconds.try_into().unwrap_or(u32::MAX));
    }
}

/// Nanoseconds since it was asked first.
fn now() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// What the server does once a second or so to give memory back.
pub(crate) fn maintained_by(maintain: impl Fn() + Send + Sync + 'static) {
    // There is one server in a process.
    let _ = MAINTAIN.set(Box::new(maintain));
}

/// Answers the client's questions, one a line, in a thread of its own.
pub(crate) fn answer() {
    std::thread::spawn(|| {
        allocations::ignore_this_thread();
        for question in std::io::stdin().lines().map_while(Result::ok) {
            match question.split_once(' ').unwrap_or((&question, "")) {
                ("open", _) => println!("{}", OPEN.load(Ordering::Relaxed)),
                ("allocations", _) => println!("{}", allocations::count()),
                ("maintain", _) => {
                    if let Some(maintain) = MAINTAIN.get() {
                        maintain();
                    }
                    println!("done");
                }
                ("note", room) => {
                    let room = room.parse().unwrap_or(0);
                    for figures in [&SETUPS, &BROADCASTS] {
                        *figures.lock() = Vec::with_capacity(room);
                    }
                    println!("noting {room}");
                }
                ("setups", _) => tell(&SETUPS),
                ("broadcasts", _) => tell(&BROADCASTS),
                _ => println!("what?"),
            }
        }
    });
}

fn tell(figures: &Mutex<Vec<u32>>) {
    let figures: Vec<_> = figures.lock().iter().map(u32::to_string).collect();
    println!("{}", figures.join(" "));
}
