//! Any bytes as a script of slab operations, against a plain model.

use std::collections::BTreeMap;
use ws_manager_pool::ManagerKey;
use ws_manager_pool::slab::{Fate, Options, Resident, Slab, Vacated};

struct Numbers;

impl Resident for Numbers {
    type Glance = ();
    type Shared = u64;
    type Owned = ();
    type Residue = ();

    fn clean(&self, vacated: Vacated<'_, Self>) -> (Fate, ()) {
        *vacated.shared = 0;
        (Fate::Free, ())
    }

    fn freed(&self, (): ()) {}
}

/// The first byte sets the capacity, the second the generations' bits; then two bytes each: what, and
/// to which.
pub(crate) fn run(data: &[u8]) {
    let [capacity, bits, script @ ..] = data else { return };
    let capacity = usize::from(*capacity).max(1);
    let slab = Slab::new(Numbers, Options::with_capacity(capacity).generation_bits(u32::from(bits % 31) + 2));
    let mut reserved: Vec<ManagerKey> = Vec::new();
    let mut live: BTreeMap<ManagerKey, u64> = BTreeMap::new();
    let mut dead: Vec<ManagerKey> = Vec::new();
    let mut next_value = 1;

    for pair in script.chunks_exact(2) {
        let which = usize::from(pair[1]);
        match pair[0] % 6 {
            0 => match slab.claim() {
                Ok(key) => reserved.push(key),
                Err(_full) => assert_eq!(reserved.len() + live.len(), capacity, "refused with a free slot"),
            },
            1 if !reserved.is_empty() => {
                let key = reserved.swap_remove(which % reserved.len());
                let mut starting = slab.begin(key).expect("it is reserved");
                starting.value(|(), value, ()| {
                    assert_eq!(*value, 0, "the slot was cleaned");
                    *value = next_value;
                });
                assert_eq!(starting.publish().key(), key);
                live.insert(key, next_value);
                next_value += 1;
            }
            2 if !reserved.is_empty() => {
                let key = reserved.swap_remove(which % reserved.len());
                drop(slab.abort(key).expect("it is reserved"));
                dead.push(key);
            }
            3 if !live.is_empty() => {
                let key = *live.keys().nth(which % live.len()).expect("it is in range");
                live.remove(&key);
                drop(slab.close(key).expect("it is live"));
                dead.push(key);
            }
            4 => {
                slab.shrink(which);
            }
            5 => slab.refresh_hints(),
            _ => {}
        }
        assert_eq!(slab.occupied(), reserved.len() + live.len());
    }
    for (&key, &value) in &live {
        assert_eq!(slab.pin(key, |(), &found| found), Ok(value));
    }
    for key in dead {
        assert!(slab.pin(key, |(), _| ()).is_err() && slab.close(key).is_err() && slab.abort(key).is_err());
    }
}
