//! Chance that repeats itself.

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use std::ops::Range;

/// A stream of random numbers. ChaCha is a published cipher, so a seed gives the same stream with
/// every version of the crate; and only whole numbers are drawn, so it does so on every machine.
///
/// Each user has a stream of its own: what becomes of one changes nothing in what another does.
pub(crate) struct Chance(ChaCha8Rng);

impl Chance {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self(generator)
    }

    /// Any of the range's numbers, which fit 32 bits.
    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        let span = range.end - range.start;
        range.start + ((u64::from(self.0.next_u32()) * span) >> 32)
    }

    pub(crate) fn hits(&mut self, per_mille: u64) -> bool {
        self.within(0..1_000) < per_mille
    }

    /// One of several, by weight.
    pub(crate) fn pick<'a, T>(&mut self, weighted: &'a [(u64, T)]) -> &'a T {
        let mut ticket = self.within(0..weighted.iter().map(|(weight, _)| weight).sum());
        let mut at = 0;
        while ticket >= weighted[at].0 {
            ticket -= weighted[at].0;
            at += 1;
        }
        &weighted[at].1
    }

    /// A number from one of several ranges, which are chosen by weight.
    pub(crate) fn spread(&mut self, weighted: &[(u64, Range<u64>)]) -> u64 {
        let range = self.pick(weighted).clone();
        self.within(range)
    }
}
