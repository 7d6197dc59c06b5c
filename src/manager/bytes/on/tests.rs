use super::*;
use std::thread;

const LIMIT: usize = 64 * SIZES[5];

/// Buffers, on a thread that has used none.
fn with_buffers(limit: usize, f: impl FnOnce(&ByteBuffers) + Send) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let buffers = ByteBuffers::new(limit);
            f(&buffers);
        });
    });
}

fn spare(buffers: &ByteBuffers) -> usize {
    buffers.figures().spare_bytes
}

fn leased(buffers: &ByteBuffers) -> usize {
    buffers.figures().leased_bytes
}

#[test]
fn a_buffer_has_the_next_size_and_a_huge_one_is_made_to_measure() {
    let buffers = ByteBuffers::new(LIMIT);
    let sizes = [0, 1, 1024, 1025, 4096, 4097, 16_384, 65_536, 65_537, 262_145, 1_048_576, 1_048_577];
    let len = |at_least| {
        let buffer = buffers.lease(at_least).unwrap();
        let len = buffer.len();
        assert_eq!(leased(&buffers), len, "paid by its size");
        buffers.give(buffer);
        len / 1024
    };
    assert_eq!(sizes.map(len), [1, 1, 1, 4, 4, 16, 16, 64, 256, 1024, 1024, 1024]);
    let huge = buffers.lease(3_000_001).unwrap();
    assert_eq!(huge.len(), 3_000_001);
    let before = spare(&buffers);
    buffers.give(huge);
    assert_eq!((spare(&buffers), leased(&buffers)), (before, 0), "it is not kept");
}

#[test]
fn what_was_given_back_is_leased_again() {
    // The other size goes to the thread itself first.
    for size in SIZES.into_iter().filter(|&size| size != SCRATCH) {
        with_buffers(LIMIT, |buffers| {
            let mut buffer = buffers.lease(size).unwrap();
            let place = buffer.as_ptr();
            buffer.fill(7);
            buffers.give(buffer);
            assert_eq!((spare(buffers), leased(buffers)), (size, 0));
            let again = buffers.lease(size).unwrap();
            assert_eq!((again.as_ptr(), again[size - 1]), (place, 7), "unwiped, as is said");
            assert_eq!((spare(buffers), leased(buffers)), (0, size));
            drop(again);
            assert_eq!(leased(buffers), size, "dropped, it stays counted");
        });
    }
}

#[test]
fn what_another_thread_gave_back_is_found() {
    with_buffers(LIMIT, |buffers| {
        let peak: Vec<_> = (0..100).map(|_| buffers.lease(4096).unwrap()).collect();
        let places: Vec<_> = peak.iter().map(|buffer| buffer.as_ptr() as usize).collect();
        // Threads that live at once have different numbers, and so different shelves.
        let barrier = std::sync::Barrier::new(2);
        thread::scope(|scope| {
            let mut peak = peak.into_iter();
            for half in [peak.by_ref().take(50).collect::<Vec<_>>(), peak.collect()] {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    half.into_iter().for_each(|buffer| buffers.give(buffer));
                    barrier.wait();
                });
            }
        });
        assert_eq!((spare(buffers), leased(buffers)), (100 * 4096, 0));
        for _ in 0..100 {
            let buffer = buffers.lease(4096).unwrap();
            assert!(places.contains(&(buffer.as_ptr() as usize)));
            drop(buffer);
        }
        assert_eq!(spare(buffers), 0);
    });
}

#[test]
fn the_limit_is_exact_and_a_refusal_is_counted() {
    let buffers = ByteBuffers::new(10 * 1024);
    let all: Vec<_> = (0..10).map(|_| buffers.lease(1024).unwrap()).collect();
    assert!(buffers.lease(1).is_none());
    assert!(buffers.lease(1_000_000).is_none());
    let figures = buffers.figures();
    assert_eq!((figures.leased_bytes, figures.limit, figures.exhausted), (10 * 1024, 10 * 1024, 2));
    all.into_iter().for_each(|buffer| buffers.give(buffer));
    assert!(buffers.lease(4096).is_some());
    assert!(buffers.lease(8192).is_none(), "16 KiB are more than the limit");
    assert_eq!(buffers.figures().exhausted, 3);
}

#[test]
fn a_shelf_is_bounded() {
    with_buffers(LIMIT, |buffers| {
        for size in SIZES {
            let before = spare(buffers);
            let peak: Vec<_> =
                (0..2 * MOST_BYTES.max(size) / size).map(|_| buffers.lease(size).unwrap()).collect();
            peak.into_iter().for_each(|buffer| buffers.give(buffer));
            assert_eq!(spare(buffers) - before, MOST_BYTES.max(size), "of {size} bytes");
        }
        assert_eq!(leased(buffers), 0);
    });
}

#[test]
fn a_peak_comes_back_and_what_is_in_use_stays() {
    with_buffers(LIMIT, |buffers| {
        for _ in 0..3 {
            let peak: Vec<_> = (0..100).map(|_| buffers.lease(1024).unwrap()).collect();
            peak.into_iter().for_each(|buffer| buffers.give(buffer));
            buffers.trim(); // all of them were in use since the last
            assert_eq!(spare(buffers), 100 * 1024);
        }
        for left in [50, 25, 12, 6, 3, 1, 0, 0] {
            buffers.trim();
            assert_eq!(spare(buffers), left * 1024);
        }

        let (one, other) = (buffers.lease(1).unwrap(), buffers.lease(1).unwrap());
        buffers.give(one);
        buffers.give(other);
        for _ in 0..10 {
            let in_use = buffers.lease(1).unwrap();
            buffers.trim();
            buffers.give(in_use);
        }
        assert_eq!(spare(buffers), 1024, "the one that is needed between any two trims");
    });
}

#[test]
fn a_thread_has_two_scratches_and_what_is_kept_of_them_counts() {
    let on_a_thread = || {
        let buffers = ByteBuffers::new(2 * SCRATCH);
        let scratches = [(); 3].map(|()| buffers.lease_scratch());
        let places = [0, 1].map(|number: usize| scratches[number].as_ptr());
        drop(scratches);
        let place = places[0];
        {
            let again = [(); 2].map(|()| buffers.lease_scratch());
            assert_eq!([again[0].as_ptr(), again[1].as_ptr()], places, "the first that came back");
        }

        let kept = buffers.keep(buffers.lease_scratch()).unwrap();
        assert_eq!((kept.as_ptr(), leased(&buffers)), (place, SCRATCH));
        let another = buffers.keep(buffers.lease_scratch()).unwrap();
        assert!(buffers.keep(buffers.lease_scratch()).is_err(), "the limit is used up");
        assert_eq!(buffers.figures().exhausted, 1);
        buffers.give(kept);
        buffers.give(another);
        assert_eq!(leased(&buffers), 0);
        // The refused one went back to the thread, so only one of these had room there.
        assert_eq!(spare(&buffers), SCRATCH);
    };
    thread::spawn(on_a_thread).join().unwrap();
}

#[test]
fn a_thread_leases_its_own_buffer_first() {
    thread::spawn(|| {
        let buffers = ByteBuffers::new(LIMIT);
        let place = buffers.lease_scratch().as_ptr();
        for _ in 0..3 {
            let leased = buffers.lease(SCRATCH).unwrap();
            assert_eq!(leased.as_ptr(), place);
            buffers.give(leased);
        }
        assert_eq!((spare(&buffers), leased(&buffers)), (0, 0));
    })
    .join()
    .unwrap();
}

#[test]
fn many_threads_leave_nothing_leased() {
    let buffers = ByteBuffers::new(3_000_000);
    thread::scope(|scope| {
        for thread in 0..4_usize {
            let buffers = &buffers;
            scope.spawn(move || {
                let mut held = Vec::new();
                for step in 0..20_000_usize {
                    let size = SIZES[(step + thread) % SIZES.len()];
                    if let Some(mut buffer) = buffers.lease(size) {
                        assert_eq!(buffer.len(), size);
                        buffer[step % size] = thread as u8;
                        held.push((buffer, step % size));
                    }
                    if held.len() > step % 7 {
                        let (buffer, at) = held.swap_remove(step % held.len());
                        assert_eq!(buffer[at], thread as u8, "nobody else has it");
                        buffers.give(buffer);
                    }
                    if step % 1_000 == 0 {
                        buffers.trim();
                    }
                }
                held.into_iter().for_each(|(buffer, _)| buffers.give(buffer));
            });
        }
    });
    assert_eq!(leased(&buffers), 0);
    assert!(buffers.figures().exhausted > 0, "the limit was met");
}
