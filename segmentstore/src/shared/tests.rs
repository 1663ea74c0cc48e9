use bytes::Bytes;
use common::{LogIndex, Offset};
use proptest::prelude::*;

use super::*;
use crate::limits::{READ_GATHER_BELOW, READ_MESSAGE_BYTES_MAX};

fn payload(bytes: usize, seed: u8) -> Bytes {
    (0..bytes).map(|i| seed.wrapping_add(i as u8)).collect()
}

fn extents(state: &ReadState) -> Vec<(u64, u64, u32, u32)> {
    let parts = |e: &Extent| (e.offset.0, e.index.0, e.start, e.bytes);
    state.extents.items().iter().map(parts).collect()
}

#[test]
fn adjacent_blocks_of_one_entry_become_one_extent_and_one_piece() {
    let mut state = ReadState::default();
    let entry = payload(100, 0);
    assert!(state.append(LogIndex(5), 10, 20, &entry).0);
    assert!(!state.append(LogIndex(5), 30, 5, &entry).0);
    assert!(state.append(LogIndex(5), 60, 5, &entry).0, "bytes of others lie between");
    assert!(state.append(LogIndex(6), 65, 5, &entry).0, "another entry");
    assert_eq!(extents(&state), [(0, 5, 10, 25), (25, 5, 60, 5), (30, 6, 65, 5)]);
    let Located::Memory(pieces) = state.locate(Offset(2), 1_000, 0) else { panic!("in memory") };
    let expected = [entry.slice(12..35), entry.slice(60..65), entry.slice(65..70)];
    assert_eq!(pieces, expected);
}

#[test]
fn a_block_that_joins_an_evicted_piece_begins_a_new_one() {
    let mut state = ReadState::default();
    let entry = payload(100, 0);
    state.append(LogIndex(5), 0, 20, &entry);
    state.tail.pop_front();
    assert!(state.append(LogIndex(5), 20, 10, &entry).0);
    assert_eq!(extents(&state), [(0, 5, 0, 30)]);
    assert_eq!(state.locate(Offset(20), 100, 0), Located::Memory(vec![entry.slice(20..30)]));
    assert!(matches!(state.locate(Offset(19), 100, 1), Located::Log(found) if found.len() == 1));
}

#[test]
fn large_pieces_are_cut_without_a_copy_and_small_ones_gathered() {
    let mut state = ReadState::default();
    let large = payload(READ_MESSAGE_BYTES_MAX + 10, 1);
    state.append(LogIndex(1), 0, large.len() as u32, &large);
    state.append(LogIndex(2), 0, 10, &payload(10, 2));
    state.append(LogIndex(3), 0, READ_GATHER_BELOW as u32, &payload(READ_GATHER_BELOW, 3));
    let Located::Memory(pieces) = state.locate(Offset(0), READ_MESSAGE_BYTES_MAX, 0) else {
        panic!("in memory")
    };
    assert_eq!(pieces.len(), 1);
    assert_eq!(pieces[0].as_ptr(), large.as_ptr(), "shared, not copied");
    let Located::Memory(pieces) =
        state.locate(Offset(READ_MESSAGE_BYTES_MAX as u64), READ_MESSAGE_BYTES_MAX, 0)
    else {
        panic!("in memory")
    };
    assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [10, 10]);
}

#[test]
fn the_log_entries_ahead_are_as_many_as_asked_for() {
    let mut state = ReadState::default();
    for index in 1..=10 {
        state.append(LogIndex(index), 0, 100, &payload(100, 0));
    }
    state.tail.clear();
    let Located::Log(found) = state.locate(Offset(250), 1_000, 300) else { panic!("in the log") };
    assert_eq!(found.iter().map(|extent| extent.index.0).collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!(state.locate(Offset(1_000), 1_000, 300), Located::AtEnd);
}

proptest! {
    #[test]
    fn extents_tile_the_segment_and_the_tail_shows_the_same_bytes(
        blocks in proptest::collection::vec((1_u32..50, any::<bool>(), 0_u32..20), 1..40),
        evict in 0_usize..20,
        cut in 0_u64..1_500,
    ) {
        let (mut state, mut stored, mut index, mut at) = (ReadState::default(), Vec::new(), 1, 0);
        let entry = payload(4_000, 9);
        for (bytes, same_entry, gap) in blocks {
            (index, at) = if same_entry { (index, at + gap) } else { (index + 1, gap) };
            state.append(LogIndex(index), at, bytes, &entry);
            stored.extend_from_slice(&entry[at as usize..(at + bytes) as usize]);
            at += bytes;
        }
        prop_assert_eq!(state.length.0, stored.len() as u64);
        let mut end = Offset(0);
        for extent in state.extents.items() {
            prop_assert_eq!(extent.offset, end);
            let bytes = &entry[extent.start as usize..(extent.start + extent.bytes) as usize];
            prop_assert_eq!(bytes, &stored[end.0 as usize..extent.end().0 as usize]);
            end = extent.end();
        }
        prop_assert_eq!(end, state.length);

        let evict = evict.min(state.tail.len() - 1);
        state.tail.drain(..evict);
        let start = Offset(cut.min(state.length.0));
        state.truncate(start, |_| {});
        prop_assert!(state.extents.items().front().is_none_or(|extent| extent.end() > start));
        let mut offset = start;
        while offset < state.length {
            match state.locate(offset, 64, 64) {
                Located::Memory(pieces) => for piece in pieces {
                    let end = offset.plus(piece.len() as u64);
                    prop_assert_eq!(&piece[..], &stored[offset.0 as usize..end.0 as usize]);
                    offset = end;
                },
                Located::Log(found) => {
                    prop_assert!(found[0].offset <= offset && offset < found[0].end());
                    offset = found[0].end();
                }
                Located::Objects(_) => prop_assert!(false, "nothing rests in objects"),
                Located::AtEnd => prop_assert!(false, "bytes are missing at {}", offset),
            }
        }
    }
}
