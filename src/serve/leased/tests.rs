use super::*;
use crate::config::Environment;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::io::{Error, ErrorKind};
use std::task::Waker;

/// What the socket does, read by read.
#[derive(Clone, Debug)]
enum Step {
    Bytes(Vec<u8>),
    Pending,
    Failure,
}

/// A socket that plays a script, then ends. Writes are kept, a vectored one at most three slices of.
#[derive(Debug, Default)]
struct Script {
    steps: VecDeque<Step>,
    /// The sizes that were asked for.
    asked: Vec<usize>,
    written: Vec<u8>,
    is_flushed: bool,
    is_shut_down: bool,
}

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), ..Self::default() }
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        reader: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        self.asked.push(reader.remaining());
        match self.steps.pop_front() {
            None => Poll::Ready(Ok(())),
            Some(Step::Pending) => Poll::Pending,
            Some(Step::Failure) => Poll::Ready(Err(Error::from(ErrorKind::ConnectionReset))),
            Some(Step::Bytes(mut bytes)) => {
                let rest = bytes.split_off(bytes.len().min(reader.remaining()));
                reader.put_slice(&bytes);
                if !rest.is_empty() {
                    self.steps.push_front(Step::Bytes(rest));
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Script {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let taken = &slices[..slices.len().min(3)];
        taken.iter().for_each(|slice| self.written.extend_from_slice(slice));
        Poll::Ready(Ok(taken.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.is_shut_down = true;
        Poll::Ready(Ok(()))
    }
}

/// What others left in the buffers. No script has it.
const POISON: u8 = 0xEE;

fn pool(limit: usize) -> Pool {
    // Tests run at once, and two pools of one name can't.
    let name = format!("leased-{:?}", std::thread::current().id());
    let pool =
        Pool::builder().name(name).environment(Environment::Ci).inbound_pool_bytes(limit).build().unwrap();
    let inbound = pool.inbound();
    let used: Vec<_> = std::iter::from_fn(|| inbound.lease(READ)).take(4).collect();
    for mut buffer in used {
        buffer.fill(POISON);
        inbound.give(buffer);
    }
    pool
}

fn leased(pool: &Pool) -> usize {
    pool.snapshot().inbound.leased_bytes
}

/// One read of up to so many bytes.
fn read(io: &mut (impl AsyncRead + Unpin), most: usize) -> Poll<Result<Vec<u8>>> {
    let mut bytes = vec![0; most];
    let mut reader = ReadBuf::new(&mut bytes);
    let cx = &mut Context::from_waker(Waker::noop());
    Pin::new(io).poll_read(cx, &mut reader).map_ok(|()| reader.filled().to_vec())
}

fn got(io: &mut (impl AsyncRead + Unpin), most: usize) -> Vec<u8> {
    match read(io, most) {
        Poll::Ready(Ok(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_large_read_feeds_small_ones_and_the_last_gives_the_buffer_back() {
    let pool = pool(1 << 20);
    let mut io = LeasedIo::new(Script::new([Step::Bytes((0..100).collect())]), &pool);
    assert_eq!((io.unread(), leased(&pool)), (0, 0));
    assert_eq!(got(&mut io, 10), (0..10).collect::<Vec<u8>>());
    assert_eq!((io.unread(), leased(&pool)), (90, READ));
    assert_eq!(got(&mut io, 89), (10..99).collect::<Vec<u8>>());
    assert_eq!((io.unread(), leased(&pool)), (1, READ));
    assert_eq!(got(&mut io, 89), [99]);
    assert_eq!((io.unread(), leased(&pool)), (0, 0));
    assert_eq!(io.get_ref().asked, [READ], "one read of the socket");
    assert_eq!(got(&mut io, 10), [0_u8; 0]);
    assert_eq!(leased(&pool), 0);
}

#[test]
fn whoever_waits_at_its_end_or_fails_holds_nothing() {
    let pool = pool(1 << 20);
    let steps = [Step::Pending, Step::Bytes(vec![1, 2]), Step::Failure, Step::Pending];
    let mut io = LeasedIo::new(Script::new(steps), &pool);
    assert!(read(&mut io, 1).is_pending());
    assert_eq!(leased(&pool), 0);
    assert_eq!((got(&mut io, 1), leased(&pool)), (vec![1], READ));
    assert_eq!((got(&mut io, 1), leased(&pool)), (vec![2], 0));
    match read(&mut io, 1) {
        Poll::Ready(Err(error)) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        other => panic!("{other:?}"),
    }
    assert_eq!(leased(&pool), 0);
    assert!(read(&mut io, 1).is_pending());
    assert_eq!((got(&mut io, 1), leased(&pool)), (vec![], 0), "the end");
}

#[test]
fn what_is_unread_is_given_back_when_the_socket_is_dropped() {
    let pool = pool(1 << 20);
    let mut io = LeasedIo::new(Script::new([Step::Bytes(vec![1; 100])]), &pool);
    got(&mut io, 1);
    assert_eq!(leased(&pool), READ);
    drop(io);
    assert_eq!(leased(&pool), 0);
}

#[test]
fn a_socket_that_panics_leaves_nothing_leased() {
    struct Broken;
    impl AsyncRead for Broken {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<Result<()>> {
            panic!("as commanded")
        }
    }
    let pool = pool(1 << 20);
    let mut io = LeasedIo::new(Broken, &pool);
    let outcome = crate::manager::contain(|| read(&mut io, 1));
    assert!(outcome.is_none());
    drop(io);
    assert_eq!(leased(&pool), 0);
}

#[test]
fn where_the_limit_is_used_up_the_reader_s_own_buffer_does() {
    let pool = pool(READ);
    let rest = pool.inbound().lease(1).unwrap();
    let before = pool.snapshot().inbound.exhausted;
    let mut io = LeasedIo::new(Script::new([Step::Bytes(vec![7; 100]), Step::Pending]), &pool);
    assert_eq!(got(&mut io, 10), [7; 10]);
    assert_eq!(got(&mut io, 60), [7; 60]);
    assert_eq!((io.unread(), &*io.get_ref().asked), (0, &[10, 60][..]));
    let inbound = pool.snapshot().inbound;
    assert_eq!((inbound.leased_bytes, inbound.exhausted - before), (1024, 2));

    pool.inbound().give(rest);
    assert_eq!(got(&mut io, 10), [7; 10]);
    assert_eq!((io.unread(), leased(&pool)), (20, READ));
    assert_eq!(got(&mut io, 20), [7; 20]);
    assert!(read(&mut io, 10).is_pending());
}

#[test]
fn whoever_asks_for_as_much_reads_by_itself() {
    let pool = pool(1 << 20);
    let mut io = LeasedIo::new(Script::new([Step::Bytes(vec![7; 2 * READ + 5])]), &pool);
    assert_eq!(got(&mut io, READ + 5).len(), READ + 5);
    assert_eq!(leased(&pool), 0);
    assert_eq!(got(&mut io, READ - 1).len(), READ - 1);
    assert_eq!((io.unread(), leased(&pool)), (1, READ));
    assert_eq!(got(&mut io, READ).len(), 1, "first what is there");
    assert_eq!(leased(&pool), 0);
}

#[test]
fn writing_goes_through() {
    let pool = pool(1 << 20);
    let mut io = LeasedIo::new(Script::default(), &pool);
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(io.is_write_vectored());
    let slices: Vec<_> = [&b"a"[..], b"bc", b"d", b"e"].map(IoSlice::new).into();
    assert!(matches!(Pin::new(&mut io).poll_write_vectored(cx, &slices), Poll::Ready(Ok(4))));
    assert!(matches!(Pin::new(&mut io).poll_write(cx, b"ef"), Poll::Ready(Ok(2))));
    assert!(Pin::new(&mut io).poll_flush(cx).is_ready());
    assert!(io.get_ref().is_flushed && !io.get_ref().is_shut_down);
    assert!(Pin::new(&mut io).poll_shutdown(cx).is_ready());
    assert!(io.get_ref().is_shut_down);
    assert_eq!(io.get_ref().written, b"abcdef");
    assert_eq!(leased(&pool), 0);
}

#[test]
fn debug_shows_no_content() {
    let pool = pool(1 << 20);
    let mut io = LeasedIo::new(Script::new([Step::Bytes(vec![77; 100])]), &pool);
    got(&mut io, 1);
    let shown = format!("{io:?}");
    assert!(shown.contains("unread: 99") && !shown.contains("77"), "{shown}");
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Never POISON, of which a byte from somebody else's buffer would be.
    let bytes = prop_oneof![
        8 => prop::collection::vec(0..POISON, 1..200),
        1 => prop::collection::vec(0..POISON, READ - 2..READ + 3),
        1 => prop::collection::vec(0..POISON, 2 * READ..3 * READ),
    ];
    let step = prop_oneof![
        8 => bytes.prop_map(Step::Bytes),
        3 => Just(Step::Pending),
        1 => Just(Step::Failure),
    ];
    prop::collection::vec(step, 0..12)
}

/// Reads of these sizes, over and over, until the end. What came, and the errors' places in it.
fn read_to_end(
    io: &mut (impl AsyncRead + Unpin),
    sizes: &[usize],
    mut between: impl FnMut(),
) -> (Vec<u8>, Vec<usize>) {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    for &size in sizes.iter().cycle().take(1_000_000) {
        match read(io, size) {
            Poll::Pending => {}
            Poll::Ready(Err(_)) => errors.push(all.len()),
            Poll::Ready(Ok(bytes)) if bytes.is_empty() => return (all, errors),
            Poll::Ready(Ok(bytes)) => all.extend(bytes),
        }
        between();
    }
    panic!("no end")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// However the bytes arrive, are asked for, and whether there are buffers: the library sees the same
    /// bytes, errors and end as without, and none of another connection.
    #[test]
    fn the_library_sees_what_the_socket_says(
        steps in steps(),
        sizes in prop::collection::vec(prop_oneof![4 => 1..300_usize, 1 => READ - 2..READ + 3], 1..6),
        limit in prop_oneof![Just(1_usize), Just(READ), Just(1 << 20)],
        takes in prop::collection::vec(any::<bool>(), 1..8),
    ) {
        let plain = read_to_end(&mut Script::new(steps.clone()), &sizes, || {});
        let pool = pool(limit);
        let inbound = pool.inbound();
        let mut io = LeasedIo::new(Script::new(steps), &pool);
        // Others lease and give back between the reads, and leave their bytes behind.
        let (mut takes, mut taken) = (takes.into_iter().cycle(), None);
        let through = read_to_end(&mut io, &sizes, || {
            if takes.next() == Some(true) && let Some(mut buffer) = inbound.lease(READ) {
                buffer.fill(POISON);
                if let Some(former) = taken.replace(buffer) {
                    inbound.give(former);
                }
            } else if let Some(buffer) = taken.take() {
                inbound.give(buffer);
            }
        });
        prop_assert_eq!(through, plain);
        prop_assert_eq!(io.unread(), 0);
        if let Some(buffer) = taken.take() {
            inbound.give(buffer);
        }
        prop_assert_eq!(leased(&pool), 0);
    }
}
