//! The saved state keeps its bytes.

use common::{EventNumber, Offset, WallTime, WriterEpoch};
use replica::StateMachine;

use crate::container::{ContainerMachine, Memory};
use crate::identity::{AttributeUpdate, Expected};
use crate::operation::{Command, EventSum};
use crate::settings::Settings;
use crate::testing::{
    CONTAINER, Driver, SECOND, append, command, open, segment, session, successor, writer,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One of everything.
fn sample() -> Driver {
    let mut driver = Driver::with_segment();
    driver.up = 0x55;
    driver.open(open(1, 0x0102, session(3, 4), false)).unwrap();
    driver.wall = 0x66;
    let mut block = append(1, 0x0102, session(3, 4), (0, 7));
    block.sum = EventSum { sum: 0x1122_3344_5566_7788, after: EventNumber(2) };
    driver.append(block, b"hello");
    driver.open(open(1, 0x0103, session(3, 4), false)).unwrap();
    let delete = Command::DeleteWriter {
        segment: segment(1),
        writer: writer(0x0103),
        epoch: WriterEpoch(4),
    };
    driver.give(command(2, 3, 3), delete).unwrap();
    let updates = vec![AttributeUpdate {
        name: bytes::Bytes::from_static(b"k"),
        expected: Expected::Absent,
        value: Some(bytes::Bytes::from_static(b"v")),
    }];
    let segment = segment(1);
    driver.give(command(2, 3, 4), Command::UpdateAttributes { segment, updates }).unwrap();
    let successors = vec![successor(2)];
    driver.give(command(2, 3, 5), Command::Seal { segment, successors }).unwrap();
    driver.save();
    driver
}

#[test]
fn every_record_keeps_its_golden_bytes() {
    let id = "00010000000000070000000000000001";
    let all = "0000000000000000ffffffffffffffff";
    let next = "00010000000000070000000000000002";
    let golden = [
        ("00".to_owned(), "0101000200000000000000".to_owned()),
        (
            format!("01{id}00"),
            format!(
                "010500000000000000000500000000000000{id}040064656d6f050068656c6c6f{all}0100000000\
                 01000000{next}{all}020000000000000001000000{id}\
                 01000200000000000000030000000000000005000000\
                 0100000001006b010076"
            ),
        ),
        (
            format!("01{id}010000000000000000"),
            "01000000000000000001000000000000000000000003000000000000000000000005000000".to_owned(),
        ),
        (
            format!("01{id}020000000000000000"),
            "01000000000000000001000000000000000000000066000000000000006600000000000000".to_owned(),
        ),
        (
            format!("01{id}0300000000000000000000000000000102"),
            "0200030000000000000004000000550000000000000001\
             070000000000000088776655443322110200000000000000"
                .replace(' ', ""),
        ),
        (
            format!("01{id}0300000000000000000000000000000103"),
            "02020400000000000000000000005500000000000000\
             01"
            .replace(' ', ""),
        ),
    ];
    let saved: Vec<_> = sample().saved.iter().map(|(key, value)| (hex(key), hex(value))).collect();
    assert_eq!(saved, golden);
}

#[test]
fn older_time_points_keep_their_golden_bytes() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 1, session(1, 1), false)).unwrap();
    for number in 0..192 {
        driver.wall = number * SECOND;
        driver.append(append(1, 1, session(1, 1), (number, number + 1)), b"event");
    }
    driver.save();
    let key = "010001000000000007000000000000000104010000000000000000";
    let saved = driver.saved.iter().find(|(found, _)| hex(found) == key);
    let value = hex(saved.expect("the first chunk of level 1").1);
    // 32 points, of two of level 0 each: offset, first stamp, last stamp.
    assert!(
        value.starts_with(
            "01000000000000000020000000\
         0000000000000000000000000000000040420f0000000000\
         0a0000000000000080841e0000000000c0c62d0000000000"
        ),
        "{value}"
    );
    assert_eq!(value.len(), 2 * (1 + 8 + 4 + 32 * 24));
    assert_eq!(driver.restored().find_offset(segment(1), WallTime(SECOND)), Some(Offset(0)));
}

#[test]
fn extents_in_objects_keep_their_golden_bytes() {
    let mut driver = sample();
    driver.tier();
    driver.save();
    let id = "00010000000000070000000000000001";
    let saved: Vec<_> = driver
        .saved
        .iter()
        .filter(|(key, _)| key.len() > 18 && [1, 5].contains(&key[17]))
        .map(|(key, value)| (hex(key), hex(value)))
        .collect();
    let name = "0001000000000000000200000000000000010000000000000001";
    let golden = [
        (
            // What left stays in its chunk until all of it has left.
            format!("01{id}010000000000000000"),
            "01000000000000000001000000000000000000000003000000000000000000000005000000".to_owned(),
        ),
        (
            format!("01{id}050000000000000000"),
            // CRC-32 of `hello`.
            format!("01000000000000000001000000000000000000000005000000{name}2000000086a61036"),
        ),
    ];
    assert_eq!(saved, golden);
    let view = driver.restored().view(segment(1)).unwrap();
    assert_eq!((view.object_bytes, view.log_bytes, view.extents), (5, 0, 1));
}

#[test]
fn extents_with_a_hole_between_objects_and_log_are_refused() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 1, session(1, 1), false)).unwrap();
    for number in 0..66 {
        driver.append(append(1, 1, session(1, 1), (number, number + 1)), b"event");
    }
    driver.tier();
    driver.append(append(1, 1, session(1, 1), (66, 67)), b"event");
    driver.save();
    driver.saved.retain(|key, _| key.get(17) != Some(&5));
    let mut pairs = driver.saved.into_iter().map(|(key, value)| (key.into(), value));
    let mut machine = ContainerMachine::new(CONTAINER, Memory::new(&Settings::default()));
    let error = machine.restore(&mut pairs).unwrap_err().to_string();
    assert!(error.contains("begin at 330, its start is 0"), "{error}");
}

#[test]
fn only_what_changed_is_saved_again() {
    let mut driver = sample();
    driver.save();
    assert!(driver.machine.freeze_whole().is_empty());
    driver.open(open(1, 0x0102, session(3, 5), false)).unwrap();
    let keys: Vec<_> =
        driver.machine.freeze_whole().iter().map(|change| change.key.len()).collect();
    assert_eq!(keys, [18, 34], "the segment's record and one writer");
}

#[test]
fn forgetting_removes_every_record_of_the_segment() {
    let mut driver = sample();
    driver.open(open(1, 7, session(1, 1), false)).unwrap();
    driver.give(command(2, 4, 1), Command::Delete { segment: segment(1) }).unwrap();
    driver.save();
    assert_eq!(driver.restored().segment_count(), 0);
    driver.give(command(2, 4, 2), Command::Forget { segment: segment(1) }).unwrap();
    driver.save();
    assert_eq!(driver.saved.len(), 1, "the container's own record: {:?}", driver.saved);
}

#[test]
fn damaged_records_are_errors_that_name_the_record() {
    let driver = sample();
    for at in 0..driver.saved.len() {
        let mut pairs: Vec<_> = driver
            .saved
            .iter()
            .map(|(key, value)| (bytes::Bytes::from(key.clone()), value.clone()))
            .collect();
        pairs[at].1 = pairs[at].1.slice(..pairs[at].1.len() - 1);
        let mut machine = ContainerMachine::new(CONTAINER, Memory::new(&Settings::default()));
        let error = machine.restore(&mut pairs.clone().into_iter()).unwrap_err();
        assert!(error.to_string().contains(&hex(&pairs[at].0)), "{error}");
    }
    // A whole chunk of extents that is missing shows, too.
    let mut pairs: Vec<_> = driver
        .saved
        .iter()
        .map(|(key, value)| (bytes::Bytes::from(key.clone()), value.clone()))
        .collect();
    pairs.remove(2);
    let mut machine = ContainerMachine::new(CONTAINER, Memory::new(&Settings::default()));
    let error = machine.restore(&mut pairs.into_iter()).unwrap_err();
    assert!(error.to_string().contains("length is 5"), "{error}");
}
