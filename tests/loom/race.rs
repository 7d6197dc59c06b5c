//! Runs a model in every order of its roles and at every bound.

use loom::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One model: the same world for each iteration, roles that run at once, and what holds afterwards.
pub(crate) struct Race<W, const ROLES: usize> {
    /// What is printed.
    pub(crate) name: &'static str,
    pub(crate) world: fn() -> W,
    pub(crate) roles: [fn(&W); ROLES],
    pub(crate) afterwards: fn(&W),
    /// Preemption bounds. `None` is a bound like the others: not every bounded interleaving is in it.
    pub(crate) bounds: &'static [Option<usize>],
    /// At its last bound each order of the roles must explore at least this many interleavings.
    /// Fewer, and loom has not seen the race.
    pub(crate) floor: usize,
}

impl<W: Send + Sync + 'static, const ROLES: usize> Race<W, ROLES> {
    /// Explores: each role in turn is the main thread's, the others are spawned.
    pub(crate) fn run(self) {
        for first in 0..ROLES {
            let mut at_last_bound = 0;
            for &bound in self.bounds {
                at_last_bound = self.explore(first, bound);
                println!("{}: role {first} on main, bound {bound:?}: {at_last_bound} iterations", self.name);
            }
            assert!(at_last_bound >= self.floor, "{}: only {at_last_bound} iterations", self.name);
        }
    }

    fn explore(&self, first: usize, bound: Option<usize>) -> usize {
        let iterations = std::sync::Arc::new(AtomicUsize::new(0));
        let counter = iterations.clone();
        let Self { world, mut roles, afterwards, .. } = *self;
        roles.rotate_left(first);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = bound;
        builder.max_branches = 20_000;
        builder.check(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            let world = Arc::new(world());
            let spawned: Vec<_> = roles[1..]
                .iter()
                .map(|&role| {
                    let world = world.clone();
                    loom::thread::spawn(move || role(&world))
                })
                .collect();
            roles[0](&world);
            spawned.into_iter().for_each(|thread| thread.join().expect("a role does not panic"));
            afterwards(&world);
        });
        iterations.load(Ordering::Relaxed)
    }
}
