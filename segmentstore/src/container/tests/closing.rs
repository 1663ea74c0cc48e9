//! Close, the session numbers that it leaves, and the limits of both tables.

use common::limits::WRITERS_PER_SEGMENT_MAX;
use common::{EventNumber, WriterEpoch};

use crate::limits::{STUBS_PER_SEGMENT_MAX, SURPLUS_STUBS_PER_STUB};
use crate::operation::{Command, Operation};
use crate::outcome::{Outcome, Refusal};
use crate::testing::{
    Driver, HOUR, SECOND, append, close, command, open, segment, session, successor, writer,
};

fn counts(driver: &Driver) -> (usize, usize) {
    let writers = &driver.machine.segments[&segment(1)].writers;
    (writers.len(), writers.stub_count())
}

fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => *refusal,
        other => panic!("{other:?}"),
    }
}

/// Opens, stores one event and closes.
fn short_lived(driver: &mut Driver, who: u128) {
    driver.open(open(1, who, session(1, 1), false)).unwrap();
    driver.append(append(1, who, session(1, 1), (0, 1)), b"a");
    driver.one(close(1, who, session(1, 1)), b"");
}

fn delete_writer(driver: &mut Driver, who: u128, epoch: u64) {
    let delete = Command::DeleteWriter {
        segment: segment(1),
        writer: writer(who),
        epoch: WriterEpoch(epoch),
    };
    driver.give(command(1, 7, 1), delete).unwrap();
}

#[test]
fn a_closed_writer_leaves_its_session_number_which_refuses_what_is_still_on_its_way() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 1, session(1, 1), false)).unwrap();
    driver.append(append(1, 1, session(1, 1), (0, 3)), b"abc");
    // The connection breaks, a new one resumes and closes; the old one's messages come late.
    driver.open(open(1, 1, session(1, 2), true)).unwrap();
    assert_eq!(driver.one(close(1, 1, session(1, 2)), b""), Outcome::Closed);
    assert_eq!(counts(&driver), (0, 1));
    for attempt in [1, 2] {
        let late = driver.open(open(1, 1, session(1, attempt), false)).unwrap_err();
        assert_eq!(late, Refusal::WriterFenced { current: session(1, 2) });
    }
    let late = refusal(driver.append(append(1, 1, session(1, 1), (0, 3)), b"abc"));
    assert_eq!(late, Refusal::WriterFenced { current: session(1, 2) });
    let late = refusal(driver.append(append(1, 1, session(1, 2), (0, 3)), b"abc"));
    assert_eq!(late, Refusal::WriterExpired);
    let resumed = driver.open(open(1, 1, session(1, 3), true)).unwrap_err();
    assert_eq!(resumed, Refusal::WriterExpired);
    assert_eq!(driver.bytes_of(1).1, b"abc");
    // Anew, under a higher session, it may begin.
    let anew = driver.open(open(1, 1, session(1, 3), false)).unwrap();
    assert_eq!((anew.last_number, counts(&driver)), (EventNumber(0), (1, 0)));
}

#[test]
fn a_close_that_comes_late_ends_no_later_session_and_none_of_a_named_writer() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 1, session(1, 1), false)).unwrap();
    driver.open(open(1, 1, session(1, 2), false)).unwrap();
    driver.open(open(1, 100, session(1, 1), false)).unwrap();
    driver.one(close(1, 1, session(1, 1)), b"");
    driver.one(close(1, 100, session(1, 1)), b"");
    driver.one(close(1, 9, session(1, 1)), b"");
    assert_eq!(counts(&driver), (2, 0));
    driver.append(append(1, 1, session(1, 2), (0, 1)), b"a");
    assert_eq!(driver.bytes_of(1).1, b"a");
}

#[test]
fn session_numbers_go_oldest_first_beyond_their_bound_and_none_younger_than_ten_seconds() {
    let mut driver = Driver::with_segment();
    let bound = STUBS_PER_SEGMENT_MAX as u128;
    let first = 1_000_u128;
    for who in 0..bound + 100 {
        short_lived(&mut driver, first + who);
    }
    assert_eq!(counts(&driver), (0, bound as usize + 100), "all are young");
    driver.up += 10 * SECOND - 1;
    short_lived(&mut driver, 1);
    assert_eq!(counts(&driver), (0, bound as usize + 101), "all are young still");
    let late = driver.open(open(1, first, session(1, 1), false)).unwrap_err();
    assert_eq!(late, Refusal::WriterFenced { current: session(1, 1) });

    driver.up += 1;
    short_lived(&mut driver, 2);
    assert_eq!(counts(&driver), (0, bound as usize + 102 - SURPLUS_STUBS_PER_STUB));
    let table = &driver.machine.segments[&segment(1)].writers;
    let gone = |who| table.trace(writer(who)).is_none();
    let oldest: Vec<bool> = (0..6).map(|at| gone(first + at)).collect();
    assert_eq!(oldest, [true, true, true, true, false, false]);
    assert!(!gone(1) && !gone(2), "the youngest stay");

    // The leader takes the rest of the surplus without waiting for its hour.
    let due = driver.machine.due_writers(driver.up, 1_000);
    assert_eq!(due.len(), 98);
    driver.one(Operation::Expire(due), b"");
    assert_eq!(counts(&driver), (0, bound as usize));
    assert!(driver.machine.due_writers(driver.up, 9).is_empty());
    assert_eq!(driver.machine.due_writers(driver.up + HOUR, usize::MAX).len(), bound as usize);
}

#[test]
fn a_hundred_thousand_short_lived_writers_leave_a_segment_that_new_ones_can_use() {
    let mut driver = Driver::with_segment();
    for who in 0..WRITERS_PER_SEGMENT_MAX as u128 {
        driver.up += SECOND / 2_000;
        short_lived(&mut driver, who + 1_000);
    }
    let (writers, stubs) = counts(&driver);
    assert_eq!(writers, 0);
    // Those of the last ten seconds.
    assert!(stubs <= 20_000, "{stubs}");
    short_lived(&mut driver, 1);
}

#[test]
fn at_the_limit_the_anonymous_writer_that_was_not_used_for_longest_makes_room() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 100, session(1, 1), false)).unwrap();
    driver.append(append(1, 100, session(1, 1), (0, 1)), b"n");
    for who in 1..WRITERS_PER_SEGMENT_MAX as u128 {
        driver.up += 10;
        driver.open(open(1, who + 1_000, session(1, 1), false)).unwrap();
    }
    // The first is used again, so soon that its place in the queue does not follow.
    driver.append(append(1, 1_001, session(1, 1), (0, 1)), b"a");
    driver.save();
    let mut twin = Driver { machine: driver.restored(), ..Driver::new() };
    (twin.up, twin.wall, twin.index) = (driver.up, driver.wall, driver.index);
    for machine in [&mut driver, &mut twin] {
        machine.open(open(1, 1, session(1, 1), false)).unwrap();
        assert_eq!(counts(machine), (WRITERS_PER_SEGMENT_MAX, 1));
        let table = &machine.machine.segments[&segment(1)].writers;
        assert!(table.stub(writer(1_002)).is_some(), "unused for longest");
        assert!(table.get(writer(1_001)).is_some() && table.get(writer(100)).is_some());
    }
    // Its place may be taken; what it has in flight is not stored, and it is told.
    let gone = refusal(driver.append(append(1, 1_002, session(1, 1), (0, 1)), b"x"));
    assert!(matches!(gone, Refusal::SessionBroken { .. }), "{gone:?}");
}

#[test]
fn where_named_writers_with_stored_events_take_all_places_a_new_one_is_refused() {
    let mut driver = Driver::with_segment();
    for who in 0..WRITERS_PER_SEGMENT_MAX as u128 {
        let Operation::Open(mut named) = open(1, who + 1_000, session(1, 1), false) else {
            unreachable!("an open")
        };
        named.named = true;
        driver.one(Operation::Open(named), b"");
        driver.append(append(1, who + 1_000, session(1, 1), (0, 1)), b"a");
    }
    driver.up += 1_000 * HOUR;
    for new in [1, 100] {
        let refused = driver.open(open(1, new, session(1, 1), false)).unwrap_err();
        assert_eq!(refused, Refusal::TooManyWriters { count: WRITERS_PER_SEGMENT_MAX });
    }
    driver.open(open(1, 1_000, session(1, 2), true)).unwrap();
    delete_writer(&mut driver, 1_000, 2);
    driver.open(open(1, 100, session(1, 1), false)).unwrap();
}

#[test]
fn a_deleted_name_is_fenced_in_open_sealed_and_deleted_segments_and_begins_anew_above() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 100, session(4, 1), false)).unwrap();
    driver.append(append(1, 100, session(4, 1), (0, 3)), b"abc");
    delete_writer(&mut driver, 100, 5);
    delete_writer(&mut driver, 100, 5);
    // A name that the segment does not know yet is fenced, too: an open of it may be on its way.
    delete_writer(&mut driver, 101, 5);
    assert_eq!(counts(&driver), (0, 2));
    for who in [100, 101] {
        let old = driver.open(open(1, who, session(4, 9), false)).unwrap_err();
        assert_eq!(old, Refusal::WriterFenced { current: session(5, 0) });
    }
    let old = refusal(driver.append(append(1, 100, session(4, 1), (3, 4)), b"d"));
    assert_eq!(old, Refusal::WriterFenced { current: session(5, 0) });
    let anew = driver.open(open(1, 100, session(6, 1), false)).unwrap();
    assert_eq!(anew.last_number, EventNumber(0));
    // The job's step comes again, late: the new life of the name goes on.
    driver.append(append(1, 100, session(6, 1), (0, 1)), b"d");
    delete_writer(&mut driver, 100, 5);
    assert_eq!(driver.open(open(1, 100, session(6, 2), true)).unwrap().last_number.0, 1);

    let successors = vec![successor(3)];
    driver.give(command(1, 8, 1), Command::Seal { segment: segment(1), successors }).unwrap();
    driver.give(command(1, 8, 2), Command::Delete { segment: segment(1) }).unwrap();
    delete_writer(&mut driver, 100, 9);
    delete_writer(&mut driver, 102, 9);
    assert_eq!(counts(&driver), (0, 2), "of 102 nothing was known, and nothing comes any more");
    let anew = driver.open(open(1, 100, session(10, 1), false)).unwrap();
    assert_eq!(anew.last_number, EventNumber(0));
}

#[test]
fn the_bytes_of_the_writer_tables_are_counted_until_the_container_is_gone() {
    let mut driver = Driver::with_segment();
    let metrics = driver.machine.memory.metrics();
    let bytes = || metrics.writer_table_bytes.get();
    assert_eq!(bytes(), 0);
    driver.open(open(1, 1, session(1, 1), false)).unwrap();
    let entry = bytes();
    assert!(entry > 100, "{entry}");
    driver.open(open(1, 1, session(1, 2), false)).unwrap();
    assert_eq!(bytes(), entry);
    driver.one(close(1, 1, session(1, 2)), b"");
    let stub = bytes();
    assert!((50..entry).contains(&stub), "{stub}");
    driver.up += HOUR;
    let due = driver.machine.due_writers(driver.up, 9);
    driver.one(Operation::Expire(due), b"");
    assert_eq!(bytes(), 0);
    short_lived(&mut driver, 2);
    driver.open(open(1, 3, session(1, 1), false)).unwrap();
    assert_eq!(bytes(), entry + stub);
    driver.machine = Driver::new().machine;
    assert_eq!(bytes(), 0);
}
