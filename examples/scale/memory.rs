//! What a process has in memory, by two counts.

use crate::loopback::Result;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::fs::read_to_string;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// The proportional set size: with what the allocator keeps and rounds up.
    pub(crate) resident: f64,
    /// Bytes that were asked for and not given back.
    pub(crate) allocated: f64,
    /// Times that was asked.
    pub(crate) allocations: f64,
}

impl Memory {
    pub(crate) fn now() -> Result<Self> {
        let rollup = read_to_string("/proc/self/smaps_rollup")?;
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib: f64 = pss.and_then(|pss| pss.split_whitespace().next()).ok_or("no Pss")?.parse()?;
        let (allocated, allocations) = counted();
        Ok(Self { resident: kib * 1_024.0, allocated, allocations })
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            resident: self.resident - before.resident,
            allocated: self.allocated - before.allocated,
            allocations: self.allocations - before.allocations,
        }
    }
}

/// This process's bytes and allocations, as [`Memory`] has them.
pub(crate) fn counted() -> (f64, f64) {
    let counted = ALLOCATOR.stats();
    let bytes = counted.bytes_allocated as f64 - counted.bytes_deallocated as f64;
    (bytes, (counted.allocations + counted.reallocations) as f64)
}
