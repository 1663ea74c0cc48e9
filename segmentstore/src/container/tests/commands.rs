//! Commands of the controller: fences, idempotence, and what each leaves behind.

use bytes::Bytes;
use common::{ByteSize, LogIndex, Offset, WallTime};
use replica::StateMachine;

use crate::identity::{AttributeUpdate, Expected};
use crate::operation::{Command, Operation};
use crate::outcome::{Done, Outcome, Refusal};
use crate::settings::Settings;
use crate::testing::{
    Driver, SECOND, append, command, identity, open, segment, session, successor, writer,
};

fn seal(number: u32) -> Command {
    Command::Seal { segment: segment(1), successors: vec![successor(number)] }
}

fn truncate(offset: u64) -> Command {
    Command::Truncate { segment: segment(1), offset: Offset(offset) }
}

/// Ten blocks of ten bytes, one entry each, the first at log index 3.
fn written() -> Driver {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 1, session(1, 1), false)).unwrap();
    for block in 0..10 {
        driver.wall += SECOND;
        driver.append(append(1, 1, session(1, 1), (block, block + 1)), &[block as u8; 10]);
    }
    driver
}

#[test]
fn a_command_under_an_older_fence_is_refused_whatever_it_is() {
    let mut driver = Driver::with_segment();
    driver.give(command(7, 2, 1), truncate(0)).unwrap();
    let newest = command(7, 0, 0).fence;
    let commands = [
        Command::Create(Box::new(identity(1))),
        Command::Create(Box::new(identity(2))),
        seal(2),
        truncate(0),
        Command::Delete { segment: segment(1) },
        Command::Forget { segment: segment(1) },
        Command::UpdateAttributes { segment: segment(1), updates: vec![] },
    ];
    for order in commands {
        let refused = driver.give(command(6, 9, 9), order.clone()).unwrap_err();
        assert_eq!(refused, Refusal::StaleFence { newest }, "{order:?}");
    }
    assert_eq!(driver.machine.fence(), newest);
    driver.give(command(7, 3, 1), seal(2)).unwrap();
}

#[test]
fn every_command_given_again_is_answered_the_same_and_changes_nothing() {
    let mut driver = written();
    let steps = [
        (Command::Create(Box::new(identity(1))), Done::Created),
        (truncate(15), Done::Truncated { start_offset: Offset(15) }),
        (seal(2), Done::Sealed { length: Offset(100) }),
        (Command::Delete { segment: segment(1) }, Done::Deleted),
        (Command::Forget { segment: segment(1) }, Done::Forgotten),
    ];
    for (step, (order, answer)) in (1..).zip(steps) {
        for fence in [3, 3, 4] {
            let done = driver.give(command(fence, 5, step), order.clone());
            // A later fence gives the command again; then the next steps come under it.
            driver.machine.fence = command(3, 0, 0).fence;
            assert_eq!(done, Ok(answer), "{order:?}");
        }
    }
    let deleted = driver.give(command(4, 6, 1), Command::Delete { segment: segment(1) });
    assert_eq!(deleted, Ok(Done::Deleted), "never known or forgotten is as good as deleted");
}

#[test]
fn what_contradicts_an_earlier_command_is_refused() {
    let mut driver = written();
    let mut other = identity(1);
    other.predecessors = vec![segment(9)];
    let refused = driver.give(command(1, 3, 1), Command::Create(Box::new(other))).unwrap_err();
    assert_eq!(refused, Refusal::SegmentExists { segment: segment(1) });
    driver.give(command(1, 3, 2), seal(2)).unwrap();
    let refused = driver.give(command(1, 3, 3), seal(3)).unwrap_err();
    assert_eq!(refused, Refusal::SealedOtherwise { segment: segment(1) });
    let refused = driver.give(command(1, 3, 4), truncate(101)).unwrap_err();
    assert_eq!(refused, Refusal::OutOfRange { offset: Offset(101), length: Offset(100) });
    let refused = driver.give(command(1, 3, 5), Command::Forget { segment: segment(1) });
    assert_eq!(refused, Err(Refusal::NotDeleted { segment: segment(1) }));
    driver.give(command(1, 3, 6), Command::Delete { segment: segment(1) }).unwrap();
    for order in [truncate(1), seal(2), Command::Create(Box::new(identity(1)))] {
        let refused = driver.give(command(1, 3, 7), order).unwrap_err();
        assert_eq!(refused, Refusal::SegmentNotFound { segment: segment(1) });
    }
}

#[test]
fn truncation_and_deletion_let_the_log_go() {
    let mut driver = written();
    assert_eq!(driver.machine.oldest_live_index(), Some(LogIndex(3)));
    driver.give(command(1, 2, 1), truncate(9)).unwrap();
    assert_eq!(driver.machine.oldest_live_index(), Some(LogIndex(3)));
    driver.give(command(1, 2, 2), truncate(35)).unwrap();
    assert_eq!(driver.machine.oldest_live_index(), Some(LogIndex(6)));
    assert_eq!(driver.bytes_of(1).1[..7], [3, 3, 3, 3, 3, 4, 4]);
    driver.give(command(1, 2, 3), truncate(100)).unwrap();
    assert_eq!(driver.machine.oldest_live_index(), None);
    driver.append(append(1, 1, session(1, 1), (10, 11)), b"more");
    assert_eq!(driver.machine.oldest_live_index(), Some(LogIndex(driver.index)));
    driver.give(command(1, 2, 4), Command::Delete { segment: segment(1) }).unwrap();
    assert_eq!(driver.machine.oldest_live_index(), None);
}

#[test]
fn what_was_truncated_or_deleted_leaves_memory_as_the_oldest_of_all() {
    let limit = 10_000;
    let settings = Settings { tail_cache: ByteSize(limit as u64), ..Settings::default() };
    let mut driver = Driver::with(&settings);
    for number in [1, 2] {
        let create = Command::Create(Box::new(identity(number)));
        driver.give(command(1, 1, number), create).unwrap();
        driver.open(open(number, 1, session(1, 1), false)).unwrap();
    }
    let block = |number, at| {
        Operation::Append(append(number, 1, session(1, 1), (u64::from(at), u64::from(at) + 1)))
    };
    let tail = driver.machine.memory.tail.clone();
    // Both segments share each entry; the first is truncated at once, over and over.
    for at in 0..2_000 {
        driver.entry(&[(block(1, at), &[1; 400]), (block(2, at), &[2; 100])]);
        let before = tail.content();
        driver.give(command(1, 2, 1 + at), truncate(400 * (u64::from(at) + 1))).unwrap();
        assert_eq!(tail.content(), before, "the entry is kept whole by its other piece");
        let (pieces, bytes) = tail.content();
        assert!(bytes <= limit && pieces <= limit / 100, "{pieces} pieces of {bytes} bytes");
    }
    assert_eq!(driver.bytes_of(1).1, b"");
    driver.give(command(1, 3, 1), Command::Delete { segment: segment(1) }).unwrap();
    driver.give(command(1, 3, 2), Command::Forget { segment: segment(1) }).unwrap();
    assert!(tail.content().1 <= limit);
    for at in 2_000..2_100 {
        driver.entry(&[(block(2, at), &[2; 100])]);
    }
    let pieces = |shared: &crate::shared::SegmentShared| shared.lock().tail_pieces();
    let left = pieces(&driver.machine.view(segment(2)).unwrap().shared);
    assert_eq!(tail.content().0, left, "nothing of the deleted segment is left");
}

#[test]
fn the_time_index_finds_where_a_time_begins() {
    let mut driver = written();
    let first = driver.wall - 9 * SECOND;
    let find = |driver: &Driver, time| driver.machine.find_offset(segment(1), WallTime(time));
    assert_eq!(find(&driver, 0), Some(Offset(0)));
    assert_eq!(find(&driver, first + 3 * SECOND), Some(Offset(30)));
    assert_eq!(find(&driver, driver.wall + 1), Some(Offset(100)));
    driver.give(command(1, 2, 1), truncate(55)).unwrap();
    assert_eq!(find(&driver, 0), Some(Offset(55)));
    assert_eq!(driver.machine.find_offset(segment(9), WallTime(0)), None);
}

#[test]
fn attributes_change_all_or_none_and_a_retry_does_nothing() {
    let mut driver = Driver::with_segment();
    let bytes = Bytes::from_static;
    let update = |name, expected, value: Option<&'static [u8]>| AttributeUpdate {
        name: bytes(name),
        expected,
        value: value.map(bytes),
    };
    let change = |updates| Command::UpdateAttributes { segment: segment(1), updates };
    let first = change(vec![update(b"a", Expected::Absent, Some(b"1"))]);
    for _ in 0..2 {
        assert_eq!(driver.give(command(1, 2, 1), first.clone()), Ok(Done::AttributesUpdated));
    }
    let refused = driver.give(command(1, 2, 2), first).unwrap_err();
    assert_eq!(refused, Refusal::AttributeMismatch { name: "a".to_owned() });
    let half = change(vec![
        update(b"b", Expected::Anything, Some(b"2")),
        update(b"a", Expected::Value(bytes(b"7")), None),
    ]);
    driver.give(command(1, 2, 3), half).unwrap_err();
    let whole = change(vec![
        update(b"b", Expected::Anything, Some(b"2")),
        update(b"a", Expected::Value(bytes(b"1")), None),
    ]);
    driver.give(command(1, 2, 4), whole).unwrap();
    let attributes = driver.machine.view(segment(1)).unwrap().attributes;
    assert_eq!(attributes.into_iter().collect::<Vec<_>>(), [(bytes(b"b"), bytes(b"2"))]);
    let many = (0..65_u8)
        .map(|i| AttributeUpdate {
            name: Bytes::copy_from_slice(&[i]),
            expected: Expected::Anything,
            value: Some(Bytes::new()),
        })
        .collect::<Vec<_>>();
    driver.give(command(1, 2, 5), change(many[..63].to_vec())).unwrap();
    let refused = driver.give(command(1, 2, 6), change(many[63..].to_vec())).unwrap_err();
    assert_eq!(refused, Refusal::TooManyAttributes { max: 64 });
}

#[test]
fn blocks_of_one_segment_in_one_entry_become_one_extent() {
    let mut driver = Driver::with_segment();
    driver.give(command(1, 1, 2), Command::Create(Box::new(identity(2)))).unwrap();
    for number in [1, 2] {
        driver.open(open(number, 1, session(1, 1), false)).unwrap();
    }
    let block = |number, numbers| Operation::Append(append(number, 1, session(1, 1), numbers));
    let outcomes = driver.entry(&[
        (block(1, (0, 2)), b"ab"),
        (block(1, (2, 3)), b"c"),
        (block(2, (0, 1)), b"zz"),
        (block(1, (3, 4)), b"d"),
    ]);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Appended { .. })));
    assert_eq!(driver.bytes_of(1).1, b"abcd");
    let view = driver.machine.view(segment(1)).unwrap();
    assert_eq!(view.shared.lock().extents.items().len(), 2);
    assert_eq!(driver.machine.due_writers(u64::MAX, 9).len(), 2);
    assert_eq!(driver.machine.due_writers(u64::MAX, 1), [(segment(1), writer(1))]);
}

#[test]
fn an_unknown_operation_stops_the_machine_instead_of_being_skipped() {
    let mut driver = Driver::with_segment();
    let (context, payload) =
        replica::envelope::encode(replica::Stamp::default(), &[(&[1, 99], b"")]);
    let entry = replica::Entry::decode(
        common::GroupId(2),
        LogIndex(9),
        common::Term(1),
        &context,
        &payload,
    )
    .unwrap();
    let stopped = driver.machine.apply(&entry, &mut Vec::new()).unwrap_err();
    assert!(stopped.to_string().contains("newer"), "{stopped}");
}
