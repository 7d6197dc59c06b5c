//! Pools of spare objects: something to take from and give back to, without keys.
//!
//! All keep the manager in a box where the crate would otherwise move its 200 bytes about, and clear it in
//! the crate's own hook where there is one.

use crate::place::{Facts, Kind, Place};
use crate::record::{Ids, Record};
use crate::row::Row;
use crossbeam_queue::ArrayQueue;
use deadpool::unmanaged;
use lockfree_object_pool::{LinearObjectPool, LinearOwnedReusable};
use opool::{PoolAllocator, RefGuard};
use parking_lot::Mutex;
use std::sync::Arc;

type Boxed = Box<Record>;

/// A place without keys.
macro_rules! no_keys {
    () => {
        type Key = ();
        fn key(&self, _: &Self::Held<'_>) {}
    };
}

pub fn array_queue(capacity: usize) -> Row<ArrayQueue<Boxed>> {
    Row(Facts::new("crossbeam ArrayQueue<Box>", Kind::Peer), ArrayQueue::new(capacity))
}

impl Place for ArrayQueue<Boxed> {
    type Held<'a> = Boxed;
    no_keys!();

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> Boxed {
        let mut record = self.pop().unwrap_or_default();
        record.begin(ids.fresh());
        record
    }

    #[inline]
    fn release(&self, mut held: Boxed) {
        held.clear();
        drop(self.push(held)); // full: it is dropped
    }
}

pub fn opool(capacity: usize) -> Row<opool::Pool<Clearing, Boxed>> {
    Row(Facts::new("opool", Kind::Peer), opool::Pool::new(capacity, Clearing))
}

pub struct Clearing;

impl PoolAllocator<Boxed> for Clearing {
    #[inline]
    fn reset(&self, record: &mut Boxed) {
        record.clear();
    }

    fn allocate(&self) -> Boxed {
        Boxed::default()
    }
}

impl Place for opool::Pool<Clearing, Boxed> {
    type Held<'a> = RefGuard<'a, Clearing, Boxed>;
    no_keys!();

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> Self::Held<'_> {
        let mut record = self.get();
        record.begin(ids.fresh());
        record
    }

    #[inline]
    fn release<'a>(&'a self, held: Self::Held<'a>) {
        drop(held); // cleared when it is taken again
    }
}

/// Its objects lie in its own pages.
pub fn lockfree_object_pool() -> Row<Arc<LinearObjectPool<Record>>> {
    let pool = LinearObjectPool::new(Record::default, Record::clear);
    // A walk from the first page for each pull: 100,000 take minutes.
    Row(Facts::new("lockfree-object-pool linear", Kind::Peer).stays_small(), Arc::new(pool))
}

impl Place for Arc<LinearObjectPool<Record>> {
    type Held<'a> = LinearOwnedReusable<Record>;
    no_keys!();

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> Self::Held<'_> {
        let mut record = self.pull_owned();
        record.begin(ids.fresh());
        record
    }

    #[inline]
    fn release<'a>(&'a self, held: Self::Held<'a>) {
        drop(held); // cleared by the pool
    }
}

pub fn object_pool() -> Row<object_pool::Pool<Boxed>> {
    Row(Facts::new("object-pool", Kind::Peer), object_pool::Pool::from_vec(Vec::new()))
}

impl Place for object_pool::Pool<Boxed> {
    type Held<'a> = object_pool::Reusable<'a, Boxed>;
    no_keys!();

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> Self::Held<'_> {
        let mut record = self.pull(Boxed::default);
        record.begin(ids.fresh());
        record
    }

    #[inline]
    fn release<'a>(&'a self, mut held: Self::Held<'a>) {
        held.clear();
    }
}

pub fn mutex_vec() -> Row<Mutex<Vec<Boxed>>> {
    Row(Facts::new("parking_lot Mutex<Vec<Box>>", Kind::Peer), Mutex::default())
}

impl Place for Mutex<Vec<Boxed>> {
    type Held<'a> = Boxed;
    no_keys!();

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> Boxed {
        let spare = self.lock().pop();
        let mut record = spare.unwrap_or_default();
        record.begin(ids.fresh());
        record
    }

    #[inline]
    fn release(&self, mut held: Boxed) {
        held.clear();
        self.lock().push(held);
    }
}

pub fn deadpool(capacity: usize) -> Row<unmanaged::Pool<Boxed>> {
    Row(Facts::new("deadpool unmanaged", Kind::Peer).waits(), unmanaged::Pool::new(capacity))
}

impl Place for unmanaged::Pool<Boxed> {
    type Held<'a> = unmanaged::Object<Boxed>;
    no_keys!();

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> Self::Held<'_> {
        // It makes nothing by itself: one is added where none is spare.
        let mut record = loop {
            match self.try_get() {
                Ok(record) => break record,
                Err(_) => drop(self.try_add(Boxed::default())),
            }
        };
        record.begin(ids.fresh());
        record
    }

    #[inline]
    fn release<'a>(&'a self, mut held: Self::Held<'a>) {
        held.clear();
    }
}
