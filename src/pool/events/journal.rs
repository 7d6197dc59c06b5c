//! What is known of one thread's events: their numbers, the last of them, and whether a run is in
//! progress.

use super::event::EventId;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::manager::{ByteBudget, Message, Missed};
use std::collections::VecDeque;

/// One thread's journal.
pub(super) struct Journal {
    /// Tells one numbering from another. Never 0.
    stream: u64,
    /// The number of the last event; 0 before the first.
    last: u64,
    /// The last events, without a hole: their numbers end with `last`.
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// Until when each run that is in progress protects the thread's managers.
    runs: Vec<Timestamp>,
    /// When something was last written.
    touched: Timestamp,
    /// It was taken out of the table: whoever finds it looks there again.
    pub(super) is_gone: bool,
}

struct Kept {
    at: Timestamp,
    message: Message,
}

/// How a client that missed something goes on.
pub(super) enum Resume {
    /// Its numbers are those of another numbering: from here on it is to count anew.
    StartOver(EventId),
    /// From this position of the kept ones on; what is before was not kept.
    From(usize),
}

impl Journal {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            stream: u64::from(rand::random::<u32>().max(1)),
            last: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            runs: Vec::new(),
            touched: now,
            is_gone: false,
        }
    }

    pub(super) fn stream(&self) -> u64 {
        self.stream
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The id that the next event gets.
    pub(super) fn next_id(&self) -> EventId {
        EventId { stream: self.stream, seq: self.last + 1 }
    }

    /// Writes the event with [`Journal::next_id`] down. Returns whether it is kept; old ones go.
    pub(super) fn record(
        &mut self,
        message: &Message,
        now: Timestamp,
        config: &Config,
        budget: &ByteBudget,
        stripe: usize,
    ) -> bool {
        debug_assert_eq!(message.event(), self.last + 1);
        self.last = message.event();
        self.touched = now;
        let bytes = message.len();
        if config.replay_events == 0 || bytes > config.replay_bytes {
            self.forget_first(self.kept.len(), budget, stripe); // there is to be no hole
            return false;
        }
        // Its own old ones make room first.
        while !budget.try_take(stripe, bytes) {
            if self.kept.is_empty() {
                return false;
            }
            self.forget_first(1, budget, stripe);
        }
        self.kept.push_back(Kept { at: now, message: message.clone() });
        self.kept_bytes += bytes;
        self.trim(now, config, budget, stripe);
        true
    }

    /// Drops what is too many, too much or too old.
    pub(super) fn trim(&mut self, now: Timestamp, config: &Config, budget: &ByteBudget, stripe: usize) {
        let (mut surplus, mut bytes) = (0, self.kept_bytes);
        for kept in &self.kept {
            let is_within = self.kept.len() - surplus <= config.replay_events && bytes <= config.replay_bytes;
            if is_within && now.since(kept.at) <= config.replay_age {
                break;
            }
            surplus += 1;
            bytes -= kept.message.len();
        }
        self.forget_first(surplus, budget, stripe);
    }

    /// Where a client goes on that expects this event next.
    pub(super) fn resume(&self, missed: Missed) -> Resume {
        let first = self.kept.front().map_or(self.last + 1, |kept| kept.message.event());
        let is_ours = missed.stream == 0 || missed.stream == self.stream;
        if !is_ours || missed.next > self.last + 1 {
            return Resume::StartOver(EventId { stream: self.stream, seq: first - 1 });
        }
        Resume::From(missed.next.saturating_sub(first) as usize)
    }

    /// The kept events from a position on.
    pub(super) fn kept_from(&self, position: usize) -> impl Iterator<Item = &Message> {
        self.kept.range(position.min(self.kept.len())..).map(|kept| &kept.message)
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    pub(super) fn begin_run(&mut self, until: Timestamp) {
        self.runs.push(until);
    }

    /// Ends a run that was to protect until then.
    pub(super) fn end_run(&mut self, until: Timestamp) {
        if let Some(run) = self.runs.iter().position(|&run| run == until) {
            self.runs.swap_remove(run);
        }
    }

    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Until when runs protect the thread's managers; [`Timestamp::ZERO`] if none is in progress.
    pub(super) fn run_until(&self) -> Timestamp {
        self.runs.iter().copied().max().unwrap_or_default()
    }

    /// Nothing happens on the thread, and what happened is too long ago to be asked for. A run that never
    /// ends does not keep it.
    pub(super) fn is_stale(&self, now: Timestamp, config: &Config) -> bool {
        self.run_until() <= now && now.since(self.touched) > config.replay_age
    }

    /// Gives back what it holds. It is of no use afterwards.
    pub(super) fn close(&mut self, budget: &ByteBudget, stripe: usize) {
        self.is_gone = true;
        self.forget_first(self.kept.len(), budget, stripe);
    }

    fn forget_first(&mut self, events: usize, budget: &ByteBudget, stripe: usize) {
        // Texts that the pool made itself: their drop is no foreign code.
        let bytes: usize = self.kept.drain(..events).map(|kept| kept.message.len()).sum();
        self.kept_bytes -= bytes;
        budget.give(stripe, bytes);
        if self.kept.capacity() > 32 && self.kept.len() * 4 < self.kept.capacity() {
            self.kept.shrink_to(self.kept.len() * 2);
        }
    }
}

#[cfg(all(test, not(pool_loom)))]
mod tests {
    use super::*;
    use crate::config::Environment;
    use std::time::Duration;

    struct Desk {
        journal: Journal,
        config: Config,
        budget: ByteBudget,
        now: Timestamp,
    }

    impl Desk {
        fn new(events: usize, bytes: usize) -> Self {
            let mut config = Config::preset(Environment::Production);
            (config.replay_events, config.replay_bytes) = (events, bytes);
            let now = Timestamp::from_millis(1_000);
            Self { journal: Journal::new(now), config, budget: ByteBudget::new(1_000), now }
        }

        fn write(&mut self, bytes: usize) -> bool {
            let message = Message::of_event("x".repeat(bytes), self.journal.next_id().seq);
            self.journal.record(&message, self.now, &self.config, &self.budget, 0)
        }

        fn kept(&self) -> Vec<u64> {
            self.journal.kept_from(0).map(Message::event).collect()
        }

        fn resumed(&self, stream: u64, next: u64) -> Result<Vec<u64>, u64> {
            match self.journal.resume(Missed { stream, next }) {
                Resume::From(position) => Ok(self.journal.kept_from(position).map(Message::event).collect()),
                Resume::StartOver(id) => Err(id.seq),
            }
        }
    }

    #[test]
    fn it_keeps_the_last_events_within_number_bytes_and_age() {
        let mut desk = Desk::new(3, 100);
        for _ in 0..5 {
            assert!(desk.write(10));
        }
        assert_eq!((desk.kept(), desk.journal.last()), (vec![3, 4, 5], 5));
        assert!(desk.write(90));
        assert_eq!(desk.kept(), [5, 6]);
        assert_eq!((desk.journal.kept_bytes(), desk.budget.taken()), (100, 100));
        desk.now = desk.now.after(desk.config.replay_age);
        assert!(desk.write(5));
        assert_eq!(desk.kept(), [6, 7], "bytes");
        desk.now = desk.now.after(Duration::from_millis(1));
        assert!(desk.write(5));
        assert_eq!(desk.kept(), [7, 8], "age");
    }

    #[test]
    fn what_is_kept_has_no_hole() {
        let mut desk = Desk::new(10, 100);
        assert!(desk.write(10));
        assert!(!desk.write(101), "too large");
        assert_eq!(desk.kept(), [0; 0]);
        assert!(desk.write(10));
        assert!(desk.budget.try_take(0, 985));
        assert!(desk.write(10), "the old one makes room in the budget");
        assert_eq!(desk.kept(), [4]);
        assert!(!desk.write(16), "no budget");
        assert_eq!((desk.kept(), desk.budget.taken()), (vec![], 985));
        assert!(!Desk::new(0, 100).write(1), "it is off");
    }

    #[test]
    fn a_client_goes_on_where_it_was_or_starts_over() {
        let mut desk = Desk::new(3, 100);
        let stream = desk.journal.stream();
        assert_eq!((desk.resumed(0, 1), desk.resumed(stream, 1)), (Ok(vec![]), Ok(vec![])));
        assert_eq!((desk.resumed(0, 2), desk.resumed(stream + 1, 1)), (Err(0), Err(0)));
        for _ in 0..5 {
            desk.write(1);
        }
        assert_eq!(desk.resumed(stream, 6), Ok(vec![]), "it has all");
        assert_eq!((desk.resumed(stream, 5), desk.resumed(0, 3)), (Ok(vec![5]), Ok(vec![3, 4, 5])));
        assert_eq!(desk.resumed(stream, 1), Ok(vec![3, 4, 5]), "the queue announces the first two");
        assert_eq!((desk.resumed(stream, 7), desk.resumed(stream + 1, 4)), (Err(2), Err(2)));
    }

    #[test]
    fn runs_overlap_and_the_thread_is_stale_only_without_them() {
        let mut desk = Desk::new(3, 100);
        let late = desk.now.after(desk.config.replay_age + Duration::from_millis(1));
        let until = late.after(Duration::from_secs(9));
        desk.journal.begin_run(until);
        desk.journal.begin_run(late);
        desk.journal.end_run(late);
        assert_eq!((desk.journal.runs(), desk.journal.run_until()), (1, until));
        assert!(!desk.journal.is_stale(late, &desk.config));
        assert!(desk.journal.is_stale(until, &desk.config), "a run that never ends does not keep it");
        desk.journal.begin_run(late);
        desk.journal.end_run(until);
        assert_eq!(desk.journal.run_until(), late, "that of the run that is left");
        desk.journal.end_run(late);
        assert_eq!(desk.journal.run_until(), Timestamp::ZERO);
        assert!(desk.journal.is_stale(late, &desk.config) && !desk.journal.is_stale(desk.now, &desk.config));
    }
}
