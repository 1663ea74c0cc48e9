use std::sync::Arc;

use bytes::Bytes;
use common::clock::ManualClock;
use common::{ByteSize, GroupId, Incarnation, LogIndex, Term};
use lts::{Memory, ObjectName, ObjectPath};

use super::*;
use crate::archive::{EntryKind, FeatureLevel, PackedObject, RoundBuilder, RoundEntry};
use crate::envelope;
use crate::resting::{CompactionPlan, Piece, Rested, Tiered};

mod memory;

fn storage() -> (Storage, Memory) {
    let memory = Memory::new(Arc::new(ManualClock::default()));
    let storage = Storage {
        bucket: Arc::new(memory.clone()),
        waiter: Arc::new(Inline),
        settings: TieringSettings::default(),
        owner: None,
        ready: watch::channel(true).1,
        held: Held::default(),
    };
    (storage, memory)
}

fn names(number: u64) -> NameRange {
    NameRange { incarnation: Incarnation(1), group: GroupId(2), term: Term(3), number }
}

/// Puts a round of one entry, in which every owner has so many bytes.
fn put_round(storage: &Storage, index: u64, owners: &[(u128, usize)]) -> Tiered {
    let payload: Vec<Vec<u8>> =
        owners.iter().map(|(owner, bytes)| vec![*owner as u8; *bytes]).collect();
    let operations: Vec<(&[u8], &[u8])> = payload.iter().map(|p| (&b"op"[..], &p[..])).collect();
    let (context, data) = envelope::encode(Default::default(), &operations);
    let owned = owners.iter().scan(0, |start, (owner, bytes)| {
        let range = *start..*start + *bytes as u32;
        *start = range.end;
        Some((*owner, range))
    });
    let entry = RoundEntry {
        index: LogIndex(index),
        term: Term(1),
        kind: EntryKind::Normal,
        feature_level: FeatureLevel::FIRST,
        digest: 0,
        context,
        data,
        owned: owned.collect(),
    };
    let mut builder = RoundBuilder::new(storage.settings.round, None, LogIndex(index));
    assert_eq!(builder.push(&entry).unwrap(), crate::archive::Taken::Yes);
    let round = builder.finish(names(index).first(), b"").unwrap();
    let objects = round.objects.iter().map(|object| object.reference).collect();
    let tiered = Tiered { range: round.range, objects, runs: round.runs };
    storage.put_all(round.objects).unwrap();
    tiered
}

/// Ten rounds of three owners, and the pieces that a compaction would take.
fn pieces(storage: &Storage, bytes: usize) -> Vec<Piece> {
    let owners = [(5_u128, bytes), (6, bytes), (9, bytes)];
    let rounds: Vec<Tiered> = (1..=10).map(|index| put_round(storage, index, &owners)).collect();
    let mut pieces = Vec::new();
    for (at, (owner, _)) in owners.into_iter().enumerate() {
        for (number, round) in rounds.iter().enumerate() {
            let start = (at * bytes) as u32;
            let rested = round.locate(LogIndex(number as u64 + 1), start, bytes as u32).unwrap();
            let position = (number * bytes) as u64;
            pieces.push(Piece { owner, position, rested, bytes: bytes as u32 });
        }
    }
    pieces
}

fn compact(storage: &Storage, pieces: Vec<Piece>) -> Result<Compacted, StorageFailure> {
    Compaction { names: names(100), plan: CompactionPlan { pieces } }.perform(storage)
}

fn object(storage: &Storage, name: ObjectName, length: u32) -> PackedObject {
    let bucket = storage.bucket.clone();
    let get = async move { bucket.get(&name.into(), 0..u64::from(length)).await };
    PackedObject::decode(name, storage.run(get).unwrap().unwrap()).unwrap()
}

#[test]
fn pieces_that_follow_one_another_become_one_place_in_runs_that_are_checked() {
    let (mut storage, _) = storage();
    storage.settings.round.object_bytes = ByteSize::mib(9);
    let bytes = 400_000;
    let compacted = compact(&storage, pieces(&storage, bytes)).unwrap();
    let owners: Vec<u128> = compacted.moved.iter().map(|moved| moved.owner).collect();
    assert_eq!(owners, [5, 6, 9]);
    assert_eq!(compacted.objects.len(), 2, "two owners fit an object of 9 MiB");
    for moved in &compacted.moved {
        assert_eq!((moved.position, moved.bytes, moved.pieces), (0, 4_000_000, 10));
        let reference = compacted.objects.iter().find(|o| o.name == moved.rested.object).unwrap();
        let object = object(&storage, reference.name, reference.length);
        let runs: Vec<_> = object.index.runs().filter(|run| run.owner == moved.owner).collect();
        assert_eq!(runs.iter().map(|run| run.bytes).sum::<u32>(), moved.bytes);
        assert_eq!(runs[0].offset, moved.rested.offset);
        assert!(runs.iter().all(|run| run.bytes <= 1 << 20));
        let positions: Vec<u64> = runs.iter().map(|run| run.index.0).collect();
        assert_eq!(positions, [0, 1 << 20, 2 << 20, 3 << 20]);
        let mut crc = crc32fast::Hasher::new();
        for run in &runs {
            let bytes: Bytes = object.payload(run);
            assert!(bytes.iter().all(|byte| *byte == moved.owner as u8));
            crc.update(&bytes);
        }
        assert_eq!(crc.finalize(), moved.rested.crc);
    }
}

#[test]
fn a_gap_between_pieces_begins_another_place() {
    let (storage, _) = storage();
    let mut pieces = pieces(&storage, 100);
    pieces.remove(4);
    let compacted = compact(&storage, pieces).unwrap();
    let moved: Vec<_> =
        compacted.moved.iter().map(|m| (m.owner, m.position, m.bytes, m.pieces)).collect();
    let expected = [(5, 0, 400, 4), (5, 500, 500, 5), (6, 0, 1_000, 10), (9, 0, 1_000, 10)];
    assert_eq!(moved, expected);
    let mut said = Vec::new();
    let housekeeping = crate::archive::Housekeeping::Compacted(compacted);
    housekeeping.encode(&mut said);
    assert_eq!(crate::archive::Housekeeping::decode(&said.into()), Ok(housekeeping));
}

#[test]
fn damage_ends_a_compaction_with_the_name_of_the_object() {
    let (storage, memory) = storage();
    let pieces = pieces(&storage, 100);
    let Rested { object, offset, .. } = pieces[3].rested;
    let path: ObjectPath = object.into();
    assert!(memory.tamper(&path, |bytes| bytes[offset as usize] ^= 4));
    let failure = compact(&storage, pieces).unwrap_err().to_string();
    assert!(failure.contains(&object.to_string()) && failure.contains("checksum"), "{failure}");
}

#[test]
fn nothing_is_done_before_the_bucket_was_looked_at() {
    let (mut storage, _) = storage();
    storage.ready = watch::channel(false).1;
    assert!(matches!(storage.check_ready(), Err(StorageFailure::NotReady)));
}
