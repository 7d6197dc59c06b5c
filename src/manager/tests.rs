use super::*;
use crate::id::IdGenerator;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as StdAtomicUsize, Ordering};
use std::task::Wake;

const NOON: Timestamp = Timestamp::from_millis(12 * 3_600_000);
const LATER: Timestamp = Timestamp::from_millis(13 * 3_600_000);
const LIMITS: fn() -> OutboundLimits = OutboundLimits::default;

/// A slot without a slab.
#[derive(Default)]
struct Slot {
    glance: Glance,
    shared: Shared,
}

impl Slot {
    #[track_caller]
    fn opened_for(user: &str, now: Timestamp) -> Self {
        let mut slot = Self::default();
        slot.open(user, now);
        slot
    }

    #[track_caller]
    fn open(&mut self, user: &str, now: Timestamp) {
        self.shared.reset_for_new_connection(&self.glance, context(user), now, Location::caller());
    }

    fn manager(&self) -> PooledWebSocketManager<'_> {
        PooledWebSocketManager::of(&self.glance, &self.shared).expect("the slot is open")
    }

    fn clean(&mut self) -> Cleaned {
        self.shared.clean(&self.glance, &Room::new(0, 0))
    }

    fn offer(&self, message: impl Into<Message>, limits: &OutboundLimits, room: &Room) -> SendOutcome {
        self.shared.offer(message.into(), limits, room, 3).settle()
    }

    /// Takes a message; its bytes stay in the budget.
    fn pop(&self) -> Option<Message> {
        match self.shared.pop(&Room::new(0, 0), OutboundLimits::default).0? {
            Popped::Message(message) => Some(message),
            other => panic!("{other:?} instead of a message"),
        }
    }
}

fn context(user: &str) -> UserExecutionContext {
    let ids = IdGenerator::user_context_ids(user, "test");
    UserExecutionContext::from_websocket_request(user, ids).expect("the user id is valid")
}

#[derive(Default)]
struct CountingWaker(StdAtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_fresh_connection_starts_connecting_with_nothing_queued_and_nothing_counted() {
    let line = line!() + 1;
    let slot = Slot::opened_for("ada", NOON);
    let manager = slot.manager();
    assert_eq!(manager.user_id().as_str(), "ada");
    assert_eq!(manager.thread_id(), manager.context().thread_id());
    assert_eq!((manager.state(), manager.errored_at()), (ManagerState::Connecting, None));
    assert_eq!((manager.opened_at(), manager.last_activity()), (NOON, NOON));
    assert_eq!(manager.idle(LATER), Duration::from_secs(3_600));
    assert_eq!((manager.messages_in(), manager.messages_out()), (0, 0));
    assert_eq!((manager.bytes_in(), manager.bytes_out()), (0, 0));
    assert_eq!((manager.queued(), manager.queued_bytes()), (0, 0));
    assert_eq!(manager.made_at().line(), line);
    assert!(!manager.is_reusable());
}

#[test]
fn nothing_of_the_last_occupant_reaches_the_next() {
    let room = Room::new(1_000, 0);
    let mut slot = Slot::opened_for("ada", NOON);
    slot.manager().mark_connected().unwrap();
    slot.glance.received(10, LATER);
    slot.glance.sent(1, 20, LATER);
    slot.glance.wake_wanted(LATER);
    assert_eq!(slot.glance.wake_at(), Some(LATER));
    assert!(slot.offer("secret", &LIMITS(), &room).is_queued());
    slot.manager().mark_errored(NOON).unwrap();

    let cleaned = slot.clean();
    assert_eq!(cleaned.queued_bytes, 6);
    assert!(PooledWebSocketManager::of(&slot.glance, &slot.shared).is_none(), "nobody is there");
    assert_eq!((slot.glance.state(), slot.glance.errored_at()), (ManagerState::Disconnected, None));
    assert_eq!(slot.glance.wake_at(), None, "nobody is left to be woken");

    slot.open("bob", LATER);
    let manager = slot.manager();
    assert_eq!(manager.user_id().as_str(), "bob");
    assert_eq!((manager.state(), manager.opened_at()), (ManagerState::Connecting, LATER));
    assert_eq!((manager.messages_in(), manager.messages_out()), (0, 0));
    assert_eq!((manager.bytes_in(), manager.bytes_out()), (0, 0));
    assert_eq!((manager.queued(), slot.pop()), (0, None));
}

#[test]
fn only_a_disconnected_manager_with_an_empty_queue_is_reusable() {
    let room = Room::new(1_000, 0);
    let slot = Slot::opened_for("ada", NOON);
    let manager = slot.manager();
    manager.mark_connected().unwrap();
    assert!(slot.offer("x", &LIMITS(), &room).is_queued());
    manager.mark_closing().unwrap();
    assert!(!manager.is_reusable());
    manager.mark_disconnected().unwrap();
    assert!(!manager.is_reusable(), "a message is queued");
    assert_eq!(slot.pop().map(|message| message.len()), Some(1));
    assert!(manager.is_reusable());
}

#[test]
fn application_messages_are_counted_and_are_activity() {
    let slot = Slot::opened_for("ada", NOON);
    slot.glance.received(10, NOON);
    slot.glance.received(5, LATER);
    slot.glance.sent(1, 7, NOON.after(Duration::from_secs(7_200)));
    slot.glance.polled(NOON.after(Duration::from_secs(9_000)));
    let manager = slot.manager();
    assert_eq!((manager.messages_in(), manager.bytes_in()), (2, 15));
    assert_eq!((manager.messages_out(), manager.bytes_out()), (1, 7));
    assert_eq!(manager.last_activity().since(NOON), Duration::from_secs(7_200));
    assert_eq!(slot.glance.last_poll().map(|at| at.since(NOON)), Some(Duration::from_secs(9_000)));
}

#[test]
fn a_refused_offer_comes_back_and_costs_no_budget() {
    let room = Room::new(10, 0);
    let slot = Slot::opened_for("ada", NOON);
    let offer = |text: &'static str| slot.offer(text, &LIMITS().with_message_bytes(9), &room);
    assert_eq!(offer("0123456789"), SendOutcome::Full("0123456789".into()), "message size");
    assert_eq!(offer("012345"), SendOutcome::Queued);
    assert_eq!(offer("01234"), SendOutcome::Full("01234".into()), "the pool's budget");
    assert_eq!(room.budget.taken(), 6);
    assert_eq!(
        slot.offer("0", &LIMITS().with_messages(1), &room),
        SendOutcome::Full("0".into()),
        "the queue"
    );
    slot.manager().mark_connected().unwrap();
    slot.manager().mark_closing().unwrap();
    assert_eq!(offer("0"), SendOutcome::Dropped);
    assert_eq!(room.budget.taken(), 6);
}

#[test]
fn a_queued_message_wakes_the_owner_and_a_clean_hands_its_waker_over() {
    let room = Room::new(100, 0);
    let mut slot = Slot::opened_for("ada", NOON);
    let wakes = Arc::new(CountingWaker::default());
    slot.shared.outbound.register(&Waker::from(wakes.clone()));
    assert!(slot.offer("x", &LIMITS(), &room).is_queued());
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);

    slot.shared.outbound.register(&Waker::from(wakes.clone()));
    let cleaned = slot.clean();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1, "the clean itself wakes nobody");
    cleaned.waker.expect("the owner was waiting").wake();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 2);
    assert!(slot.clean().waker.is_none());
}

#[test]
fn a_closing_queue_takes_nothing_and_the_next_connections_does() {
    let room = Room::new(100, 0);
    let mut slot = Slot::opened_for("ada", NOON);
    slot.manager().mark_errored(NOON).unwrap();
    assert!(slot.offer("x", &LIMITS(), &room).is_queued(), "an error may be cleared");
    slot.manager().mark_disconnected().unwrap();
    assert_eq!(slot.offer("x", &LIMITS(), &room), SendOutcome::Dropped);
    room.budget.give(0, slot.clean().queued_bytes);
    assert_eq!(room.budget.taken(), 0);
    slot.open("bob", LATER);
    assert!(slot.offer("x", &LIMITS(), &room).is_queued());
}

#[test]
fn debug_names_the_connection_and_shows_no_content() {
    let room = Room::new(100, 0);
    let slot = Slot::opened_for("ada", NOON);
    assert!(slot.offer("hunter2", &LIMITS(), &room).is_queued());
    let shown = format!("{:?}", slot.manager());
    assert!(shown.contains("ada") && shown.contains("Connecting") && shown.contains("queued_bytes: 7"));
    assert!(!shown.contains("hunter2"));
}

#[test]
fn the_parts_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Glance>();
    shared::<Shared>();
    shared::<ByteBudget>();
    shared::<PooledWebSocketManager<'_>>();
    sent::<Owned<()>>();
}
