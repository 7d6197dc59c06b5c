//! Whatever is done, both answer the same, step by step.

use crate::client::{Client, Seen};
use crate::steps::{
    After, Fixed, Numbers, Step, THREADS, TICK, TICKS, USERS, config, context, fixed, numbered, numbers,
    steps, thread,
};
use crate::support::{Bell, Double, Ear, Kind, Real, builder, poll, poll_message, with_clock};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::fmt::Debug;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use ws_manager_pool::{
    AgentEvent, End, EndReason, EventData, EventId, ManagerLease, ManagerPool, ManagerReservation,
    ManagerRun, ManualClock, Message, PoolBuilder, Scope, SendReport, Timestamp, UserExecutionContext,
};

type RunGuardOf<P> = <<P as ManagerPool>::Lease as ManagerLease>::RunGuard;

/// A pool or a double in the course of a run.
struct Run<P: ManagerPool> {
    pool: P,
    hand: ManualClock,
    fixed: Fixed,
    waits: Vec<P::ReserveWait>,
    reservations: Vec<Reserved<P>>,
    connections: Vec<(P::Lease, Client)>,
    runs: Vec<RunGuardOf<P>>,
    agents: Vec<P::Run>,
    seen: Seen,
    bell: Arc<Bell>,
    ear: Ear,
}

/// A reservation, and from where on its client wants to have its thread's events.
struct Reserved<P: ManagerPool>(P::Reservation, Option<EventId>);

impl<P: ManagerPool> Run<P> {
    fn new<K: Kind<Of<()> = P>>(fixed: Fixed, numbers: Numbers) -> Self {
        let ear = Ear::default();
        let builder: PoolBuilder = builder(1, 1).config(config(fixed, numbers));
        let (pool, hand) = with_clock::<K>(builder.observer(ear.clone()));
        Self {
            pool,
            hand,
            fixed,
            waits: Vec::new(),
            reservations: Vec::new(),
            connections: Vec::new(),
            runs: Vec::new(),
            agents: Vec::new(),
            seen: Seen::default(),
            bell: Arc::default(),
            ear,
        }
    }

    /// Does it, and tells all that can be seen afterwards.
    fn step(&mut self, step: &Step) -> String {
        let turn = self.tick();
        let answer = self.act(step);
        let heard = self.ear.take();
        let now = self.pool.clock().now();
        let mut figures = self.pool.snapshot();
        figures.name.clear();
        let seen = [
            turn,
            answer,
            shown(&heard.alerts),
            in_order(heard.ends),
            any_order(heard.pressures),
            shown(&self.connections.iter().map(|(lease, _)| glimpse(lease, now)).collect::<Vec<_>>()),
            shown(&self.bell.rings()),
            shown(&[0, 1, 2].map(|number| self.pool.check_user(&numbered(number)))),
            self.remembered(),
            shown(&(self.pool.check(), self.pool.config_versions().len())),
            shown(&figures),
        ];
        seen.join("\n")
    }

    fn act(&mut self, step: &Step) -> String {
        let now = self.pool.clock().now();
        match step {
            Step::Reserve(context) => match self.pool.reserve(context) {
                Ok(reservation) => {
                    self.reservations.push(Reserved(reservation, None));
                    "reserved".into()
                }
                Err(error) => shown(&error),
            },
            Step::Wait(context) => {
                self.waits.push(self.pool.reserve_wait(context));
                self.poll_wait(self.waits.len() - 1)
            }
            Step::PollWait(nth) if *nth < self.waits.len() => self.poll_wait(*nth),
            Step::DropWait(nth) if *nth < self.waits.len() => {
                drop(self.waits.remove(*nth));
                "gone".into()
            }
            Step::Open(nth) if *nth < self.reservations.len() => {
                let reserved = self.reservations.remove(*nth);
                self.open(reserved)
            }
            Step::GiveBack(nth) if *nth < self.reservations.len() => {
                drop(self.reservations.remove(*nth).0);
                "given back".into()
            }
            Step::Forget(nth) if *nth < self.reservations.len() => {
                std::mem::forget(self.reservations.remove(*nth).0);
                "forgotten".into()
            }
            Step::Close(nth) if *nth < self.connections.len() => {
                let youngest = self.connections.len() - 1;
                shown(&self.connections.remove(youngest - nth).0.close(EndReason::Closed))
            }
            Step::EndRun(nth) if *nth < self.runs.len() => {
                drop(self.runs.remove(*nth));
                "over".into()
            }
            Step::Connected(nth)
            | Step::Errored(nth)
            | Step::Disconnected(nth)
            | Step::BeginRun(nth)
            | Step::Evict(nth)
            | Step::Next(nth)
            | Step::Poll(nth)
            | Step::ReadAll(nth)
            | Step::Received(nth)
                if *nth < self.connections.len() =>
            {
                self.act_on_lease(step, *nth)
            }
            Step::Resume(nth, after) if *nth < self.reservations.len() => {
                let Reserved(reservation, of) = &mut self.reservations[*nth];
                *of = resume(reservation, &self.seen, *after).or(*of);
                "told".into()
            }
            Step::Reconnect(context, after) => match self.pool.reserve(context) {
                Ok(mut reservation) => {
                    let of = resume(&mut reservation, &self.seen, *after);
                    self.open(Reserved(reservation, of))
                }
                Err(error) => shown(&error),
            },
            Step::StartRun(context) => {
                self.agents.push(self.pool.start_run(context, EventData::NONE));
                "started".into()
            }
            Step::Say(nth, event, size) if *nth < self.agents.len() => {
                let youngest = self.agents.len() - 1;
                shown(&say(&mut self.agents[youngest - nth], *event, "x".repeat(*size).as_str().into()))
            }
            Step::Complete(nth) if *nth < self.agents.len() => {
                shown(&self.agents.remove(*nth).complete(EventData::NONE))
            }
            Step::Abort(nth) if *nth < self.agents.len() => {
                drop(self.agents.remove(*nth));
                "aborted".into()
            }
            Step::Send(user, of) => shown(&self.pool.send_to_thread(&thread(*user, *of), "four".into())),
            Step::SendToUser(user, size) => shown(&self.pool.send_to_user(&numbered(*user), of_size(*size))),
            Step::SendMany(to, size) => self.send_many(to, *size),
            Step::Broadcast(size) => shown(&self.pool.broadcast(of_size(*size))),
            Step::Sweep(on, policy) => {
                let sweep = |scope: Scope<'_>| shown(&self.pool.sweep(scope, *policy, now, Duration::MAX));
                on.scope(sweep)
            }
            Step::EvictOldest(on, n) => on.scope(|scope| shown(&self.pool.evict_oldest(scope, *n))),
            Step::ShrinkTo(on, n) => on.scope(|scope| shown(&self.pool.shrink_to(scope, *n))),
            Step::CleanUp(context) => {
                shown(&self.pool.cleanup_manager_by_context(context, EndReason::SocketError))
            }
            Step::CleanUpAll(user) => {
                shown(&self.pool.cleanup_all_user_managers(&numbered(*user), EndReason::Operator))
            }
            Step::SetLimit(user, limit) => {
                self.pool.set_user_limit(&numbered(*user), *limit);
                "set".into()
            }
            Step::SetPolicy(user, policy) => {
                self.pool.set_user_policy(&numbered(*user), *policy);
                "set".into()
            }
            Step::Reconfigure(numbers) => shown(&self.pool.reconfigure(config(self.fixed, *numbers))),
            Step::RollBack => shown(&self.pool.rollback_config()),
            Step::Rest => (0..TICKS).map(|_| self.tick()).collect::<Vec<_>>().join("\n"),
            Step::Drain => {
                self.pool.start_drain();
                "draining".into()
            }
            _ => "none there".into(),
        }
    }

    /// From the youngest on: of the old ones most are over.
    fn act_on_lease(&mut self, step: &Step, nth: usize) -> String {
        let place = self.connections.len() - 1 - nth;
        let (lease, client) = &mut self.connections[place];
        let key = lease.key();
        match step {
            Step::Connected(_) => shown(&lease.connected()),
            Step::Errored(_) => shown(&lease.errored()),
            // From whatever state it is in.
            Step::Disconnected(_) => shown(&(lease.connected(), lease.closing(), lease.disconnected())),
            Step::BeginRun(_) => {
                let begun = lease.begin_run();
                let seen = shown(&begun.as_ref().map(|_| ()));
                self.runs.extend(begun);
                seen
            }
            Step::Evict(_) => shown(&self.pool.evict(key, EndReason::Idle)),
            Step::Next(_) => {
                let next = lease.next_message();
                client.heard(next.as_ref().ok().and_then(Option::as_ref), &mut self.seen) + &shown(&next)
            }
            Step::Poll(_) => {
                let polled = poll_message(lease, &self.bell);
                let message = match &polled {
                    Poll::Ready(Ok(message)) => Some(message),
                    _ => None,
                };
                client.heard(message, &mut self.seen) + &shown(&polled)
            }
            Step::ReadAll(_) => client.read_all(lease, &mut self.seen),
            Step::Received(_) => shown(&lease.received(4)),
            _ => unreachable!("no step on a lease"),
        }
    }

    /// Between two steps, and so that no two managers are of the same age. Reservations that were made in
    /// different steps expire one by one: which of two comes first when both are due at once is nobody's
    /// promise.
    fn tick(&mut self) -> String {
        self.hand.advance(TICK);
        shown(&self.pool.maintain(self.pool.clock().now()))
    }

    fn open(&mut self, Reserved(reservation, of): Reserved<P>) -> String {
        let client = Client::new(reservation.context().isolation_key(), of);
        let opened = reservation.open();
        let seen = shown(&opened.as_ref().map(|_| ()));
        self.connections.extend(opened.map(|lease| (lease, client)));
        seen
    }

    /// To the connections of these numbers, those that are over included.
    fn send_many(&self, to: &[usize], size: usize) -> String {
        let places: Vec<_> = to.iter().filter(|&&nth| nth < self.connections.len()).collect();
        let keys: Vec<_> = places.iter().map(|&&nth| self.connections[nth].0.key()).collect();
        let report = self.pool.send_many(&keys, of_size(size));
        let stale: Vec<_> = keys.iter().map(|key| report.stale_keys.contains(key)).collect();
        shown(&(report.sum, report.stale_keys.len(), stale))
    }

    /// All is read, each thread has another event, so that nobody's loss stays hidden, and all is read.
    fn finish(&mut self, threads: &[UserExecutionContext]) -> String {
        let before = self.read_all();
        for context in threads {
            drop(self.pool.start_run(context, EventData::NONE));
        }
        let after = self.read_all();
        for heard in after.lines() {
            // Who had read everything had been told of everything.
            let is_late = heard.starts_with(r#"{"type":"gap""#) && heard.contains("agent_started");
            assert!(!is_late, "a gap is announced when there is nothing else to say, not later: {heard}");
        }
        before + &after
    }

    fn read_all(&mut self) -> String {
        let read = |(lease, client): &mut (P::Lease, Client)| client.read_all(lease, &mut self.seen);
        self.connections.iter_mut().map(read).collect::<Vec<_>>().join("\n")
    }

    fn poll_wait(&mut self, nth: usize) -> String {
        match poll(&mut self.waits[nth], &self.bell) {
            Poll::Pending => "waits".into(),
            Poll::Ready(outcome) => {
                drop(self.waits.remove(nth));
                let seen = shown(&outcome.as_ref().map(|_| ()));
                self.reservations.extend(outcome.map(|reservation| Reserved(reservation, None)));
                seen
            }
        }
    }

    /// The last ends. Of those that are so old that they may be forgotten, a sweep over all decides by
    /// slots which it remembers: they are left out.
    fn remembered(&self) -> String {
        let certain = |mut ends: Vec<End>, limit: usize| {
            if let Some(oldest) = ends.get(limit - 1).map(|end| end.ended_at) {
                ends.retain(|end| end.ended_at > oldest);
            }
            in_order(ends)
        };
        let of_users = (0..USERS).map(|number| certain(self.pool.last_ends_of(&numbered(number)), 4));
        let all = certain(self.pool.last_ends(5), 5);
        of_users.chain([all]).collect::<Vec<_>>().join("; ")
    }
}

fn resume(reservation: &mut impl ManagerReservation, seen: &Seen, after: After) -> Option<EventId> {
    let id = seen.choose(&reservation.context().isolation_key(), after)?;
    reservation.resume_after(id);
    Some(id)
}

fn say(run: &mut impl ManagerRun, event: AgentEvent, data: EventData) -> SendReport {
    match event {
        AgentEvent::Thinking => run.thinking(data),
        AgentEvent::ToolExecuting => run.tool_executing(data),
        _ => run.tool_completed(data),
    }
}

fn of_size(size: usize) -> Message {
    Message::text("x".repeat(size))
}

fn glimpse(lease: &impl ManagerLease, now: Timestamp) -> String {
    let seen = lease.with(|manager| (manager.is_running(now), manager.queued(), manager.queued_bytes()));
    shown(&seen)
}

/// Of those of one step: the connections of a thread are in no order.
fn any_order(heard: Vec<impl Debug>) -> String {
    let mut shown: Vec<_> = heard.iter().map(shown).collect();
    shown.sort();
    shown.join("; ")
}

/// In the order of users and openings: a sweep over all goes by slots.
fn in_order(mut ends: Vec<End>) -> String {
    ends.sort_by_key(|end| (end.user_id.clone(), end.opened_at));
    shown(&ends)
}

/// Without what depends on slots: keys, and whether the reason in a lease's slot is still its own.
pub(crate) fn shown(value: &impl Debug) -> String {
    without(&without(&format!("{value:?}"), "key: ", ", "), "Revoked { reason: ", " }")
}

/// Cuts out what stands between `before` and `after`, with these.
fn without(whole: &str, before: &str, after: &str) -> String {
    let mut parts = whole.split(before);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |shown, part| shown + part.split_once(after).map_or("", |(_, rest)| rest))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        rng_seed: RngSeed::Fixed(3),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Down to each figure of the account.
    #[test]
    fn the_double_does_what_the_pool_does(
        steps in steps(),
        fixed in fixed(),
        numbers in numbers(),
    ) {
        let mut pool = Run::new::<Real>(fixed, numbers);
        let mut double = Run::new::<Double>(fixed, numbers);
        for step in &steps {
            let (one, other) = (pool.step(step), double.step(step));
            for (one, other) in one.lines().zip(other.lines()) {
                prop_assert_eq!(one, other, "at {:?}", step);
            }
            prop_assert_eq!(one, other);
            prop_assert!(pool.pool.ledger().balanced);
        }
        let threads: Vec<_> = (0..USERS * THREADS).map(|n| context(n / THREADS, n % THREADS)).collect();
        prop_assert_eq!(pool.finish(&threads), double.finish(&threads));
    }
}
