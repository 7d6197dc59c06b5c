//! An agent's run on a user's thread: its one writer.

use super::event::{AgentEvent, EventData, EventId, Of, event_message, gap_message};
use super::journal::{Journal, Resume};
use super::journals::Thread;
use crate::clock::Timestamp;
use crate::id::{IsolationKey, ThreadId, UserExecutionContext};
use crate::manager::{Gap, Message, Missed, Offer, Offered, OverflowPolicy, Session, Shared, wake};
use crate::pool::Pool;
use crate::pool::core::Core;
use crate::pool::handle::LeaseHandle;
use crate::pool::outgoing::Aftermath;
use crate::pool::registry::Hash32;
use crate::pool::send::SendReport;
use crate::slab::{Key, Stale, thread_number};
use std::fmt;
use std::sync::Arc;

/// An agent's run on a user's thread. What it does is told to every connection of the thread, in order;
/// `&mut` makes it the one writer of its run. While it lasts, at most for [`crate::Config::run_limit`], no
/// automatism takes the thread's managers while another can go; also those that join later, or take over.
///
/// Dropped without [`Run::complete`], it says `agent_completed` with the outcome `aborted`: nobody waits
/// for ever for an agent that is gone.
///
/// ```
/// use ws_manager_pool::{EventData, IdGenerator, Pool, UserExecutionContext};
///
/// let pool: Pool = Pool::builder().name("doc-run").build()?;
/// let ids = IdGenerator::user_context_ids("ada", "chat");
/// let context = UserExecutionContext::from_websocket_request("ada", ids)?;
/// let mut lease = pool.reserve(&context)?.open()?;
///
/// let mut run = pool.start_run(&context, EventData::NONE);
/// let report = run.thinking("what was the question?");
/// assert!(report.is_complete());
/// run.complete("42");
///
/// let first = lease.next_message()?.expect("it has been sent");
/// assert!(first.as_text().unwrap().starts_with(r#"{"type":"agent_started","id":""#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping a run aborts it"]
pub struct Run<S: Session = ()> {
    handle: LeaseHandle<S>,
    thread: Arc<Thread>,
    context: UserExecutionContext,
    /// How long it protects.
    until: Timestamp,
    is_over: bool,
}

impl<S: Session> Pool<S> {
    /// Begins a run of an agent on the context's thread, and says `agent_started` to its connections. There
    /// need not be any: what is kept of it is there for a client that comes back.
    ///
    /// Runs of one thread may overlap; each event names its run.
    pub fn start_run(&self, context: &UserExecutionContext, data: impl Into<EventData>) -> Run<S> {
        let core = &*self.handle;
        let hash = core.hash_of_thread(context.user_id(), context.thread_id());
        let now = core.clock.now();
        let until = now.after(core.settings.load().run_limit);
        let data = data.into(); // foreign code: before the lock, and before the run counts
        // Ends: a thread that is gone is made anew, and then somebody uses it.
        loop {
            let thread = core.journals.enter(hash, context, now);
            let Some(mut journal) = thread.journal() else { continue };
            journal.begin_run(until);
            let sent = core.tell(&thread, &mut journal, AgentEvent::Started, context, None, &data);
            drop(journal);
            let handle = self.handle.for_lease();
            let run = Run { handle, thread, context: context.clone(), until, is_over: false };
            let _ = core.settle_all(sent); // whom it reached is said of every later event
            return run;
        }
    }
}

impl<S: Session> Run<S> {
    /// Whose run it is, and its id.
    pub fn context(&self) -> &UserExecutionContext {
        &self.context
    }

    /// Says `agent_thinking`.
    pub fn thinking(&mut self, data: impl Into<EventData>) -> SendReport {
        self.say(AgentEvent::Thinking, &data.into())
    }

    /// Says `tool_executing`.
    pub fn tool_executing(&mut self, data: impl Into<EventData>) -> SendReport {
        self.say(AgentEvent::ToolExecuting, &data.into())
    }

    /// Says `tool_completed`.
    pub fn tool_completed(&mut self, data: impl Into<EventData>) -> SendReport {
        self.say(AgentEvent::ToolCompleted, &data.into())
    }

    /// Ends the run and says `agent_completed`.
    pub fn complete(mut self, data: impl Into<EventData>) -> SendReport {
        self.end("completed", &data.into())
    }

    fn say(&mut self, event: AgentEvent, data: &EventData) -> SendReport {
        let sent = self.tell(|_| (), event, None, data);
        self.handle.settle_all(sent)
    }

    fn end(&mut self, outcome: &'static str, data: &EventData) -> SendReport {
        self.is_over = true;
        let until = self.until;
        let end_run = |journal: &mut Journal| {
            if !fault!("run_never_ends") {
                journal.end_run(until);
            }
        };
        let sent = self.tell(end_run, AgentEvent::Completed, Some(outcome), data);
        let user = self.context.user_id();
        self.handle.user_may_be_due(self.handle.registry.hash(user), user);
        self.handle.settle_all(sent)
    }

    fn tell(
        &mut self,
        first: impl FnOnce(&mut Journal),
        event: AgentEvent,
        outcome: Option<&'static str>,
        data: &EventData,
    ) -> Told {
        // Ends: a thread that is gone is made anew, and then somebody uses it.
        loop {
            if let Some(mut journal) = self.thread.journal() {
                first(&mut journal);
                return self.handle.tell(&self.thread, &mut journal, event, &self.context, outcome, data);
            }
            // Forgotten, as the run was silent for longer than it counts: it goes on under new numbers.
            let (core, hash) = (&*self.handle, self.thread.hash);
            self.thread = core.journals.enter(hash, &self.context, core.clock.now());
        }
    }
}

impl<S: Session> Drop for Run<S> {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.end("aborted", &EventData::NONE);
        }
    }
}

impl<S: Session> fmt::Debug for Run<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("context", &self.context).finish_non_exhaustive()
    }
}

/// What a connection that catches up is to say past its queue.
pub(crate) enum Past {
    Gap(Message),
    Event(Message),
}

/// What became of an event, and what is left to do for it once no lock is held.
pub(in crate::pool) struct Told {
    report: SendReport,
    offers: Vec<(Key, Offer)>,
}

impl<S: Session> Core<S> {
    /// Numbers an event, writes it down and puts it into the queues of the thread's connections. The journal
    /// is locked: so the order of the numbers is the order in every queue.
    fn tell(
        &self,
        thread: &Thread,
        journal: &mut Journal,
        event: AgentEvent,
        context: &UserExecutionContext,
        outcome: Option<&'static str>,
        data: &EventData,
    ) -> Told {
        let config = self.settings.load();
        let stripe = thread_number();
        let of = Of { thread: context.thread_id(), run: context.run_id(), outcome };
        let message = event_message(event, journal.next_id(), &of, data);
        let is_kept = journal.record(&message, self.clock.now(), &config, &self.journals.budget, stripe);
        let run_until = journal.run_until();

        let mut told = Told { report: SendReport::of_nobody(), offers: Vec::new() };
        let room = &self.slab.resident().room;
        // In the section the keys are live, so that no pin of ours is the last of a slot that closes.
        let shard = self.registry.section(self.registry.hash(context.user_id()));
        for key in shard.same_isolation_hash(thread.hash) {
            let offered = self.slab.pin(key, |glance, shared| {
                if !shared.is_of(&thread.key) {
                    return None;
                }
                glance.manager.thread_runs_until(run_until);
                if shared.outbound.is_catching_up() && !fault!("event_overtakes_replay") {
                    return Some(Err(is_kept));
                }
                Some(Ok(shared.offer(message.clone(), &config.outbound, room, stripe)))
            });
            let Ok(Some(offered)) = offered else { continue };
            told.report.is_nobody = false;
            match offered {
                Ok(offer) => told.offers.push((key, offer)),
                // It is on its way to this one: from the journal.
                Err(true) => told.report.queued += 1,
                Err(false) => told.report.full += 1,
            }
        }
        told
    }

    /// Wakes, drops and counts, with nothing locked.
    fn settle_all(&self, told: Told) -> SendReport {
        let Told { mut report, mut offers } = told;
        // All are awake before anybody is told anything: who listens may be slow.
        offers.iter_mut().filter_map(|(_, offer)| offer.waker.take()).for_each(wake);
        for (key, offer) in offers {
            report.count(&self.settle(key, offer));
        }
        report
    }

    /// A connection has just been opened: it shares in its thread's runs.
    pub(in crate::pool) fn join_runs(
        &self,
        key: Key,
        user_hash: Hash32,
        hash: Hash32,
        context: &UserExecutionContext,
    ) {
        if self.journals.is_empty() || fault!("run_not_joined") {
            return;
        }
        let Some(thread) = self.journals.find(hash, context, || ()) else { return };
        if let Some(journal) = thread.journal() {
            let until = journal.run_until();
            // In the section what is live stays live, so that no pin of ours is the last of a slot that closes:
            // it would be cleaned here, under the journal's lock.
            let _section = self.registry.section(user_hash);
            if self.slab.is_live(key) {
                let _: Result<(), Stale> =
                    self.slab.pin(key, |glance, _| glance.manager.thread_runs_until(until));
            }
        }
    }

    /// Puts what a connection has missed into its queue, as much as has room, or says that some of it is
    /// nowhere. For the connection's owner, under its pin.
    pub(in crate::pool) fn catch_up(
        &self,
        shared: &Shared,
        context: &UserExecutionContext,
        missed: Missed,
        after: &mut Aftermath,
    ) -> Option<Past> {
        let hash = self.hash_of_thread(context.user_id(), context.thread_id());
        let thread_id = context.thread_id();
        // Ends: a thread that is gone is not found again.
        loop {
            let go_live = || shared.outbound.go_live(Some(0), 0);
            let Some(thread) = self.journals.find(hash, context, go_live) else {
                let is_unknown = missed.next > 1 || missed.stream != 0;
                let gap = Gap { from: None, to: 0 };
                return is_unknown.then(|| Past::Gap(gap_message(gap, 0, thread_id)));
            };
            let Some(journal) = thread.journal() else { continue };
            return match journal.resume(missed) {
                Resume::StartOver(id) => {
                    shared.outbound.start_over(id.stream, id.seq + 1);
                    Some(Past::Gap(gap_message(Gap { from: None, to: id.seq }, id.stream, thread_id)))
                }
                Resume::From(position) => self.replay(shared, &journal, position, thread_id, after),
            };
        }
    }

    /// Stops when the queue, or the pool's budget, is full: it goes on when the queue is empty again.
    fn replay(
        &self,
        shared: &Shared,
        journal: &Journal,
        position: usize,
        thread_id: &ThreadId,
        after: &mut Aftermath,
    ) -> Option<Past> {
        // Others may fill the queue at the same time, which is no reason to end the connection or to give up
        // what they sent.
        let limits = self.settings.outbound().with_overflow(OverflowPolicy::DropNewest);
        let (room, stripe) = (&self.slab.resident().room, thread_number());
        for message in journal.kept_from(position) {
            let is_alone = shared.outbound.len() == 0;
            if !is_alone && !shared.outbound.has_room(message.len(), &limits) {
                return None;
            }
            // Into an empty queue in any case: what can't be queued alone will never be, and is announced.
            let is_hopeless = limits.is_hopeless(message.len());
            let mut offer = if is_hopeless {
                shared.offer(message.clone(), &limits, room, stripe)
            } else if room.budget.try_take(stripe, message.len()) {
                shared.offer_paid(message.clone(), &limits, room, stripe)
            } else if is_alone {
                // It leaves at once, and so it needs no room: one event at a time.
                return Some(match shared.outbound.say_past(message) {
                    Some(gap) => Past::Gap(gap_message(gap, journal.stream(), thread_id)),
                    None => Past::Event(message.clone()),
                });
            } else {
                return None;
            };
            let is_refused = matches!(offer.offered, Offered::Full(_));
            after.turned = offer.turned.take().or(after.turned);
            after.offers.push(offer);
            if is_refused && !is_hopeless {
                return None;
            }
        }
        shared.outbound.go_live(None, journal.last());
        None
    }

    /// The id of what a connection is told of events that it will not get.
    pub(in crate::pool) fn gap_message(&self, context: &UserExecutionContext, gap: Gap) -> Message {
        let hash = self.hash_of_thread(context.user_id(), context.thread_id());
        let thread = self.journals.find(hash, context, || ());
        let stream = thread.and_then(|thread| thread.journal().map(|journal| journal.stream()));
        gap_message(gap, stream.unwrap_or(0), context.thread_id())
    }

    /// Forgets what nobody will ask for.
    pub(in crate::pool) fn sweep_journals(&self, now: Timestamp) {
        let config = self.settings.load_full();
        self.journals.sweep(now, &config, |key, hash| self.is_connected(key, hash));
    }

    fn is_connected(&self, key: &IsolationKey, hash: Hash32) -> bool {
        let shard = self.registry.section(self.registry.hash(key.user_id()));
        shard.same_isolation_hash(hash).any(|slot| {
            let is_it = self.slab.pin(slot, |_, shared| shared.is_of(key));
            is_it == Ok(true)
        })
    }
}

impl EventId {
    /// What a client misses that had this one last.
    pub(in crate::pool) fn missed(self) -> Missed {
        Missed { stream: self.stream, next: self.seq + 1 }
    }
}
