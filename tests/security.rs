//! Whatever is done in whatever order, no byte of one user reaches another.

#[path = "../fuzz/scenarios/pool.rs"]
mod scenario;

use proptest::prelude::*;
use scenario::{Op, THREADS, USERS, World};

fn op() -> impl Strategy<Value = Op> {
    let any = any::<usize>;
    let (user, thread) = (0..USERS.len(), 0..THREADS.len());
    prop_oneof![
        8 => (user.clone(), thread.clone()).prop_map(|(user, thread)| Op::Connect { user, thread }),
        3 => any().prop_map(Op::Close),
        1 => any().prop_map(Op::Evict),
        3 => any().prop_map(Op::SendToKey),
        1 => prop::collection::vec(any(), 0..4).prop_map(Op::SendToKeys),
        3 => user.clone().prop_map(Op::SendToUser),
        3 => (user.clone(), thread.clone()).prop_map(|(user, thread)| Op::SendToThread { user, thread }),
        2 => (user.clone(), thread.clone()).prop_map(|(user, thread)| Op::Run { user, thread }),
        2 => (user, thread).prop_map(|(user, thread)| Op::Resume { user, thread }),
        3 => any().prop_map(Op::WriteState),
        5 => any().prop_map(Op::Read),
        1 => Just(Op::Shrink),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_byte_of_one_user_reaches_another(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        world.end();
    }

    #[test]
    fn nor_by_any_bytes(script in prop::collection::vec(any::<u8>(), 0..300)) {
        scenario::run(&script);
    }
}

#[test]
fn the_property_hears_something() {
    let mut world = World::new();
    for op in [
        Op::Connect { user: 0, thread: 0 },
        Op::Connect { user: 1, thread: 0 },
        Op::SendToUser(0),
        Op::SendToThread { user: 1, thread: 0 },
        Op::Run { user: 1, thread: 0 },
        Op::WriteState(1),
        Op::Read(0),
        Op::Read(1),
    ] {
        world.apply(&op);
    }
    assert_eq!(world.heard, 1 + 1 + 3);
}
