//! After a peak the memory goes back to the allocator: all but the headers and alarms.

#![allow(unsafe_code)] // a counting allocator

mod common;

use common::{assert_counts, builder, context};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};
use ws_manager_pool::{End, Message, Pool, Session};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static LIVE_BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: everything is left to the system's allocator; counting allocates nothing. What reallocates
// does it by `alloc` and `dealloc`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(layout.size() as isize, Ordering::SeqCst);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size() as isize, Ordering::SeqCst);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(place, layout) }
    }
}

#[derive(Debug, Default)]
struct Draft(Vec<u8>);

impl Session for Draft {
    fn reset(&mut self) {
        self.0.clear();
    }
}

const PEAK: usize = 20_000;
/// Headers, alarms and hints: 64 slots in 832 bytes; and chunks of frames double.
const KEPT_BYTES_PER_SLOT: usize = 2 * 13;
/// What stays whatever the peak was: spare slots of maintenance, tables of emptied shards with room for 28
/// users each.
const KEPT_BYTES: usize = 800 * 1024;
/// "Why was I closed?" is remembered: 16 ends, and the reasons of 128, for each shard of at most 256 slots.
const KEPT_ENDS: usize = (PEAK / 256).next_power_of_two() * (16 * (size_of::<End>() + 8) + 128 * 12);

#[test]
fn after_a_peak_maintenance_gives_the_memory_back() {
    let pool: Pool<Draft> = builder("memory", PEAK).build().unwrap();
    drop(connect(&pool, 0));
    let live = || LIVE_BYTES.load(Ordering::SeqCst);
    let before = live();
    let mut peak = 0;
    let mut after = Vec::new();
    for _ in 0..3 {
        let leases: Vec<_> = (0..PEAK).map(|number| connect(&pool, number)).collect();
        assert_counts(&pool, PEAK, 0, 0);
        peak = live() - before;
        drop(leases);
        // Pages leave when no walk can see them any more: a few rounds later.
        for _ in 0..200 {
            pool.maintain(pool.clock().now());
        }
        after.push(live() - before);
    }
    assert_counts(&pool, 0, 0, 0);
    let bound = KEPT_BYTES + PEAK * KEPT_BYTES_PER_SLOT + KEPT_ENDS;
    println!("peak {peak} bytes, {} a connection; kept {after:?} of at most {bound}", peak as usize / PEAK);
    assert!(after.iter().all(|&kept| kept <= bound as isize), "kept {after:?} of at most {bound}");
}

fn connect(pool: &Pool<Draft>, number: usize) -> ws_manager_pool::Lease<Draft> {
    let user = format!("user-{}", number / 4);
    let mut lease = pool.reserve(&context(&user, None)).unwrap().open().unwrap();
    lease.with_session(|draft| draft.0.extend([b'x'; 500])).unwrap();
    assert!(pool.send(lease.key(), Message::from("hello")).is_queued());
    lease
}
