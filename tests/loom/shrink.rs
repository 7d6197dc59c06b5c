//! A shrink against claims. Fails with the fault `shrink_without_claim` (a claimed slot loses its
//! page), `shrink_unseen` and `take_out_without_release` (a claimant that looked for pages to grow
//! before the shrink is refused, although every slot is free).

use crate::probe::{Probe, grown, is_whole, open};
use crate::race::Race;
use ws_manager_pool::slab::Slab;

fn claim(slab: &Slab<Probe>) {
    let key = slab.claim().expect("a slot is free, or its page can come back");
    open(slab, key, 1);
    assert_eq!(slab.pin(key, |_, shared| *shared), Ok(1));
    drop(slab.close(key).expect("nobody else closes"));
}

fn claim_and_keep(slab: &Slab<Probe>) {
    assert!(slab.claim().is_ok(), "two slots, two claims");
}

fn shrink(slab: &Slab<Probe>) {
    slab.shrink(0);
}

#[test]
fn a_claimed_slot_keeps_its_page() {
    Race {
        name: "shrink, claim",
        world: || grown(2),
        roles: [shrink, claim],
        afterwards: |slab| assert!(is_whole(slab)),
        bounds: &[Some(1), Some(2), Some(3)],
        floor: 84,
    }
    .run();
}

#[test]
fn nobody_is_refused_while_a_page_is_out() {
    Race {
        name: "shrink, two claims",
        world: || grown(2),
        roles: [shrink, claim_and_keep, claim_and_keep],
        afterwards: |slab| assert_eq!(slab.occupied(), 2),
        bounds: &[Some(1), Some(2)],
        floor: 2700,
    }
    .run();
}
