//! What a newer program wrote is not skipped: a log that has it is not opened.

use common::GroupId;

use super::harness::{Step, World, small};
use crate::format::{GroupRow, PreviousFile, RecordHeader, RecordKind, Table};
use crate::*;

/// A log with a record that is whole, as a newer program would write it, between two of today.
fn with_record(kind: RecordKind, group: GroupId, payload: &[u8]) -> Result<(), OpenError> {
    let append = Step::Append { group: 1, back: 0, count: 1, bytes: 100 };
    let mut world = World::opened(small());
    world.run(&[append, Step::Write]).unwrap();
    {
        let mut state = world.log().state();
        state.open_block(&world.settings);
        let sequence = state.groups[&GroupId(1)].sequence + 1;
        let sequence = if group == GroupId(0) { 0 } else { sequence };
        let block = state.open.as_mut().unwrap();
        block.push(RecordHeader::new(kind, group, sequence), [&[], payload]);
    }
    world.step(&Step::Write).unwrap();
    world.open().map(|_| ())
}

fn table() -> Vec<u8> {
    Table { previous: PreviousFile::default(), rows: Vec::new() }.encode()
}

#[test]
fn a_group_table_of_an_unknown_version_is_refused() {
    let mut newer = table();
    newer[0] = 2;
    let refused = with_record(RecordKind::Table, GroupId(0), &newer).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("a group table") && text.contains("newer"), "{text}");
    assert!(text.contains("000000000001.wal"), "{text}");
    with_record(RecordKind::Table, GroupId(0), &table()).unwrap();
}

#[test]
fn a_row_of_a_group_table_that_says_more_than_is_known_is_refused() {
    let row = GroupRow { group: GroupId(9), ..Default::default() };
    let known = Table { previous: PreviousFile::default(), rows: vec![row] }.encode();
    with_record(RecordKind::Table, GroupId(0), &known).unwrap();
    let mut newer = known;
    newer[Table::EMPTY_BYTES + 8 + 3] = 1;
    let refused = with_record(RecordKind::Table, GroupId(0), &newer).unwrap_err();
    assert!(matches!(refused, OpenError::Unknown { .. }), "{refused}");
}

#[test]
fn a_record_of_an_unknown_kind_is_refused_and_not_cut_as_a_torn_tail() {
    let refused = with_record(RecordKind::Unknown, GroupId(1), b"of tomorrow").unwrap_err();
    let OpenError::Unknown { what, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*what, "a kind of record");
}

#[test]
fn a_promise_that_does_not_read_as_one_is_refused() {
    let refused = with_record(RecordKind::HardState, GroupId(1), &[0; 24]).unwrap_err();
    assert!(matches!(refused, OpenError::Unknown { .. }), "{refused}");
    with_record(RecordKind::HardState, GroupId(1), &[0; 16]).unwrap();
}

#[test]
fn pairs_with_more_behind_them_than_is_known_are_refused() {
    for (kind, named) in [(RecordKind::Seal, "a sealing record"), (RecordKind::Commits, "commit")] {
        let pair = [1_u64.to_le_bytes(), 2_u64.to_le_bytes()].concat();
        let longer = [&pair[..], &[0; 8]].concat();
        let refused = with_record(kind, GroupId(0), &longer).unwrap_err();
        let OpenError::Unknown { what, .. } = &refused else { panic!("{refused}") };
        assert!(what.contains(named), "{what}");
    }
    let pair = [1_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat();
    with_record(RecordKind::Commits, GroupId(0), &pair).unwrap();
}
