//! What can't be gone below: the same work on one thread's own managers, with no pool at all.

use crate::place::{Contender, Facts, Kind, Stretch, Timed};
use crate::record::{Ids, Record};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// One manager, used again and again. With `SWAPS`, and two exchanges on a header that is nobody else's:
/// one to take it, one to give it back.
pub struct Floor<const SWAPS: bool>;

#[repr(align(128))]
#[derive(Default)]
struct Header(AtomicU64);

impl<const SWAPS: bool> Contender for Floor<SWAPS> {
    fn facts(&self) -> Facts {
        let name = if SWAPS { "floor: reset and 2 CAS" } else { "floor: reset only" };
        Facts::new(name, Kind::Floor).frees("").stale("")
    }

    fn lives(&self, ids: &mut Ids, most: u64, over: &AtomicBool) -> Stretch {
        let (header, mut own) = (Header::default(), Box::<Record>::default());
        let begun = Instant::now();
        let mut operations = 0;
        while operations < most && !over.load(Ordering::Relaxed) {
            for _ in 0..32 {
                if SWAPS {
                    swap(&header, 0, 1);
                }
                own.begin(ids.fresh());
                own = black_box(own);
                own.clear();
                if SWAPS {
                    swap(&header, 1, 0);
                }
            }
            operations += 32;
        }
        over.store(true, Ordering::Relaxed);
        Stretch { begun, ended: Instant::now(), operations }
    }

    fn churn(&self, live: usize) -> Option<Timed<'_>> {
        let mut ids = Ids::new(0);
        let mut own: Vec<_> = (0..live).map(|_| Box::new(Record::fresh(ids.fresh()))).collect();
        let headers: Vec<_> = (0..live).map(|_| Header::default()).collect();
        Some(Box::new(move |replacements| {
            let begun = Instant::now();
            for _ in 0..replacements {
                let chosen = ids.below(live);
                let record = black_box(&mut own[chosen]);
                if SWAPS {
                    swap(&headers[chosen], 0, 1);
                }
                record.clear();
                record.begin(ids.fresh());
                if SWAPS {
                    swap(&headers[chosen], 1, 0);
                }
            }
            begun.elapsed()
        }))
    }

    fn gets(&self, live: usize) -> Option<Timed<'_>> {
        let mut ids = Ids::new(0);
        let own: Vec<_> = (0..live).map(|_| Box::new(Record::fresh(ids.fresh()))).collect();
        (!SWAPS).then(|| -> Timed<'_> {
            Box::new(move |gets| {
                let begun = Instant::now();
                let found: u64 = (0..gets).map(|_| own[ids.below(live)].received).sum();
                let took = begun.elapsed();
                assert_eq!(found, gets, "every counter is 1");
                took
            })
        })
    }

    fn walks(&self, live: usize) -> Option<Timed<'_>> {
        let mut ids = Ids::new(0);
        let own: Vec<_> = (0..live).map(|_| Record::fresh(ids.fresh())).collect();
        (!SWAPS).then(|| -> Timed<'_> {
            Box::new(move |walks| {
                let begun = Instant::now();
                let seen: u64 =
                    (0..walks).map(|_| black_box(&own).iter().map(|own| own.received).sum::<u64>()).sum();
                let took = begun.elapsed();
                assert_eq!(seen, walks * live as u64, "every counter is 1");
                took
            })
        })
    }
}

#[inline]
fn swap(header: &Header, from: u64, to: u64) {
    let swapped = header.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
    swapped.expect("nobody else has it");
}
