//! `Open`: which session is current, and what it is told.

use common::{EventNumber, Offset};
use replica::StateMachine;

use crate::operation::{Append, Command, EventSum, Open, OpenSegment, Operation};
use crate::outcome::{Opened, Outcome, Refusal};
use crate::testing::{
    Driver, append, close, command, identity, open, segment, session, successor, writer,
};

#[test]
fn an_open_raises_the_session_and_tells_what_is_stored() {
    let mut driver = Driver::with_segment();
    let opened = driver.open(open(1, 1, session(1, 1), false)).unwrap();
    let nothing = Opened {
        last_number: EventNumber(0),
        sum: EventSum::default(),
        length: Offset(0),
        successors: None,
    };
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
    let absent = driver.open(open(1, 1, session(1, 1), true)).unwrap_err();
    assert_eq!(absent, Refusal::WriterAbsent);
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
    assert_eq!(forgotten, Refusal::WriterAbsent);
}

#[test]
fn a_sealed_segment_tells_a_stranger_what_follows_it_and_keeps_no_trace_of_him() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 1, session(1, 1), false)).unwrap();
    driver.open(open(1, 2, session(1, 1), false)).unwrap();
    driver.append(append(1, 1, session(1, 1), (0, 7)), b"seven");
    driver.one(close(1, 2, session(1, 1)), b"");
    let successors = vec![successor(3)];
    driver.give(command(1, 2, 1), Command::Seal { segment: segment(1), successors }).unwrap();
    driver.save();

    for stranger in [2, 3] {
        let opened = driver.open(open(1, stranger, session(1, 2), false)).unwrap();
        assert_eq!((opened.last_number, opened.successors.is_some()), (EventNumber(0), true));
    }
    let absent = driver.open(open(1, 3, session(1, 3), true)).unwrap_err();
    assert_eq!(absent, Refusal::WriterAbsent);
    let writers = &driver.machine.segments[&segment(1)].writers;
    assert_eq!((writers.len(), writers.stub_count()), (1, 1));
    assert!(driver.machine.freeze_whole().is_empty(), "nothing changed");
    // Whom it knows it goes on to know, under the newest session.
    let known = driver.open(open(1, 1, session(1, 2), true)).unwrap();
    assert_eq!(known.last_number, EventNumber(7));
    let fenced = driver.open(open(1, 1, session(1, 2), true)).unwrap_err();
    assert_eq!(fenced, Refusal::WriterFenced { current: session(1, 2) });
}

#[test]
fn a_segment_gives_back_the_sum_of_the_block_that_it_stored_last_also_when_sealed_or_deleted() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 100, session(1, 1), false)).unwrap();
    let sum = |sum, after| EventSum { sum, after: EventNumber(after) };
    let summed = |numbers, sum| Append { sum, ..append(1, 100, session(1, 1), numbers) };
    driver.append(summed((0, 3), sum(7, 1)), b"abc");
    driver.append(summed((3, 5), sum(9, 2)), b"de");
    // What is not stored changes nothing: a duplicate, and a block that does not follow.
    driver.append(summed((3, 5), sum(11, 3)), b"de");
    driver.append(summed((6, 8), sum(12, 3)), b"gh");
    let opened = driver.open(open(1, 100, session(1, 2), true)).unwrap();
    assert_eq!((opened.last_number, opened.sum), (EventNumber(5), sum(9, 2)));
    let successors = vec![successor(3)];
    driver.give(command(1, 2, 1), Command::Seal { segment: segment(1), successors }).unwrap();
    let sealed = driver.open(open(1, 100, session(1, 3), true)).unwrap();
    driver.give(command(1, 3, 1), Command::Delete { segment: segment(1) }).unwrap();
    driver.save();
    driver.machine = driver.restored();
    let tombstone = driver.open(open(1, 100, session(1, 4), true)).unwrap();
    assert_eq!((sealed.sum, tombstone.sum), (sum(9, 2), sum(9, 2)));
}
