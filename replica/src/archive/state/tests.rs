use common::GroupId;
use common::planted::plant;
use rstest::rstest;

use super::*;
use crate::archive::runs::Runs;
use crate::archive::skip::{Beginning, CommittedSkip};
use crate::resting::Tiered;

const HOUR: u64 = 3_600_000_000;

fn name(term: u64, sequence: u64) -> ObjectName {
    let (incarnation, group) = (Incarnation(1), GroupId(2));
    ObjectName { incarnation, group, term: Term(term), sequence }
}

fn object(term: u64, sequence: u64) -> ObjectRef {
    ObjectRef { name: name(term, sequence), length: 1_000, checksum: sequence as u32 }
}

fn at(index: u64, term: u64, up_micros: u64) -> At {
    let stamp = Stamp { up_micros, ..Stamp::default() };
    At { index: LogIndex(index), term: Term(term), stamp }
}

/// A round of one payload object, named in term 3.
fn round(first: u64, last: u64, sequence: u64) -> CommittedRound {
    let range = LogIndex(first)..=LogIndex(last);
    let tiered =
        Tiered { range, objects: vec![object(3, sequence)], runs: Runs::encode(Vec::new()) };
    let footer = object(3, sequence + 1);
    CommittedRound { footer, tiered, last_term: Term(3), recovered: false }
}

fn checkpoint(index: u64, sequence: u64) -> CommittedCheckpoint {
    CommittedCheckpoint {
        reference: object(3, sequence + 1),
        index: LogIndex(index),
        archived: LogIndex(index),
        chunks: vec![object(3, sequence)],
        keep_micros: HOUR,
    }
}

/// What is saved and read again is the archive.
fn check_saved(archive: &Archive) {
    let mut whole = archive.clone();
    let rounds = archive.rounds.keys().map(|last| Record::Round(*last));
    let objects = archive.objects.keys().map(|name| Record::Object(*name));
    let checkpoints = archive.checkpoints.keys().map(|index| Record::Checkpoint(*index));
    let dropped = archive.dropped.keys().map(|name| Record::Dropped(*name));
    let skips = archive.skips.keys().map(|last| Record::Skip(*last));
    let all = rounds.chain(objects).chain(checkpoints).chain(dropped).chain(skips);
    whole.unsaved = all.chain([Record::Head]).collect();
    let changes = whole.freeze().into_iter();
    let mut pairs = changes.map(|change| (change.key.into(), change.value.unwrap()));
    assert_eq!(Archive::restore(&mut pairs).unwrap(), whole);
}

#[test]
fn rounds_follow_one_another_without_a_gap_and_under_the_term_of_their_entry() {
    let mut archive = Archive::default();
    assert_eq!(archive.round(&round(2, 5, 1), at(9, 3, 0)), Err(Refused::NotTheNext));
    assert_eq!(archive.round(&round(1, 5, 1), at(9, 4, 0)), Err(Refused::OfAnotherTerm));
    assert_eq!(archive.round(&round(1, 9, 1), at(9, 3, 0)), Err(Refused::NotReached));
    assert_eq!(archive, Archive::default(), "what is refused changes nothing");
    archive.round(&round(1, 5, 1), at(9, 3, 0)).unwrap();
    assert_eq!(archive.round(&round(1, 5, 3), at(10, 3, 0)), Err(Refused::NotTheNext));
    archive.round(&round(6, 9, 3), at(11, 3, 0)).unwrap();
    assert_eq!((archive.end(), archive.tip()), (LogIndex(9), Some(object(3, 4))));
    check_saved(&archive);
}

#[test]
fn a_recovery_raises_the_incarnation_and_takes_over_rounds_of_the_ones_before() {
    let mut archive = Archive::default();
    let recovered = CommittedRound { recovered: true, ..round(1, 5, 1) };
    assert_eq!(archive.round(&recovered, at(9, 3, 0)), Err(Refused::OfAnotherTerm));
    assert_eq!(archive.recovered(Incarnation(1)), Err(Refused::Older));
    archive.recovered(Incarnation(2)).unwrap();
    assert_eq!(archive.round(&round(1, 5, 1), at(9, 3, 0)), Err(Refused::OfAnotherTerm));
    archive.round(&recovered, at(9, 8, 0)).unwrap();
    assert_eq!(archive.end(), LogIndex(5));
    check_saved(&archive);
}

#[test]
fn a_checkpoint_counts_once_the_rounds_reach_it() {
    let mut archive = Archive::default();
    assert_eq!(archive.checkpoint(&checkpoint(5, 10), at(9, 3, 0)), Err(Refused::NotReached));
    archive.round(&round(1, 5, 1), at(9, 3, 0)).unwrap();
    assert_eq!(archive.checkpoint(&checkpoint(5, 10), at(9, 4, 0)), Err(Refused::OfAnotherTerm));
    archive.checkpoint(&checkpoint(5, 10), at(10, 3, 0)).unwrap();
    assert_eq!(archive.checkpoint(&checkpoint(5, 12), at(11, 3, 0)), Err(Refused::Older));
    assert_eq!(archive.newest_checkpoint(), LogIndex(5));
    check_saved(&archive);
}

#[test]
fn what_is_dropped_stays_until_the_oldest_kept_checkpoint_includes_the_drop_and_grace_is_over() {
    let mut archive = Archive::default();
    archive.round(&round(1, 5, 1), at(9, 3, 0)).unwrap();
    archive.dead(vec![name(3, 1), name(3, 77)], at(12, 3, 100));
    assert_eq!(archive.dropped().len(), 1, "what is not referred to is not dropped");
    assert_eq!(
        archive.collectable(u64::MAX, 0, Incarnation(0), 9),
        [],
        "no checkpoint includes it"
    );
    archive.checkpoint(&checkpoint(5, 10), at(13, 3, 100)).unwrap();
    assert_eq!(
        archive.collectable(u64::MAX, 0, Incarnation(0), 9),
        [],
        "the checkpoint is of before"
    );
    archive.round(&round(6, 20, 20), at(21, 3, 200)).unwrap();
    archive.checkpoint(&checkpoint(15, 30), at(22, 3, 300)).unwrap();
    assert_eq!(archive.collectable(u64::MAX, 0, Incarnation(0), 9), [], "the older one is kept");
    assert!(!archive.has_old(300 + HOUR - 1) && archive.has_old(300 + HOUR));
    archive.removed(&[], at(23, 3, 300 + HOUR));
    assert_eq!(archive.checkpoints().len(), 1);
    assert_eq!(
        archive.collectable(99 + 1_000, 1_000, Incarnation(0), 9),
        [],
        "its grace is not over"
    );
    assert_eq!(archive.collectable(100 + 1_000, 1_000, Incarnation(0), 9), [name(3, 1)]);
    archive.removed(&[name(3, 1)], at(24, 3, 0));
    assert!(!archive.dropped().contains_key(&name(3, 1)));
    check_saved(&archive);
}

#[test]
fn payload_dropped_behind_the_newest_checkpoint_asks_for_another_and_old_checkpoints_do_not() {
    let mut archive = Archive::default();
    archive.note_operation(LogIndex(4));
    assert!(archive.lacks_checkpoint(), "it has none");
    archive.round(&round(1, 5, 1), at(9, 3, 0)).unwrap();
    archive.checkpoint(&checkpoint(5, 10), at(10, 3, 0)).unwrap();
    assert!(!archive.lacks_checkpoint());
    archive.dead(vec![name(3, 1)], at(11, 3, 0));
    assert!(archive.lacks_checkpoint(), "payload waits for it");
    archive.round(&round(6, 11, 20), at(12, 3, 0)).unwrap();
    archive.checkpoint(&checkpoint(11, 30), at(13, 3, 0)).unwrap();
    assert!(!archive.lacks_checkpoint());
    archive.removed(&[], at(14, 3, HOUR));
    assert!(archive.dropped().contains_key(&name(3, 10)), "the old checkpoint's chunk");
    assert!(!archive.lacks_checkpoint(), "there would be no end");
    check_saved(&archive);
}

#[test]
fn rounds_that_no_kept_checkpoint_needs_are_dropped_and_go_before_what_they_name() {
    let mut archive = Archive::default();
    for number in 0..4 {
        let first = 1 + 5 * number;
        archive.round(&round(first, first + 4, 1 + 2 * number), at(30, 3, 0)).unwrap();
    }
    let mut young = checkpoint(15, 50);
    young.archived = LogIndex(10);
    archive.checkpoint(&young, at(31, 3, 0)).unwrap();
    let lasts: Vec<u64> = archive.rounds().keys().map(|last| last.0).collect();
    assert_eq!(lasts, [15, 20], "its state is archived up to 10");
    archive.dead(vec![name(3, 1)], at(32, 3, 0));
    archive.round(&round(21, 40, 90), at(41, 3, 0)).unwrap();
    archive.checkpoint(&checkpoint(40, 100), at(42, 3, 0)).unwrap();
    archive.removed(&[], at(43, 3, 2 * HOUR));
    let first = archive.collectable(2 * HOUR, 0, Incarnation(0), 9);
    assert_eq!(first, [name(3, 2), name(3, 4)], "footers that were dropped before index 40");
    archive.removed(&first, at(44, 3, 2 * HOUR));
    assert_eq!(archive.collectable(2 * HOUR, 0, Incarnation(0), 9), [name(3, 1)]);
    assert_eq!(archive.rounds().len(), 1, "the tip stays: the next round continues it");
    check_saved(&archive);
}

#[rstest]
#[case(
    "object-of-an-older-term-referenced",
    rounds_follow_one_another_without_a_gap_and_under_the_term_of_their_entry
)]
#[case(
    "round-leaves-a-gap",
    rounds_follow_one_another_without_a_gap_and_under_the_term_of_their_entry
)]
#[case(
    "checkpoint-counts-before-the-chain-reaches-it",
    a_checkpoint_counts_once_the_rounds_reach_it
)]
#[case(
    "collected-while-a-checkpoint-needs-it",
    what_is_dropped_stays_until_the_oldest_kept_checkpoint_includes_the_drop_and_grace_is_over
)]
fn a_planted_bug_fails_the_test_of_its_law(#[case] bug: &str, #[case] law: fn()) {
    law();
    let _planted = plant(bug);
    assert!(std::panic::catch_unwind(law).is_err(), "{bug} was not found");
}

/// Entries 6 to 8 are lost; a state that includes them, and that knows what is archived, is copied.
fn skip() -> CommittedSkip {
    let checkpoint = CommittedCheckpoint { archived: LogIndex(5), ..checkpoint(12, 20) };
    let lost = LogIndex(6)..=LogIndex(8);
    CommittedSkip { lost, last_term: Term(3), checkpoint, recovered: false }
}

#[test]
fn lost_entries_are_skipped_only_with_a_checkpoint_behind_them() {
    let mut archive = Archive::default();
    let early = skip();
    assert_eq!(archive.skip(&early, at(14, 3, 0)), Err(Refused::NotTheNext));
    archive.round(&round(1, 5, 1), at(9, 3, 0)).unwrap();
    let before = archive.clone();
    let with = |change: &dyn Fn(&mut CommittedSkip)| {
        let mut skip = skip();
        change(&mut skip);
        skip
    };
    let deposed = skip();
    assert_eq!(archive.skip(&deposed, at(14, 4, 0)), Err(Refused::OfAnotherTerm));
    let inside = with(&|skip| skip.checkpoint.index = LogIndex(7));
    assert_eq!(archive.skip(&inside, at(14, 3, 0)), Err(Refused::NotReached));
    assert_eq!(archive.skip(&skip(), at(12, 3, 0)), Err(Refused::NotReached), "of the future");
    let ignorant = with(&|skip| skip.checkpoint.archived = LogIndex(4));
    assert_eq!(archive.skip(&ignorant, at(14, 3, 0)), Err(Refused::BeforeSkip));
    let recovered = with(&|skip| skip.recovered = true);
    assert_eq!(archive.skip(&recovered, at(14, 4, 0)), Err(Refused::OfAnotherTerm));
    assert_eq!(archive, before, "what is refused changes nothing");
    archive.skip(&skip(), at(14, 3, 0)).unwrap();
    assert_eq!(archive.skip(&skip(), at(15, 3, 0)), Err(Refused::NotTheNext), "once");
    assert_eq!((archive.end(), archive.tip()), (LogIndex(8), Some(object(3, 2))));
    assert_eq!(archive.lost().collect::<Vec<_>>(), [LogIndex(6)..=LogIndex(8)]);
    check_saved(&archive);
}

#[test]
fn what_was_before_lost_entries_is_kept_until_the_chain_reaches_the_checkpoint_behind_them() {
    let mut archive = Archive::default();
    archive.round(&round(1, 5, 1), at(6, 3, 0)).unwrap();
    archive.checkpoint(&checkpoint(4, 4), at(7, 3, 0)).unwrap();
    archive.skip(&skip(), at(14, 3, 0)).unwrap();
    let begins = Beginning { first_lost: LogIndex(6), checkpoint: skip().checkpoint.reference };
    assert_eq!(archive.beginning(), Some(begins));
    assert_eq!((archive.restorable_end(), archive.basis()), (LogIndex(5), None));
    archive.round(&round(9, 11, 30), at(15, 3, 2 * HOUR)).unwrap();
    assert_eq!(archive.beginning(), None, "the chain has begun");
    assert_eq!(archive.restorable_end(), LogIndex(5), "but is not where it is of use");
    // The older checkpoint is old, and yet nothing of it may go.
    archive.removed(&[], at(16, 3, 3 * HOUR));
    let gone = |archive: &Archive| archive.collectable(9 * HOUR, 0, Incarnation(0), 99);
    assert_eq!(gone(&archive), []);
    archive.round(&round(12, 13, 40), at(17, 3, 3 * HOUR)).unwrap();
    assert_eq!(archive.restorable_end(), LogIndex(13));
    assert_eq!(archive.basis().unwrap().checkpoint, Some(skip().checkpoint));
    // A copy of a state of before would need rounds that a walk does not come to.
    let ignorant = CommittedCheckpoint { archived: LogIndex(3), ..checkpoint(13, 44) };
    assert_eq!(archive.checkpoint(&ignorant, at(18, 3, 3 * HOUR)), Err(Refused::BeforeSkip));
    archive.round(&round(14, 20, 50), at(22, 3, 3 * HOUR)).unwrap();
    archive.checkpoint(&checkpoint(19, 60), at(23, 3, 4 * HOUR)).unwrap();
    assert_eq!(gone(&archive), [], "that of the beginning is kept for its time, too");
    archive.removed(&[], at(24, 3, 6 * HOUR));
    assert!(gone(&archive).contains(&name(3, 2)), "the round before the hole");
    check_saved(&archive);
}
