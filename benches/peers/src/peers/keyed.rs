//! What gives out keys, and finds managers by them.

use crate::place::{Facts, Kind, Place};
use crate::record::{Ids, Record, USER};
use crate::row::Row;
use dashmap::DashMap;
use idr_ebr::{EbrGuard, Idr};
use parking_lot::Mutex;
use slab::Slab;

type Boxed = Box<Record>;

pub fn sharded_slab() -> Row<sharded_slab::Pool<Record>> {
    let facts = Facts::new("sharded-slab pool", Kind::Peer).stale("13 bit, then valid again");
    Row(facts, sharded_slab::Pool::new())
}

impl Place for sharded_slab::Pool<Record> {
    type Held<'a> = usize;
    type Key = usize;
    const HAS_KEYS: bool = true;

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> usize {
        self.create_with(|record| record.begin(ids.fresh())).expect("there is room")
    }

    #[inline]
    fn release(&self, held: usize) {
        assert!(self.clear(held), "it was live");
    }

    fn key(&self, held: &usize) -> usize {
        *held
    }

    #[inline]
    fn get(&self, key: &usize) -> Option<u64> {
        self.get(*key).map(|record| record.received)
    }
}

/// The `slab` crate under one lock, and the managers of former occupants beside it.
#[derive(Default)]
pub struct MutexSlab {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    live: Slab<Boxed>,
    spare: Vec<Boxed>,
}

pub fn mutex_slab() -> Row<MutexSlab> {
    Row(Facts::new("slab behind a mutex, reused values", Kind::Peer).stale("none"), MutexSlab::default())
}

impl Place for MutexSlab {
    type Held<'a> = usize;
    type Key = usize;
    const HAS_KEYS: bool = true;
    const CAN_WALK: bool = true;

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> usize {
        let id = ids.fresh();
        let mut inner = self.inner.lock();
        let mut record = inner.spare.pop().unwrap_or_default();
        record.begin(id);
        inner.live.insert(record)
    }

    #[inline]
    fn release(&self, held: usize) {
        let mut inner = self.inner.lock();
        let mut record = inner.live.remove(held);
        record.clear();
        inner.spare.push(record);
    }

    fn key(&self, held: &usize) -> usize {
        *held
    }

    #[inline]
    fn get(&self, key: &usize) -> Option<u64> {
        self.inner.lock().live.get(*key).map(|record| record.received)
    }

    fn walk(&self) -> u64 {
        self.inner.lock().live.iter().map(|(_, record)| record.received).sum()
    }
}

pub fn dash_map() -> Row<DashMap<String, Boxed>> {
    Row(
        Facts::new("DashMap by string key", Kind::Peer).frees("values; tables stay").stale("by name"),
        DashMap::new(),
    )
}

impl Place for DashMap<String, Boxed> {
    type Held<'a> = String;
    type Key = String;
    const HAS_KEYS: bool = true;
    const CAN_WALK: bool = true;

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> String {
        let id = ids.fresh();
        let key = format!("{USER}:{id}");
        self.insert(key.clone(), Box::new(Record::fresh(id)));
        key
    }

    #[inline]
    fn release(&self, held: String) {
        drop(self.remove(&held));
    }

    fn key(&self, held: &String) -> String {
        held.clone()
    }

    #[inline]
    fn get(&self, key: &String) -> Option<u64> {
        self.get(key).map(|record| record.received)
    }

    fn walk(&self) -> u64 {
        self.iter().map(|record| record.received).sum()
    }
}

pub fn papaya() -> Row<papaya::HashMap<String, Boxed>> {
    let facts =
        Facts::new("papaya by string key", Kind::Peer).frees("values; the table stays").stale("by name");
    Row(facts, papaya::HashMap::new())
}

impl Place for papaya::HashMap<String, Boxed> {
    type Held<'a> = String;
    type Key = String;
    const HAS_KEYS: bool = true;
    const CAN_WALK: bool = true;

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> String {
        let id = ids.fresh();
        let key = format!("{USER}:{id}");
        self.pin().insert(key.clone(), Box::new(Record::fresh(id)));
        key
    }

    #[inline]
    fn release(&self, held: String) {
        self.pin().remove(&held);
    }

    fn key(&self, held: &String) -> String {
        held.clone()
    }

    #[inline]
    fn get(&self, key: &String) -> Option<u64> {
        self.pin().get(key).map(|record| record.received)
    }

    fn walk(&self) -> u64 {
        self.pin().values().map(|record| record.received).sum()
    }
}

pub fn idr_ebr() -> Row<Idr<Record>> {
    Row(Facts::new("idr-ebr", Kind::Peer).frees("values; pages stay").stale("32 bit"), Idr::new())
}

impl Place for Idr<Record> {
    type Held<'a> = idr_ebr::Key;
    type Key = idr_ebr::Key;
    const HAS_KEYS: bool = true;
    const CAN_WALK: bool = true;

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> idr_ebr::Key {
        self.insert(Record::fresh(ids.fresh())).expect("there is room")
    }

    #[inline]
    fn release(&self, held: idr_ebr::Key) {
        assert!(self.remove(held), "it was live");
    }

    fn key(&self, held: &idr_ebr::Key) -> idr_ebr::Key {
        *held
    }

    #[inline]
    fn get(&self, key: &idr_ebr::Key) -> Option<u64> {
        self.get(*key, &EbrGuard::new()).map(|record| record.received)
    }

    fn walk(&self) -> u64 {
        self.iter(&EbrGuard::new()).map(|(_, record)| record.received).sum()
    }
}
