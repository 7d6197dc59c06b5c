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
        self.shared.clean(&self.glance)
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
    let budget = ByteBudget::new(1_000);
    let mut slot = Slot::opened_for("ada", NOON);
    slot.manager().mark_connected().unwrap();
    slot.glance.received(10, LATER);
    slot.glance.sent(20, LATER);
    slot.glance.wake_wanted(LATER);
    assert_eq!(slot.glance.wake_at(), Some(LATER));
    assert!(slot.shared.offer("secret".into(), &LIMITS(), &budget, 0).is_queued());
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
    assert_eq!((manager.queued(), slot.shared.outbound.pop()), (0, None));
}

#[test]
fn only_a_disconnected_manager_with_an_empty_queue_is_reusable() {
    let budget = ByteBudget::new(1_000);
    let slot = Slot::opened_for("ada", NOON);
    let manager = slot.manager();
    manager.mark_connected().unwrap();
    assert!(slot.shared.offer("x".into(), &LIMITS(), &budget, 0).is_queued());
    manager.mark_closing().unwrap();
    assert!(!manager.is_reusable());
    manager.mark_disconnected().unwrap();
    assert!(!manager.is_reusable(), "a message is queued");
    assert_eq!(slot.shared.outbound.pop().map(|message| message.len()), Some(1));
    assert!(manager.is_reusable());
}

#[test]
fn application_messages_are_counted_and_are_activity() {
    let slot = Slot::opened_for("ada", NOON);
    slot.glance.received(10, NOON);
    slot.glance.received(5, LATER);
    slot.glance.sent(7, NOON.after(Duration::from_secs(7_200)));
    slot.glance.polled(NOON.after(Duration::from_secs(9_000)));
    let manager = slot.manager();
    assert_eq!((manager.messages_in(), manager.bytes_in()), (2, 15));
    assert_eq!((manager.messages_out(), manager.bytes_out()), (1, 7));
    assert_eq!(manager.last_activity().since(NOON), Duration::from_secs(7_200));
    assert_eq!(slot.glance.last_poll().map(|at| at.since(NOON)), Some(Duration::from_secs(9_000)));
}

#[test]
fn a_refused_offer_comes_back_and_costs_no_budget() {
    let budget = ByteBudget::new(10);
    let slot = Slot::opened_for("ada", NOON);
    let offer =
        |text: &'static str| slot.shared.offer(text.into(), &LIMITS().with_message_bytes(9), &budget, 3);
    assert_eq!(offer("0123456789"), SendOutcome::Full("0123456789".into()), "message size");
    assert_eq!(offer("012345"), SendOutcome::Queued);
    assert_eq!(offer("01234"), SendOutcome::Full("01234".into()), "the pool's budget");
    assert_eq!(budget.taken(), 6);
    assert_eq!(
        slot.shared.offer("0".into(), &LIMITS().with_messages(1), &budget, 3),
        SendOutcome::Full("0".into()),
        "the queue"
    );
    slot.manager().mark_connected().unwrap();
    slot.manager().mark_closing().unwrap();
    assert_eq!(offer("0"), SendOutcome::Dropped);
    assert_eq!(budget.taken(), 6);
}

#[test]
fn a_queued_message_wakes_the_owner_and_a_clean_hands_its_waker_over() {
    let budget = ByteBudget::new(100);
    let mut slot = Slot::opened_for("ada", NOON);
    let wakes = Arc::new(CountingWaker::default());
    slot.shared.waker.register(&Waker::from(wakes.clone()));
    assert!(slot.shared.offer("x".into(), &LIMITS(), &budget, 0).is_queued());
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);

    slot.shared.waker.register(&Waker::from(wakes.clone()));
    let cleaned = slot.clean();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1, "the clean itself wakes nobody");
    cleaned.waker.expect("the owner was waiting").wake();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 2);
    assert!(slot.clean().waker.is_none());
}

#[test]
fn a_closing_queue_takes_nothing_and_the_next_connections_does() {
    let budget = ByteBudget::new(100);
    let mut slot = Slot::opened_for("ada", NOON);
    slot.manager().mark_errored(NOON).unwrap();
    assert!(slot.shared.offer("x".into(), &LIMITS(), &budget, 0).is_queued(), "an error may be cleared");
    slot.manager().mark_disconnected().unwrap();
    assert_eq!(slot.shared.offer("x".into(), &LIMITS(), &budget, 0), SendOutcome::Dropped);
    budget.give(0, slot.clean().queued_bytes);
    assert_eq!(budget.taken(), 0);
    slot.open("bob", LATER);
    assert!(slot.shared.offer("x".into(), &LIMITS(), &budget, 0).is_queued());
}

#[test]
fn debug_names_the_connection_and_shows_no_content() {
    let budget = ByteBudget::new(100);
    let slot = Slot::opened_for("ada", NOON);
    assert!(slot.shared.offer("hunter2".into(), &LIMITS(), &budget, 0).is_queued());
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
