//! The golden path in the double: each thread's journal is a list of all its events.

use super::core::Core;
use super::life::Life;
use super::state::State;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::id::{IsolationKey, UserExecutionContext};
use crate::manager::{Gap, Message, Missed, Offer, Session, Turned};
use crate::pool::{
    AgentEvent, EventData, EventId, EventOf, ManagerRun, Past, SendReport, ThreadFigures, event_message,
    gap_message,
};
use crate::slab::Key;
use std::fmt;
use std::sync::Arc;

/// The double of [`crate::Run`].
#[must_use = "dropping a run aborts it"]
pub struct FakeRun<S: Session = ()> {
    core: Arc<Core<S>>,
    context: UserExecutionContext,
    /// How long it protects.
    until: Timestamp,
    is_over: bool,
}

impl<S: Session> FakeRun<S> {
    pub(super) fn start(core: Arc<Core<S>>, context: &UserExecutionContext, data: &EventData) -> Self {
        let (until, told) = core.section(|state| {
            let until = state.begin_run(context);
            (until, state.tell(context, AgentEvent::Started, None, data))
        });
        let _ = core.settle_all(told); // whom it reached is said of every later event
        Self { core, context: context.clone(), until, is_over: false }
    }

    fn say(&self, event: AgentEvent, data: &EventData) -> SendReport {
        self.core.settle_all(self.core.section(|state| state.tell(&self.context, event, None, data)))
    }

    fn end(&mut self, outcome: &'static str, data: &EventData) -> SendReport {
        self.is_over = true;
        let told = self.core.section(|state| {
            state.end_run(&self.context, self.until);
            state.tell(&self.context, AgentEvent::Completed, Some(outcome), data)
        });
        self.core.settle_all(told)
    }
}

impl<S: Session> ManagerRun for FakeRun<S> {
    fn context(&self) -> &UserExecutionContext {
        &self.context
    }

    fn thinking(&mut self, data: impl Into<EventData>) -> SendReport {
        self.say(AgentEvent::Thinking, &data.into())
    }

    fn tool_executing(&mut self, data: impl Into<EventData>) -> SendReport {
        self.say(AgentEvent::ToolExecuting, &data.into())
    }

    fn tool_completed(&mut self, data: impl Into<EventData>) -> SendReport {
        self.say(AgentEvent::ToolCompleted, &data.into())
    }

    fn complete(mut self, data: impl Into<EventData>) -> SendReport {
        self.end("completed", &data.into())
    }
}

impl<S: Session> Drop for FakeRun<S> {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.end("aborted", &EventData::NONE);
        }
    }
}

impl<S: Session> fmt::Debug for FakeRun<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeRun").field("context", &self.context).finish_non_exhaustive()
    }
}

/// A thread with numbered events.
pub(super) struct Thread {
    /// Tells one numbering from another. Never 0.
    stream: u64,
    /// All that there ever were: the one at position 0 has number 1.
    events: Vec<(Timestamp, Message)>,
    /// From this position on they are kept.
    kept_from: usize,
    runs: Vec<Timestamp>,
    touched: Timestamp,
}

/// What became of an event, and what is left to do for it when the lock is free again.
pub(super) struct Told {
    report: SendReport,
    offers: Vec<(Key, Offer)>,
}

impl<S: Session> Core<S> {
    fn settle_all(&self, told: Told) -> SendReport {
        let Told { mut report, offers } = told;
        for (key, offer) in offers {
            report.count(&self.settle(key, offer));
        }
        report
    }
}

impl State {
    fn begin_run(&mut self, context: &UserExecutionContext) -> Timestamp {
        let now = self.clock.now();
        let until = now.after(self.settings.load_full().run_limit);
        let thread = self.threads.entry(context.isolation_key()).or_insert_with(|| Thread::new(now));
        thread.runs.push(until);
        until
    }

    fn end_run(&mut self, context: &UserExecutionContext, until: Timestamp) {
        if let Some(thread) = self.threads.get_mut(&context.isolation_key())
            && let Some(run) = thread.runs.iter().position(|&run| run == until)
        {
            thread.runs.remove(run);
        }
        if let Some(user) = self.users.get_mut(context.user_id()) {
            user.may_be_due = true;
        }
    }

    /// Numbers an event, keeps it, and puts it into the queues of the thread's connections.
    fn tell(
        &mut self,
        context: &UserExecutionContext,
        event: AgentEvent,
        outcome: Option<&'static str>,
        data: &EventData,
    ) -> Told {
        let mut told = Told { report: SendReport::of_nobody(), offers: Vec::new() };
        let config = self.settings.load_full();
        let others = self.replay_bytes();
        let now = self.clock.now();
        let thread = self.threads.entry(context.isolation_key()).or_insert_with(|| Thread::new(now));
        let id = EventId { stream: thread.stream, seq: thread.last() + 1 };
        let of = EventOf { thread: context.thread_id(), run: context.run_id(), outcome };
        let message = event_message(event, id, &of, data);
        let is_kept = thread.record(&message, others, now, &config);
        let run_until = thread.run_until();

        for key in self.connections_of(context) {
            let Some(life) = self.life(key).cloned() else { continue };
            life.glance.thread_runs_until(run_until);
            told.report.is_nobody = false;
            match (life.shared.outbound.is_catching_up(), is_kept) {
                (false, _) => told.offers.push((key, self.offer(&life, message.clone()))),
                // It is on its way to this one: from the journal.
                (true, true) => told.report.queued += 1,
                (true, false) => told.report.full += 1,
            }
        }
        told
    }

    /// A connection has just been opened: it shares in its thread's runs.
    pub(super) fn join_runs(&self, life: &Life, context: &UserExecutionContext) {
        if let Some(thread) = self.threads.get(&context.isolation_key()) {
            life.glance.thread_runs_until(thread.run_until());
        }
    }

    /// Puts what a connection has missed into its queue, as much as has room, or says that some of it is
    /// nowhere.
    pub(super) fn catch_up(
        &mut self,
        life: &Life,
        context: &UserExecutionContext,
        missed: Missed,
    ) -> (Option<Past>, Option<Turned>) {
        let outbound = &life.shared.outbound;
        let Some(thread) = self.threads.get(&context.isolation_key()) else {
            outbound.go_live(Some(0), 0);
            let has_seen_any = missed.next > 1 || missed.stream != 0;
            let gap = Gap { from: None, to: 0 };
            let told = has_seen_any.then(|| Past::Gap(gap_message(gap, 0, context.thread_id())));
            return (told, None);
        };
        let (stream, last) = (thread.stream, thread.last());
        if (missed.stream != 0 && missed.stream != stream) || missed.next > last + 1 {
            let gap = Gap { from: None, to: thread.kept_from as u64 };
            outbound.start_over(stream, gap.to + 1);
            return (Some(Past::Gap(gap_message(gap, stream, context.thread_id()))), None);
        }
        let wanted = thread.kept_from.max(missed.next.saturating_sub(1) as usize);
        let wanted: Vec<_> = thread.events[wanted..].iter().map(|(_, message)| message.clone()).collect();
        let limits = self.settings.load_full().outbound;
        let mut turned = None;
        for message in wanted {
            // Into an empty queue in any case: what can't be queued alone will never be, and is announced.
            if outbound.len() > 0 && !outbound.has_room(message.len(), &limits) {
                return (None, turned);
            }
            let is_free = self.room.budget.try_take(0, message.len());
            if is_free {
                self.room.budget.give(0, message.len());
            } else if !limits.is_hopeless(message.len()) {
                if outbound.len() > 0 {
                    return (None, turned);
                }
                let told = match outbound.say_past(&message) {
                    Some(gap) => Past::Gap(gap_message(gap, stream, context.thread_id())),
                    None => Past::Event(message),
                };
                return (Some(told), turned);
            }
            let offer = self.offer(life, message);
            turned = offer.turned.or(turned);
            self.after.offers.push(offer);
        }
        outbound.go_live(None, last);
        (None, turned)
    }

    /// The numbering of a thread's events; 0 if it has none.
    pub(super) fn stream_of(&self, context: &UserExecutionContext) -> u64 {
        self.threads.get(&context.isolation_key()).map_or(0, |thread| thread.stream)
    }

    /// Forgets what nobody will ask for.
    pub(super) fn sweep_threads(&mut self, now: Timestamp) {
        let config = self.settings.load_full();
        let mut threads = std::mem::take(&mut self.threads);
        threads.retain(|key, thread| {
            thread.trim(now, &config);
            let is_stale = thread.run_until() <= now && now.since(thread.touched) > config.replay_age;
            !is_stale || self.is_connected(key)
        });
        self.threads = threads;
    }

    pub(super) fn thread_figures(&self) -> ThreadFigures {
        ThreadFigures {
            threads: self.threads.len(),
            runs: self.threads.values().map(|thread| thread.runs.len()).sum(),
            replay_bytes: self.replay_bytes(),
        }
    }

    fn replay_bytes(&self) -> usize {
        self.threads.values().map(Thread::kept_bytes).sum()
    }

    fn connections_of(&self, context: &UserExecutionContext) -> Vec<Key> {
        let is_of = |key: &&Key| self.read(**key, |it| it.thread_id() == context.thread_id()) == Some(true);
        self.keys_of(context.user_id()).iter().filter(is_of).copied().collect()
    }

    fn is_connected(&self, to: &IsolationKey) -> bool {
        let is_of = |key: &Key| self.read(*key, |it| it.thread_id() == to.thread_id()) == Some(true);
        self.keys_of(to.user_id()).iter().any(is_of)
    }
}

impl Thread {
    fn new(now: Timestamp) -> Self {
        Self {
            stream: u64::from(rand::random::<u32>().max(1)),
            events: Vec::new(),
            kept_from: 0,
            runs: Vec::new(),
            touched: now,
        }
    }

    fn run_until(&self) -> Timestamp {
        self.runs.iter().copied().max().unwrap_or_default()
    }

    fn last(&self) -> u64 {
        self.events.len() as u64
    }

    fn kept(&self) -> &[(Timestamp, Message)] {
        &self.events[self.kept_from..]
    }

    fn kept_bytes(&self) -> usize {
        self.kept().iter().map(|(_, message)| message.len()).sum()
    }

    /// Writes an event down. Returns whether it is kept; there is no hole in what is. `taken` is what
    /// all threads keep so far.
    fn record(&mut self, message: &Message, taken: usize, now: Timestamp, config: &Config) -> bool {
        self.touched = now;
        self.events.push((now, message.clone()));
        let bytes = message.len();
        let is_wanted = config.replay_events > 0 && bytes <= config.replay_bytes;
        let before = self.events.len() - 1;
        let of_others =
            taken - self.events[self.kept_from..before].iter().map(|(_, it)| it.len()).sum::<usize>();
        if !is_wanted || of_others + bytes > config.replay_pool_bytes {
            self.kept_from = self.events.len();
            return false;
        }
        while of_others + self.kept_bytes() > config.replay_pool_bytes {
            self.kept_from += 1; // its own old ones make room first
        }
        self.trim(now, config);
        true
    }

    /// Forgets, from the oldest on, what is too many, too much or too old.
    fn trim(&mut self, now: Timestamp, config: &Config) {
        while let Some((at, _)) = self.kept().first() {
            let is_too_old = now.since(*at) > config.replay_age;
            let is_too_much =
                self.kept().len() > config.replay_events || self.kept_bytes() > config.replay_bytes;
            if !is_too_old && !is_too_much {
                return;
            }
            self.kept_from += 1;
        }
    }
}
