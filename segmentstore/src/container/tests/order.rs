//! The order of tests of an append: every state of segment and writer against every block.

use common::{EventNumber, Offset};
use rstest::rstest;

use crate::operation::{Command, Operation};
use crate::outcome::{Outcome, Refusal};
use crate::testing::{Driver, HOUR, append, command, open, segment, session, successor, writer};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SegmentState {
    Absent,
    Open,
    Sealed,
    Deleted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriterState {
    Unknown,
    Open,
    Broken,
    Expired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    Duplicate,
    Continues,
    Gap,
    /// Begins before what is stored and ends behind it.
    Overlap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Unconditional,
    Matches,
    Differs,
}

/// A segment of 10 bytes whose writer, under session 5:5, has stored up to number 4.
fn state(segment_state: SegmentState, writer_state: WriterState) -> Driver {
    let mut driver = match segment_state {
        SegmentState::Absent => return Driver::new(),
        _ => Driver::with_segment(),
    };
    // Bytes of somebody else, so that a writer that is not known meets a length, too.
    driver.open(open(1, 9, session(1, 1), false)).unwrap();
    driver.append(append(1, 9, session(1, 1), (0, 1)), b"other");
    if writer_state != WriterState::Unknown {
        driver.open(open(1, 1, session(5, 5), false)).unwrap();
        driver.append(append(1, 1, session(5, 5), (0, 4)), b"mine.");
    }
    match writer_state {
        WriterState::Unknown | WriterState::Open => {}
        WriterState::Broken => {
            let broken = driver.append(append(1, 1, session(5, 5), (7, 9)), b"lost");
            assert!(matches!(broken, Outcome::Refused(_)));
        }
        WriterState::Expired => {
            driver.up += 2 * HOUR;
            driver.one(Operation::Expire(vec![(segment(1), writer(1))]), b"");
        }
    }
    match segment_state {
        SegmentState::Absent | SegmentState::Open => {}
        SegmentState::Sealed => {
            let (segment, successors) = (segment(1), vec![successor(2)]);
            driver.give(command(1, 2, 1), Command::Seal { segment, successors }).unwrap();
        }
        SegmentState::Deleted => {
            driver.give(command(1, 2, 1), Command::Delete { segment: segment(1) }).unwrap();
        }
    }
    driver
}

/// What the contract says, written as the list that it is.
fn contract(
    segment_state: SegmentState,
    writer_state: WriterState,
    attempt: u32,
    numbers: Numbers,
    expected: Expected,
) -> &'static str {
    let no_segment = matches!(segment_state, SegmentState::Absent | SegmentState::Deleted);
    if no_segment {
        return "not found";
    }
    if writer_state == WriterState::Unknown {
        return "broken";
    }
    if attempt < 5 {
        return "fenced";
    }
    if attempt > 5 {
        return "broken";
    }
    if writer_state == WriterState::Expired {
        return "expired";
    }
    if numbers == Numbers::Duplicate {
        return "duplicate";
    }
    if segment_state == SegmentState::Sealed {
        return "sealed";
    }
    if writer_state == WriterState::Broken || numbers != Numbers::Continues {
        return "broken";
    }
    if expected == Expected::Differs {
        return "mismatch";
    }
    "appended"
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Appended { .. } => "appended",
        Outcome::Duplicate { .. } => "duplicate",
        Outcome::Refused(refusal) => match **refusal {
            Refusal::SegmentNotFound { .. } => "not found",
            Refusal::WriterFenced { .. } => "fenced",
            Refusal::WriterExpired => "expired",
            Refusal::SegmentSealed { .. } => "sealed",
            Refusal::SessionBroken { .. } => "broken",
            Refusal::OffsetMismatch { .. } => "mismatch",
            _ => "something else",
        },
        _ => "something else",
    }
}

#[rstest]
fn every_append_meets_the_tests_in_their_order(
    #[values(
        SegmentState::Absent,
        SegmentState::Open,
        SegmentState::Sealed,
        SegmentState::Deleted
    )]
    segment_state: SegmentState,
    #[values(WriterState::Unknown, WriterState::Open, WriterState::Broken, WriterState::Expired)]
    writer_state: WriterState,
) {
    for attempt in [4, 5, 6] {
        for numbers in [Numbers::Duplicate, Numbers::Continues, Numbers::Gap, Numbers::Overlap] {
            for expected in [Expected::Unconditional, Expected::Matches, Expected::Differs] {
                let mut driver = state(segment_state, writer_state);
                let before = driver.machine.view(segment(1)).map(|view| view.bounds);
                let chain = match numbers {
                    Numbers::Duplicate => (2, 4),
                    Numbers::Continues => (4, 6),
                    Numbers::Gap => (5, 6),
                    Numbers::Overlap => (3, 6),
                };
                let mut block = append(1, 1, session(5, attempt), chain);
                let length = before.map_or(Offset(0), |bounds| bounds.length);
                block.expected_offset = match expected {
                    Expected::Unconditional => None,
                    Expected::Matches => Some(length),
                    Expected::Differs => Some(length.plus(1)),
                };
                let outcome = driver.append(block, b"12345");
                let wanted = contract(segment_state, writer_state, attempt, numbers, expected);
                let case = format!(
                    "{segment_state:?} {writer_state:?} {attempt} {numbers:?} {expected:?}"
                );
                assert_eq!(name(&outcome), wanted, "{case}: {outcome:?}");
                let after = driver.machine.view(segment(1)).map(|view| view.bounds);
                if wanted == "appended" {
                    let wanted = (length.plus(5), EventNumber(6));
                    assert_eq!(after.unwrap().length, wanted.0, "{case}");
                    let (length, last_number) = wanted;
                    assert_eq!(outcome, Outcome::Appended { last_number, length }, "{case}");
                } else {
                    assert_eq!(before, after, "{case}: a refusal changed the segment");
                }
            }
        }
    }
}

#[test]
fn a_refusal_tells_what_the_client_needs_to_go_on() {
    let last_number = EventNumber(4);
    let length = Offset(10);
    let block = append(1, 1, session(5, 5), (4, 6));
    let refusal = |mut driver: Driver, block| match driver.append(block, b"x") {
        Outcome::Refused(refusal) => *refusal,
        other => panic!("{other:?}"),
    };
    let open_state = || state(SegmentState::Open, WriterState::Open);
    let fenced = refusal(open_state(), append(1, 1, session(5, 4), (4, 6)));
    assert_eq!(fenced, Refusal::WriterFenced { current: session(5, 5) });
    let broken = refusal(open_state(), append(1, 1, session(5, 5), (5, 6)));
    assert_eq!(broken, Refusal::SessionBroken { last_number, length });
    let expected = Offset(11);
    let conditional = crate::Append { expected_offset: Some(expected), ..block };
    let mismatch = refusal(open_state(), conditional);
    assert_eq!(mismatch, Refusal::OffsetMismatch { expected, length, last_number });
    let sealed = refusal(state(SegmentState::Sealed, WriterState::Open), block);
    let successors = [successor(2)].into();
    assert_eq!(sealed, Refusal::SegmentSealed { last_number, length, successors });
}

#[test]
fn successors_are_told_to_the_current_session_only() {
    let mut driver = state(SegmentState::Sealed, WriterState::Open);
    let stale = driver.append(append(1, 1, session(4, 9), (4, 6)), b"x");
    assert_eq!(name(&stale), "fenced");
    driver.open(open(1, 1, session(6, 1), false)).unwrap();
    let fenced = driver.append(append(1, 1, session(5, 5), (4, 6)), b"x");
    assert_eq!(name(&fenced), "fenced");
}

#[test]
fn after_a_break_nothing_is_stored_until_the_next_open() {
    let mut driver = state(SegmentState::Open, WriterState::Broken);
    let continuing = append(1, 1, session(5, 5), (4, 6));
    assert_eq!(name(&driver.append(continuing, b"x")), "broken");
    let duplicate = append(1, 1, session(5, 5), (2, 3));
    assert_eq!(name(&driver.append(duplicate, b"x")), "duplicate");
    assert_eq!(name(&driver.append(continuing, b"x")), "broken");
    let opened = driver.open(open(1, 1, session(5, 6), true)).unwrap();
    assert_eq!(opened.last_number, EventNumber(4));
    let again = append(1, 1, session(5, 6), (4, 6));
    assert_eq!(name(&driver.append(again, b"x")), "appended");
}

#[test]
fn a_wrong_offset_leaves_the_number_and_breaks_what_is_behind() {
    let mut driver = state(SegmentState::Open, WriterState::Open);
    let wrong =
        crate::Append { expected_offset: Some(Offset(3)), ..append(1, 1, session(5, 5), (4, 6)) };
    assert_eq!(name(&driver.append(wrong, b"x")), "mismatch");
    assert_eq!(name(&driver.append(append(1, 1, session(5, 5), (6, 8)), b"x")), "broken");
    assert_eq!(name(&driver.append(append(1, 1, session(5, 5), (4, 8)), b"x")), "broken");
    assert_eq!(driver.open(open(1, 1, session(5, 6), true)).unwrap().last_number.0, 4);
}

#[test]
fn a_lost_block_between_two_pipelined_ones_cannot_lose_or_double_an_event() {
    let mut driver = state(SegmentState::Open, WriterState::Open);
    // (4, 6) was lost with its proposal.
    assert_eq!(name(&driver.append(append(1, 1, session(5, 5), (6, 8)), b"78")), "broken");
    driver.open(open(1, 1, session(5, 6), true)).unwrap();
    // The client sends again in other blocks; a late one of the old connection comes between.
    assert_eq!(name(&driver.append(append(1, 1, session(5, 6), (4, 7)), b"567")), "appended");
    assert_eq!(name(&driver.append(append(1, 1, session(5, 5), (4, 6)), b"56")), "fenced");
    assert_eq!(name(&driver.append(append(1, 1, session(5, 6), (7, 8)), b"8")), "appended");
    assert_eq!(driver.bytes_of(1).1, b"othermine.5678");
}
