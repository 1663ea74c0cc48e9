//! `Open`: which session is current, and what it is told.

use common::limits::WRITERS_PER_SEGMENT_MAX;
use common::{EventNumber, Offset};

use crate::operation::{Command, Open, OpenSegment, Operation};
use crate::outcome::{Opened, Outcome, Refusal};
use crate::testing::{
    Driver, append, command, identity, open, segment, session, successor, writer,
};

#[test]
fn an_open_raises_the_session_and_tells_what_is_stored() {
    let mut driver = Driver::with_segment();
    let opened = driver.open(open(1, 1, session(1, 1), false)).unwrap();
    let nothing = Opened { last_number: EventNumber(0), length: Offset(0), successors: None };
    assert_eq!(opened, nothing);
    driver.append(append(1, 1, session(1, 1), (0, 3)), b"abc");
    let opened = driver.open(open(1, 1, session(1, 2), true)).unwrap();
    assert_eq!((opened.last_number, opened.length), (EventNumber(3), Offset(3)));
}

#[test]
fn every_open_needs_a_new_attempt_or_a_higher_epoch() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 1, session(2, 2), false)).unwrap();
    for stale in [session(2, 2), session(2, 1), session(1, 9)] {
        let refused = driver.open(open(1, 1, stale, false)).unwrap_err();
        assert_eq!(refused, Refusal::WriterFenced { current: session(2, 2) }, "{stale}");
    }
    driver.open(open(1, 1, session(2, 3), false)).unwrap();
    driver.open(open(1, 1, session(3, 0), false)).unwrap();
}

#[test]
fn resuming_where_nothing_is_remembered_is_told_and_never_guessed_for() {
    let mut driver = Driver::with_segment();
    let expired = driver.open(open(1, 1, session(1, 1), true)).unwrap_err();
    assert_eq!(expired, Refusal::WriterExpired);
    driver.open(open(1, 1, session(1, 2), false)).unwrap();
}

#[test]
fn one_entry_opens_many_segments_and_answers_for_each() {
    let mut driver = Driver::with_segment();
    driver.give(command(1, 1, 2), Command::Create(Box::new(identity(2)))).unwrap();
    let (sealed, successors) = (segment(2), vec![successor(3)]);
    driver.give(command(1, 2, 1), Command::Seal { segment: sealed, successors }).unwrap();
    let of = |number| OpenSegment { segment: segment(number), resuming: false };
    let operation = Operation::Open(Open {
        writer: writer(1),
        session: session(1, 1),
        named: true,
        segments: vec![of(1), of(2), of(8)],
    });
    let Outcome::Opened(answers) = driver.one(operation, b"") else { panic!("opened") };
    assert!(answers[0].as_ref().unwrap().successors.is_none());
    assert_eq!(answers[1].as_ref().unwrap().successors.as_deref(), Some(&[successor(3)][..]));
    assert_eq!(answers[2], Err(Refusal::SegmentNotFound { segment: segment(8) }));
}

#[test]
fn a_deleted_segment_without_successors_opens_for_nobody() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 1, session(1, 1), false)).unwrap();
    driver.give(command(1, 2, 1), Command::Delete { segment: segment(1) }).unwrap();
    let refused = driver.open(open(1, 1, session(1, 2), true)).unwrap_err();
    assert_eq!(refused, Refusal::SegmentNotFound { segment: segment(1) });
}

#[test]
fn the_tombstone_of_a_scaled_segment_tells_what_it_stored_and_what_follows_it() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 1, session(1, 1), false)).unwrap();
    driver.append(append(1, 1, session(1, 1), (0, 7)), b"seven");
    let successors = vec![successor(3)];
    driver.give(command(1, 2, 1), Command::Seal { segment: segment(1), successors }).unwrap();
    driver.give(command(1, 3, 1), Command::Delete { segment: segment(1) }).unwrap();

    let known = driver.open(open(1, 1, session(2, 1), false)).unwrap();
    assert_eq!(known.last_number, EventNumber(7));
    assert_eq!(known.successors.as_deref(), Some(&[successor(3)][..]));
    // Successors are told to the current session only.
    let fenced = driver.open(open(1, 1, session(1, 9), false)).unwrap_err();
    assert_eq!(fenced, Refusal::WriterFenced { current: session(2, 1) });

    let stranger = driver.open(open(1, 2, session(1, 1), false)).unwrap();
    assert_eq!((stranger.last_number, stranger.successors.is_some()), (EventNumber(0), true));
    assert_eq!(driver.machine.segments[&segment(1)].writers.len(), 1, "a stranger leaves no trace");
    let forgotten = driver.open(open(1, 2, session(1, 2), true)).unwrap_err();
    assert_eq!(forgotten, Refusal::WriterExpired);
}

#[test]
fn a_segment_remembers_so_many_writers_and_no_more() {
    let mut driver = Driver::with_segment();
    for who in 0..WRITERS_PER_SEGMENT_MAX as u128 {
        let operation = Open {
            writer: writer(who + 1_000),
            session: session(1, 1),
            named: false,
            segments: vec![OpenSegment { segment: segment(1), resuming: false }],
        };
        driver.machine.open(&operation);
    }
    let refused = driver.open(open(1, 1, session(1, 1), false)).unwrap_err();
    assert_eq!(refused, Refusal::TooManyWriters { count: WRITERS_PER_SEGMENT_MAX });
    driver.open(open(1, 1_000, session(1, 2), false)).unwrap();
}
