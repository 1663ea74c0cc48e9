//! Planted bugs that only several members show.

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::planted::plant;

use super::*;

fn finds(bug: &str, survives: impl Fn(u64) -> bool) {
    let survives = |seed| catch_unwind(AssertUnwindSafe(|| survives(seed))).unwrap_or(false);
    assert!((1..4).all(survives), "nothing is planted yet");
    let _planted = plant(bug);
    assert!(!(1..30).all(survives), "{bug} was not found");
}

#[test]
fn an_object_of_an_older_term_that_is_referred_to_is_found() {
    finds("object-of-an-older-term-referenced", rounds::survives_a_leader_that_comes_back);
}

#[test]
fn a_snapshot_that_is_answered_before_it_is_durable_is_found() {
    let survives = |operation| installing::survives_a_crash(operation, CrashOutcome::Lost);
    finds("snapshot-answered-before-it-is-durable", survives);
}
