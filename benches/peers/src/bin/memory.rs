//! What each contender takes from the allocator: bytes for a live manager, bytes after a peak, and
//! allocations in the steady state. One process for each contender, so that none leaves anything to the next.
//!
//! `cargo run --release --bin memory` prints a table; the table of `--bench table` contains it.

#![allow(unsafe_code)] // a counting allocator

use std::alloc::{GlobalAlloc, Layout, System};
use std::env::args;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use ws_manager_pool_peers::machine::exit_on_panic;
use ws_manager_pool_peers::measure::memory::{self, Counts};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static COUNTS: Counts =
    Counts { allocations: AtomicU64::new(0), taken: AtomicU64::new(0), given: AtomicU64::new(0) };

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNTS.allocations.fetch_add(1, Ordering::Relaxed);
        COUNTS.taken.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        COUNTS.given.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }
}

fn main() -> ExitCode {
    exit_on_panic();
    if let Some(name) = args().nth(1) {
        let Some(figures) = memory::measure(&name, &COUNTS) else {
            eprintln!("there is no contender {name:?}");
            return ExitCode::FAILURE;
        };
        println!("{}", serde_json::to_string(&figures).expect("plain numbers"));
        return ExitCode::SUCCESS;
    }
    match std::env::current_exe().map(|program| memory::compare(&program)) {
        Ok(all) => {
            print!("{}", memory::table(&all));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("this program can't be started again: {error}");
            ExitCode::FAILURE
        }
    }
}
