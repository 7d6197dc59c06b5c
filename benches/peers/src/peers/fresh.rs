//! No pool: a fresh manager from the allocator, for three allocators in one process.
//!
//! A `#[global_allocator]` can't be switched, so these managers name theirs: the same 8 allocations of the
//! same sizes, straight into the allocator's functions, as if it were the global one.

#![allow(unsafe_code)] // what `allocator-api2` asks of an allocator

use crate::place::{Facts, Kind, Place};
use crate::record::{BUFFER, Ids, NAME, QUEUE, TOPICS, USER};
use crate::row::Row;
use allocator_api2::alloc::{AllocError, Allocator, Layout, System};
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use bytes::Bytes;
use std::alloc::GlobalAlloc;
use std::marker::PhantomData;
use std::ptr::{NonNull, slice_from_raw_parts_mut};

/// [`crate::record::Record`] with an allocator.
pub struct Record<A: Allocator> {
    user: Vec<u8, A>,
    thread: Vec<u8, A>,
    run: Vec<u8, A>,
    _read: Vec<u8, A>,
    _write: Vec<u8, A>,
    _queue: Vec<Bytes, A>,
    _topics: Vec<u64, A>,
    _received: u64,
    _sent: u64,
    _errors: u64,
}

pub struct Fresh<A>(PhantomData<fn() -> A>);

pub fn fresh<A: Copy + Default + Allocator + Send + 'static>(name: &'static str) -> Row<Fresh<A>> {
    Row(Facts::new(name, Kind::Peer).frees("as the allocator does"), Fresh(PhantomData))
}

pub fn glibc() -> Row<Fresh<System>> {
    fresh("fresh Box, glibc")
}

pub fn mimalloc() -> Row<Fresh<Mimalloc>> {
    fresh("fresh Box, mimalloc")
}

pub fn jemalloc() -> Row<Fresh<Jemalloc>> {
    fresh("fresh Box, jemalloc")
}

impl<A: Copy + Default + Allocator + Send + 'static> Place for Fresh<A> {
    type Held<'a> = Box<Record<A>, A>;
    type Key = ();
    const IS_COUNTED: bool = false;

    #[inline]
    fn acquire(&self, ids: &mut Ids) -> Self::Held<'_> {
        let allocator = A::default();
        let mut record = Record {
            user: Vec::with_capacity_in(NAME, allocator),
            thread: Vec::with_capacity_in(NAME, allocator),
            run: Vec::with_capacity_in(NAME, allocator),
            _read: Vec::with_capacity_in(BUFFER, allocator),
            _write: Vec::with_capacity_in(BUFFER, allocator),
            _queue: Vec::with_capacity_in(QUEUE, allocator),
            _topics: Vec::with_capacity_in(TOPICS, allocator),
            _received: 1,
            _sent: 0,
            _errors: 0,
        };
        let id = ids.fresh().as_bytes();
        set(&mut record.user, USER.as_bytes());
        set(&mut record.thread, id);
        set(&mut record.run, id);
        Box::new_in(record, allocator)
    }

    #[inline]
    fn release<'a>(&'a self, held: Self::Held<'a>) {
        drop(held);
    }

    fn key(&self, _: &Self::Held<'_>) {}
}

/// Appends at once; `extend_from_slice` of this `Vec` goes byte by byte.
#[inline]
fn set<A: Allocator>(name: &mut Vec<u8, A>, value: &[u8]) {
    name.resize(value.len(), 0);
    name.copy_from_slice(value);
}

macro_rules! allocator {
    ($name:ident, $functions:expr) => {
        #[derive(Clone, Copy, Default)]
        pub struct $name;

        // SAFETY: memory comes from the global functions of one allocator and goes back to them, whichever
        // copy of this value it goes through.
        unsafe impl Allocator for $name {
            #[inline]
            fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
                assert!(layout.size() > 0, "a manager has no empty parts");
                // SAFETY: the size is not 0.
                let place = unsafe { $functions.alloc(layout) };
                NonNull::new(slice_from_raw_parts_mut(place, layout.size())).ok_or(AllocError)
            }

            #[inline]
            unsafe fn deallocate(&self, place: NonNull<u8>, layout: Layout) {
                // SAFETY: the caller's promise: it is from `allocate`, of this layout.
                unsafe { $functions.dealloc(place.as_ptr(), layout) }
            }
        }
    };
}

allocator!(Mimalloc, mimalloc::MiMalloc);
allocator!(Jemalloc, tikv_jemallocator::Jemalloc);
