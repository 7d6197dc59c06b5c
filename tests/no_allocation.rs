//! From making the ids to dropping the lease, with a sender on another thread, nothing is allocated
//! in the steady state.

#![allow(unsafe_code)] // a counting allocator

use bytes::Bytes;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use ws_manager_pool::{
    Environment, IdGenerator, Lease, ManagerKey, Message, Pool, Session, UserExecutionContext,
};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The harness has threads of its own. Constant and without a destructor, so that it can be read
    /// inside the allocator.
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: everything is left to the system's allocator; counting allocates nothing. What reallocates
// does it by `alloc`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if IS_COUNTED.get() {
            ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(place, layout) }
    }
}

const WARM_UP: usize = 2_000;
const ROUNDS: usize = 5_000;
const MESSAGES: usize = 8;

/// The application's state: a buffer that is used and reused.
#[derive(Debug, Default)]
struct Draft(Vec<u8>);

impl Session for Draft {
    fn reset(&mut self) {
        self.0.clear();
    }
}

/// What the two threads hand each other. The channels hold one and allocate nothing after their
/// first use.
struct Line<T>(SyncSender<T>, Receiver<T>);

impl<T> Line<T> {
    fn new() -> Self {
        let (to, from) = sync_channel(1);
        Self(to, from)
    }
}

fn connect(pool: &Pool<Draft>, thread: Option<&str>) -> Lease<Draft> {
    let ids = IdGenerator::user_context_ids("ada", "chat");
    let ids = match thread {
        Some(thread) => ids.with_client_thread(thread).unwrap(),
        None => ids,
    };
    let context = UserExecutionContext::from_websocket_request("ada", ids).unwrap();
    pool.reserve(&context).unwrap().open().unwrap()
}

fn use_up(mut lease: Lease<Draft>) {
    lease.connected().unwrap();
    for _ in 0..MESSAGES {
        let message = lease.next_message().unwrap().expect("it was sent");
        lease.with_session(|draft| draft.0.extend_from_slice(message.as_bytes())).unwrap();
    }
    assert_eq!(lease.next_message(), Ok(None));
    drop(lease);
}

/// Calls `round` until the steady state, then counts.
fn count_allocations(name: &str, mut round: impl FnMut(usize)) {
    (0..WARM_UP).for_each(&mut round);
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    (0..ROUNDS).for_each(&mut round);
    let allocations = ALLOCATIONS.load(Ordering::SeqCst) - before;
    assert_eq!(allocations, 0, "{name}: {allocations} allocations in {ROUNDS} lives");
}

/// One test, so that nothing else runs beside it.
#[test]
fn a_life_in_the_steady_state_allocates_nothing() {
    let pool: Pool<Draft> =
        Pool::builder().name("no-allocation").environment(Environment::Production).build().unwrap();
    IS_COUNTED.set(true);
    ALLOCATIONS.store(0, Ordering::SeqCst);
    drop(std::hint::black_box(Box::new(0_u8)));
    assert_eq!(ALLOCATIONS.load(Ordering::SeqCst), 1, "the counter counts");

    let (keys, sent, leases) = (Line::<ManagerKey>::new(), Line::<()>::new(), Line::<Lease<Draft>>::new());
    thread::scope(|scope| {
        let sender = pool.clone();
        let Line(keys, keys_to_send_to) = keys;
        let Line(done, sent) = sent;
        scope.spawn(move || {
            IS_COUNTED.set(true);
            let shared = Bytes::from(vec![b'x'; 300]);
            let ada = "ada".parse().unwrap();
            while let Ok(key) = keys_to_send_to.recv() {
                for _ in 0..MESSAGES / 4 {
                    assert!(sender.send(key, Message::text_static("hello")).is_queued());
                    assert!(sender.send_many(&[key], Message::binary(shared.clone())).sum.is_complete());
                    assert!(sender.send_to_user(&ada, Message::binary(shared.clone())).is_complete());
                    assert!(sender.broadcast(Message::text_static("to all")).is_complete());
                }
                done.send(()).unwrap();
            }
            IS_COUNTED.set(false);
        });
        let Line(to_dropper, to_drop) = leases;
        let Line(done_dropping, dropped) = Line::new();
        scope.spawn(move || {
            IS_COUNTED.set(true);
            while let Ok(lease) = to_drop.recv() {
                use_up(lease);
                done_dropping.send(()).unwrap();
            }
            IS_COUNTED.set(false);
        });

        let live = |thread| {
            let lease = connect(&pool, thread);
            keys.send(lease.key()).unwrap();
            sent.recv().unwrap();
            lease
        };
        count_allocations("generated thread ids", |_| use_up(live(None)));
        let threads = ["thread_7", "thread_0123456789abcdef0123456789abcdef", "thread_a.b-c_d"];
        count_allocations("client thread ids", |round| use_up(live(Some(threads[round % 3]))));
        count_allocations("acquired here, dropped there", |round| {
            let thread = (round % 2 == 0).then_some("thread_7");
            to_dropper.send(live(thread)).unwrap();
            dropped.recv().unwrap();
        });
        IS_COUNTED.set(false);
        drop((keys, to_dropper));
    });
    assert!(pool.ledger().balanced);
}
