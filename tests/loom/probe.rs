//! A resident so small that loom can follow it. The slab keeps `Shared` and `Owned` in loom's cells,
//! so any access that the protocol does not order fails the model by itself.

use loom::sync::atomic::{AtomicU64, Ordering};
use ws_manager_pool::slab::{Fate, Key, Options, Owner, Resident, Slab, Starting, Vacated};

pub(crate) struct Probe;

/// Says who is in the slot: 0 for nobody.
#[derive(Default)]
pub(crate) struct Glance {
    pub(crate) occupant: AtomicU64,
}

impl Resident for Probe {
    type Glance = Glance;
    type Shared = u64;
    type Owned = u64;
    type Residue = ();

    fn clean(&self, vacated: Vacated<'_, Self>) -> (Fate, ()) {
        vacated.glance.occupant.store(0, Ordering::Relaxed);
        *vacated.shared = 0;
        *vacated.owned = 0;
        (Fate::Free, ())
    }

    fn freed(&self, (): ()) {}
}

pub(crate) fn slab(capacity: usize) -> Slab<Probe> {
    Slab::new(Probe, Options::with_capacity(capacity))
}

/// A slab whose slots have been grown and hinted before the race begins.
pub(crate) fn grown(capacity: usize) -> Slab<Probe> {
    let slab = slab(capacity);
    let keys: Vec<_> = (0..capacity).map(|_| slab.claim().expect("there is room")).collect();
    keys.into_iter().for_each(|key| drop(slab.abort(key).expect("it is reserved")));
    slab
}

/// Opens a reserved slot with `value` in all its parts.
pub(crate) fn open(slab: &Slab<Probe>, key: Key, value: u64) -> Owner {
    publish(slab.begin(key).expect("nobody took it back"), value)
}

/// Opens a slot that is being started, with `value` in all its parts.
pub(crate) fn publish(mut starting: Starting<'_, Probe>, value: u64) -> Owner {
    starting.value(|glance, shared, owned| {
        assert_eq!((*shared, *owned), (0, 0), "the slot was cleaned");
        glance.occupant.store(value, Ordering::Relaxed);
        *shared = value;
        *owned = value;
    });
    starting.publish()
}

/// Whether each slot can be claimed again, and no more than that.
pub(crate) fn is_whole(slab: &Slab<Probe>) -> bool {
    let claimed = (0..slab.capacity()).filter(|_| slab.claim().is_ok()).count();
    claimed == slab.capacity() && slab.claim().is_err()
}
