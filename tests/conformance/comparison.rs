//! Whatever is done, both answer the same, step by step.

use crate::steps::{Numbers, Step, TICK, TICKS, USERS, config, numbered, numbers, steps, thread};
use crate::support::{Bell, Double, Ear, Kind, Real, builder, poll, with_clock};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::fmt::Debug;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use ws_manager_pool::{
    DuplicatePolicy, End, EndReason, ManagerLease, ManagerPool, ManagerReservation, ManualClock, PoolBuilder,
    Scope,
};

type RunGuardOf<P> = <<P as ManagerPool>::Lease as ManagerLease>::RunGuard;

/// A pool or a double in the course of a run.
struct Run<P: ManagerPool> {
    pool: P,
    hand: ManualClock,
    duplicates: DuplicatePolicy,
    waits: Vec<P::ReserveWait>,
    reservations: Vec<P::Reservation>,
    leases: Vec<P::Lease>,
    runs: Vec<RunGuardOf<P>>,
    bell: Arc<Bell>,
    ear: Ear,
}

impl<P: ManagerPool> Run<P> {
    fn new<K: Kind<Of<()> = P>>(capacity: usize, duplicates: DuplicatePolicy, numbers: Numbers) -> Self {
        let ear = Ear::default();
        let builder: PoolBuilder = builder(1, 1).config(config(capacity, duplicates, numbers));
        let (pool, hand) = with_clock::<K>(builder.observer(ear.clone()));
        let (waits, reservations, leases, runs) = (vec![], vec![], vec![], vec![]);
        Self { pool, hand, duplicates, waits, reservations, leases, runs, bell: Arc::default(), ear }
    }

    /// Does it, and tells all that can be seen afterwards.
    fn step(&mut self, step: &Step) -> String {
        let turn = self.tick();
        let answer = self.act(step);
        let heard = self.ear.take();
        let mut figures = self.pool.snapshot();
        figures.name.clear();
        let seen = [
            turn,
            answer,
            shown(&heard.alerts),
            in_order(heard.ends),
            shown(&self.leases.iter().map(ManagerLease::is_live).collect::<Vec<_>>()),
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
                    self.reservations.push(reservation);
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
                let opened = self.reservations.remove(*nth).open();
                let seen = shown(&opened.as_ref().map(|_| ()));
                self.leases.extend(opened);
                seen
            }
            Step::GiveBack(nth) if *nth < self.reservations.len() => {
                drop(self.reservations.remove(*nth));
                "given back".into()
            }
            Step::Forget(nth) if *nth < self.reservations.len() => {
                std::mem::forget(self.reservations.remove(*nth));
                "forgotten".into()
            }
            Step::Close(nth) if *nth < self.leases.len() => {
                let youngest = self.leases.len() - 1;
                shown(&self.leases.remove(youngest - nth).close(EndReason::Closed))
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
            | Step::Received(nth)
                if *nth < self.leases.len() =>
            {
                self.act_on_lease(step, *nth)
            }
            Step::Send(user, of) => shown(&self.pool.send_to_thread(&thread(*user, *of), "four".into())),
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
            Step::Reconfigure(numbers) => {
                let capacity = self.pool.config().capacity;
                shown(&self.pool.reconfigure(config(capacity, self.duplicates, *numbers)))
            }
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
        let place = self.leases.len() - 1 - nth;
        let lease = &mut self.leases[place];
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
            Step::Next(_) => shown(&lease.next_message()),
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

    fn poll_wait(&mut self, nth: usize) -> String {
        match poll(&mut self.waits[nth], &self.bell) {
            Poll::Pending => "waits".into(),
            Poll::Ready(outcome) => {
                drop(self.waits.remove(nth));
                let seen = shown(&outcome.as_ref().map(|_| ()));
                self.reservations.extend(outcome);
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

/// In the order of users and openings: a sweep over all goes by slots.
fn in_order(mut ends: Vec<End>) -> String {
    ends.sort_by_key(|end| (end.user_id.clone(), end.opened_at));
    shown(&ends)
}

/// Without what depends on slots: keys, and whether the reason in a lease's slot is still its own.
fn shown(value: &impl Debug) -> String {
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
        capacity in 4..14_usize,
        policy in 0..3_usize,
        numbers in numbers(),
    ) {
        use DuplicatePolicy::{Allow, Reject, Replace};
        let duplicates = [Replace, Reject, Allow][policy];
        let mut pool = Run::new::<Real>(capacity, duplicates, numbers);
        let mut double = Run::new::<Double>(capacity, duplicates, numbers);
        for step in &steps {
            let (one, other) = (pool.step(step), double.step(step));
            for (one, other) in one.lines().zip(other.lines()) {
                prop_assert_eq!(one, other, "at {:?}", step);
            }
            prop_assert_eq!(one, other);
            prop_assert!(pool.pool.ledger().balanced);
        }
    }
}
