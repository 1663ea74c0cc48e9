//! Rounds, dead objects, and compaction.

use bytes::Bytes;
use common::{LogIndex, Offset};
use replica::archive::{Run, Runs};
use replica::{Compacted, CompactionPlan, Moved, Rested, StateMachine, Tiered};

use crate::extent::ObjectExtent;
use crate::operation::{Command, Operation};
use crate::testing::{
    Driver, append, command, identity, object, open, reference, segment, session,
};

/// With segments 1 to `count`, each open for writer 1.
pub(super) fn segments(count: u32) -> Driver {
    let mut driver = Driver::new();
    for number in 1..=count {
        let create = Command::Create(Box::new(identity(number)));
        driver.give(command(1, 1, number), create).unwrap();
        driver.open(open(number, 1, session(1, 1), false)).unwrap();
    }
    driver
}

pub(super) fn write(driver: &mut Driver, number: u32, bytes: &[u8]) {
    let length = driver.machine.view(segment(number)).unwrap().bounds.length.0;
    let numbers = (length, length + bytes.len() as u64);
    driver.append(append(number, 1, session(1, 1), numbers), bytes);
}

pub(super) fn truncate(driver: &mut Driver, number: u32, offset: u64) {
    let (segment, offset) = (segment(number), Offset(offset));
    let step = driver.index as u32;
    driver.give(command(1, 2, step), Command::Truncate { segment, offset }).unwrap();
}

fn delete(driver: &mut Driver, number: u32) {
    let step = driver.index as u32;
    let segment = segment(number);
    driver.give(command(1, 2, step), Command::Delete { segment }).unwrap();
}

pub(super) fn extents(driver: &Driver, number: u32) -> Vec<ObjectExtent> {
    let shared = driver.machine.view(segment(number)).unwrap().shared;
    shared.lock().objects.items().iter().copied().collect()
}

/// Bytes in objects, bytes in the log, extents.
pub(super) fn places(driver: &Driver, number: u32) -> (u64, u64, usize) {
    let view = driver.machine.view(segment(number)).unwrap();
    (view.object_bytes, view.log_bytes, view.extents)
}

/// A segment with one small extent for each of so many rounds, two bytes each.
fn trickled(driver: &mut Driver, numbers: &[u32], rounds: u32) {
    for round in 0..rounds {
        for number in numbers {
            write(driver, *number, &[*number as u8, round as u8]);
        }
        driver.tier();
    }
    driver.machine.take_dead_objects();
}

#[test]
fn a_round_moves_what_its_entries_hold_and_nothing_else() {
    let mut driver = segments(2);
    write(&mut driver, 1, b"first");
    write(&mut driver, 2, b"other");
    let last = driver.index;
    write(&mut driver, 1, b" second");
    let owned = driver.owned(last);
    let indices: Vec<_> = owned.iter().map(|run| run.index.0).collect();
    assert_eq!(indices, [last - 1, last], "as the log has them, without what comes later");
    let round = driver.round(last, owned, 1_000);
    driver.machine.tiered(&round).unwrap();
    assert_eq!(places(&driver, 1), (5, 7, 2));
    assert_eq!(places(&driver, 2), (5, 0, 1));
    assert_eq!(driver.machine.oldest_live_index(), Some(LogIndex(last + 1)));
    assert_eq!(driver.bytes_of(1).1, b"first second");
    driver.tier();
    assert_eq!(places(&driver, 1), (12, 0, 2), "of two objects");
    assert_eq!(driver.machine.oldest_live_index(), None);
    assert!(driver.owned(driver.index).is_empty());
}

#[test]
fn bytes_of_one_round_that_lie_side_by_side_become_one_extent() {
    let mut driver = segments(1);
    for part in [&b"a"[..], b"bc", b"def", b"g"] {
        write(&mut driver, 1, part);
    }
    driver.tier();
    let found = extents(&driver, 1);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].rested.crc, crc32fast::hash(b"abcdefg"));
}

#[test]
fn an_entry_from_long_term_storage_has_a_place_and_no_bytes_in_memory() {
    let mut driver = segments(1);
    let block = append(1, 1, session(1, 1), (0, 7));
    driver.archived_entry(&[(Operation::Append(block), b"rested")]);
    assert_eq!(places(&driver, 1), (0, 6, 1));
    assert_eq!(driver.machine.memory.tail.content(), (0, 0));
    assert_eq!(driver.machine.memory.metrics.appended_bytes.get(), 0, "counted once, long ago");
    let shared = driver.machine.view(segment(1)).unwrap().shared;
    assert_eq!(shared.lock().tail_pieces(), 0);
}

#[test]
fn what_a_round_of_a_living_log_does_not_hold_is_told_as_lost_and_not_cut_off() {
    let mut driver = segments(2);
    write(&mut driver, 1, b"first");
    write(&mut driver, 2, b"other");
    write(&mut driver, 2, b" bytes");
    let last = driver.index;
    let mut owned = driver.owned(last);
    let left_out = owned.pop().unwrap();
    let round = driver.round(last, owned, 1_000);
    let lost = driver.machine.tiered(&round).unwrap_err().to_string();
    let (segment, entry) = (segment(2), left_out.index);
    let told = format!("6 bytes of segment `{segment}` at offset 5, in entry {entry}");
    assert!(lost.contains("DATA_LOST") && lost.contains(&told), "{lost}");
    assert_eq!(driver.bytes_of(2), (Offset(0), b"other bytes".to_vec()), "the log has it");
    assert_eq!(driver.machine.memory.metrics.unarchived_extents.get(), 0);
}

#[test]
fn what_a_round_taken_over_does_not_hold_is_cut_off_with_all_before_it_and_counted() {
    let mut driver = segments(2);
    for bytes in [b"kept??", b"absent", b"behind"] {
        let length = driver.machine.view(segment(1)).unwrap().bounds.length.0;
        let block = append(1, 1, session(1, 1), (length, length + 6));
        driver.archived_entry(&[(Operation::Append(block), bytes)]);
    }
    let last = driver.index;
    let run = |index: u64, object: u32, bytes: &[u8]| Run {
        index: LogIndex(index),
        start: 0,
        bytes: 6,
        object,
        offset: 32,
        crc: crc32fast::hash(bytes),
    };
    driver.objects.insert(object(2), Bytes::from([&[0; 32][..], b"behind"].concat()));
    driver.machine.taken_over(&Tiered {
        range: LogIndex(1)..=LogIndex(last),
        objects: [1, 2, 3].map(|sequence| reference(object(sequence))).to_vec(),
        runs: Runs::encode(vec![run(last - 2, 0, b"kept??"), run(last, 1, b"behind")]),
    });
    assert_eq!(driver.bytes_of(1), (Offset(12), b"behind".to_vec()));
    assert_eq!(driver.machine.oldest_live_index(), None);
    let metrics = driver.machine.memory.metrics.clone();
    assert_eq!((metrics.unarchived_extents.get(), metrics.unarchived_bytes.get()), (1, 12));
    assert_eq!(driver.machine.take_dead_objects(), [object(1), object(3)]);
    driver.save();
    driver.machine = driver.restored();
    assert_eq!(driver.bytes_of(1).0, Offset(12));
    truncate(&mut driver, 1, 13);
    assert_eq!(
        driver.bytes_of(1),
        (Offset(13), b"ehind".to_vec()),
        "what comes goes on from there"
    );
    driver.save();
    let view = driver.restored().view(segment(1)).unwrap();
    assert_eq!((view.bounds.start, view.object_bytes), (Offset(13), 5));
}

#[test]
fn an_object_is_dead_when_the_last_that_referred_to_it_has_gone_and_is_reported_once() {
    let mut driver = segments(2);
    write(&mut driver, 1, b"one");
    write(&mut driver, 2, b"two");
    driver.tier();
    write(&mut driver, 1, b"more");
    driver.tier();
    truncate(&mut driver, 1, 2);
    truncate(&mut driver, 1, 3);
    assert!(driver.machine.take_dead_objects().is_empty(), "segment 2 is still there");
    driver.save();
    driver.machine = driver.restored();
    delete(&mut driver, 2);
    assert_eq!(driver.machine.take_dead_objects(), [object(1)]);
    delete(&mut driver, 1);
    assert_eq!(driver.machine.take_dead_objects(), [object(2)]);
    assert!(driver.machine.take_dead_objects().is_empty());
}

#[test]
fn an_object_whose_bytes_were_dropped_while_it_was_made_is_dead_at_once() {
    let mut driver = segments(2);
    write(&mut driver, 1, b"dropped");
    write(&mut driver, 2, b"kept");
    let last = driver.index;
    let owned = driver.owned(last);
    let round = driver.round(last, owned, 1);
    delete(&mut driver, 1);
    driver.machine.tiered(&round).unwrap();
    assert_eq!(driver.machine.take_dead_objects(), [object(1)]);
    assert_eq!(driver.bytes_of(2).1, b"kept");
}

#[test]
fn a_slow_segment_keeps_few_extents_and_its_bytes_are_copied_a_few_times() {
    let mut driver = segments(1);
    let (mut copied, mut most) = (0, 0);
    let rounds = 8_640;
    for round in 0..rounds {
        write(&mut driver, 1, &[round as u8]);
        driver.tier();
        if let Some(plan) = driver.machine.compaction() {
            copied += plan.pieces.iter().map(|piece| u64::from(piece.bytes)).sum::<u64>();
            let compacted = driver.copied(&plan);
            driver.machine.compacted(&compacted);
        }
        most = most.max(extents(&driver, 1).len());
    }
    assert!(most <= 64, "{most} extents");
    // Twice its logarithm would be 26.
    assert!(copied < 12 * rounds, "{copied} bytes copied of {rounds}");
    assert_eq!(driver.bytes_of(1).1.len(), rounds as usize);
}

/// Compacts as a leader does, who asks again at once while there is something to do; returns the
/// bytes that were copied.
fn compact(driver: &mut Driver) -> u64 {
    let mut copied = 0;
    for _ in 0..4 {
        let Some(plan) = driver.machine.compaction() else { return copied };
        copied += plan.pieces.iter().map(|piece| u64::from(piece.bytes)).sum::<u64>();
        let compacted = driver.copied(&plan);
        driver.machine.compacted(&compacted);
    }
    assert_eq!(driver.machine.compaction(), None, "a few plans are enough for one round");
    copied
}

/// What a container of four has of ten thousand slow segments, over a day of rounds of five
/// minutes; each compaction copies what one may.
#[test]
fn thousands_of_slow_segments_stay_within_the_bound_over_a_day() {
    const SEGMENTS: u32 = 2_500;
    const ROUNDS: u32 = 24 * 60 / 5;
    let mut driver = segments(SEGMENTS);
    let (mut copied, mut most) = (0, 0);
    for round in 0..ROUNDS {
        for number in 1..=SEGMENTS {
            write(&mut driver, number, &[round as u8]);
        }
        assert_eq!(driver.tier().objects.len(), 1, "all of them share it");
        copied += compact(&mut driver);
        let of_all = (1..=SEGMENTS).map(|number| places(&driver, number).2);
        most = most.max(of_all.max().unwrap());
    }
    assert!(most <= 64, "{most} extents of one segment");
    let bytes = u64::from(SEGMENTS * ROUNDS);
    assert!(copied < 8 * bytes, "{copied} bytes copied of {bytes}");
    let last = driver.bytes_of(SEGMENTS).1;
    assert!(last.iter().enumerate().all(|(round, byte)| *byte == round as u8));
}

/// How often and how much a slow segment is written to, and when not at all.
#[derive(Clone, Copy)]
struct Trickle {
    /// Appends fall into every so many rounds, from this one on.
    every: u32,
    phase: u32,
    bytes: usize,
    /// An hour without any, once in so many rounds.
    rest_every: u32,
}

impl Trickle {
    fn of(number: u32) -> Self {
        let every = [1, 1, 2, 3, 7][number as usize % 5];
        let bytes = [30, 100, 3, 700, 30, 1, 4_000][number as usize % 7];
        Self { every, phase: number % 11, bytes, rest_every: 30 + number % 40 }
    }

    fn is_due(self, round: u32) -> bool {
        let rests = (round + 5 * self.phase) % self.rest_every < HOUR_ROUNDS;
        !rests && (round + self.phase).is_multiple_of(self.every)
    }
}

/// Rounds of five minutes.
const HOUR_ROUNDS: u32 = 12;

/// The same out of phase: every segment has a pace, a size and a rest of its own, so that one round
/// leaves few pieces of many segments, and compactions find them apart.
#[test]
fn slow_segments_out_of_phase_stay_within_the_bound_over_a_day() {
    const SEGMENTS: u32 = 500;
    let mut driver = segments(SEGMENTS);
    let mut written = vec![Vec::new(); SEGMENTS as usize + 1];
    let (mut copied, mut most) = (0, 0);
    for round in 0..24 * HOUR_ROUNDS {
        // Who comes first changes from round to round, too.
        for turn in 0..SEGMENTS {
            let number = 1 + (turn + 37 * round) % SEGMENTS;
            let trickle = Trickle::of(number);
            if trickle.is_due(round) {
                let bytes = vec![(round ^ number) as u8; trickle.bytes];
                write(&mut driver, number, &bytes);
                written[number as usize].extend_from_slice(&bytes);
            }
        }
        assert!(driver.tier().objects.len() <= 2, "objects follow bytes, not segments");
        copied += compact(&mut driver);
        for number in 1..=SEGMENTS {
            let (bytes, _, extents) = places(&driver, number);
            let bound = 64 + (bytes >> 24) as usize;
            assert!(extents <= bound, "{extents} extents of segment {number} in {round}");
            most = most.max(extents);
        }
    }
    let bytes: usize = written.iter().map(Vec::len).sum();
    assert!(most > 50, "{most} extents at most: there was nothing to do");
    assert!(copied < 2 * bytes as u64, "{copied} bytes copied of {bytes}");
    for number in (1..=SEGMENTS).step_by(13) {
        assert!(driver.bytes_of(number).1 == written[number as usize], "segment {number}");
    }
}

#[test]
fn a_compaction_takes_segments_side_by_side_and_goes_on_behind_them() {
    let mut driver = segments(4);
    trickled(&mut driver, &[1, 2, 4], 60);
    assert_eq!(driver.machine.compaction(), None, "few enough");
    trickled(&mut driver, &[1, 2, 4], 10);
    let owners = |plan: &CompactionPlan| {
        let mut owners: Vec<_> = plan.pieces.iter().map(|piece| piece.owner as u32).collect();
        owners.dedup();
        owners
    };
    let plan = driver.machine.compaction().unwrap();
    assert_eq!(owners(&plan), [1, 2, 4]);
    assert_eq!(plan.pieces.len(), 3 * 70);
    driver.machine.planned.set(Some(segment(1)));
    assert_eq!(owners(&driver.machine.compaction().unwrap()), [2, 4]);
    assert_eq!(owners(&driver.machine.compaction().unwrap()), [1, 2, 4], "and from the first");
    let compacted = driver.copied(&plan);
    driver.machine.compacted(&compacted);
    assert_eq!(driver.machine.compaction(), None);
    assert_eq!(places(&driver, 2), (140, 0, 1));
    assert_eq!(driver.machine.take_dead_objects().len(), 70);
    let bytes: Vec<u8> = (0..60).chain(0..10).flat_map(|round| [2, round]).collect();
    assert_eq!(driver.bytes_of(2).1, bytes);
}

#[test]
fn a_piece_is_taken_over_only_where_its_place_is_as_it_was() {
    let mut driver = segments(3);
    trickled(&mut driver, &[1, 2, 3], 70);
    let plan = driver.machine.compaction().unwrap();
    let Compacted { objects, moved } = driver.copied(&plan);
    truncate(&mut driver, 1, 2);
    delete(&mut driver, 2);
    driver.machine.take_dead_objects();
    let whole = moved[2];
    let otherwise = [
        Moved { pieces: 69, ..whole },
        Moved { pieces: 71, ..whole },
        Moved { pieces: 0, ..whole },
        Moved { pieces: u32::MAX, ..whole },
        Moved { bytes: whole.bytes - 1, ..whole },
        Moved { position: 1, ..whole },
        Moved { owner: 77, ..whole },
        Moved { rested: Rested { crc: !whole.rested.crc, ..whole.rested }, ..whole },
    ];
    let before = extents(&driver, 3);
    for wrong in otherwise.into_iter().chain([moved[0], moved[1]]) {
        let compacted = Compacted { objects: objects.clone(), moved: vec![wrong] };
        driver.machine.compacted(&compacted);
        assert_eq!(extents(&driver, 3), before, "{wrong:?}");
        assert_eq!(driver.machine.take_dead_objects(), [objects[0].name], "of no use");
    }
    assert_eq!(extents(&driver, 1).len(), 69);
    driver.machine.compacted(&Compacted { objects, moved });
    assert_eq!(extents(&driver, 3).len(), 1);
}

#[test]
fn a_compaction_that_ignores_a_truncation_fails_the_test_of_its_law() {
    let _planted = common::planted::plant("compaction-ignores-a-truncation");
    let law = a_piece_is_taken_over_only_where_its_place_is_as_it_was;
    assert!(std::panic::catch_unwind(law).is_err());
}

#[test]
fn a_round_of_many_extents_of_many_segments_leaves_the_others_alone() {
    let mut driver = segments(3);
    for turn in 0..5_000_u32 {
        write(&mut driver, 1 + turn % 2, &turn.to_le_bytes());
    }
    let round = driver.tier();
    assert_eq!(round.runs.len(), 5_000);
    assert_eq!(places(&driver, 1), (10_000, 0, 1));
    assert_eq!(places(&driver, 3), (0, 0, 0));
    driver.save();
    let keys: Vec<_> = driver.saved.keys().filter(|key| key.len() > 18 && key[17] == 1).collect();
    assert!(keys.len() <= 2, "chunks of the log are removed: {keys:?}");
}
