use bytes::Bytes;
use common::{ByteSize, GroupId, Incarnation, LogIndex, Term, WallTime};
use lts::ObjectName;

use super::*;
use crate::entry::Stamp;
use crate::envelope;
use crate::kv::Applied;

mod checkpoint;
mod damage;
mod golden;
mod housekeeping;
mod limits;
mod round;

fn name(sequence: u64) -> ObjectName {
    ObjectName { incarnation: Incarnation(1), group: GroupId(2), term: Term(9), sequence }
}

/// Names from `first` on.
fn names(first: u64) -> impl FnMut() -> ObjectName {
    let mut sequences = first..;
    move || name(sequences.next().unwrap())
}

/// An operation: header, payload, whose the payload is.
type Op<'a> = (&'a [u8], &'a [u8], Option<u128>);

fn normal(index: u64, term: u64, operations: &[Op<'_>]) -> RoundEntry {
    let stamp = Stamp { wall: WallTime(1_000 + index), up_micros: 10 * index };
    let bytes: Vec<_> = operations.iter().map(|(header, payload, _)| (*header, *payload)).collect();
    let (context, data) = envelope::encode(stamp, &bytes);
    let mut at = 0;
    let mut owned = Vec::new();
    for (_, payload, owner) in operations {
        let end = at + payload.len() as u32;
        owned.extend(owner.map(|owner| (owner, at..end)));
        at = end;
    }
    RoundEntry { context, data, owned, ..empty(index, term) }
}

/// A new leader's entry.
fn empty(index: u64, term: u64) -> RoundEntry {
    RoundEntry {
        index: LogIndex(index),
        term: Term(term),
        kind: EntryKind::Normal,
        feature_level: FeatureLevel::FIRST,
        digest: index.wrapping_mul(0x0101_0101_0101_0101),
        context: Bytes::new(),
        data: Bytes::new(),
        owned: Vec::new(),
    }
}

fn membership(index: u64, term: u64, change: &'static [u8]) -> RoundEntry {
    let kind = EntryKind::JointMembership;
    RoundEntry { kind, data: Bytes::from_static(change), ..empty(index, term) }
}

fn small() -> RoundSettings {
    RoundSettings { object_bytes: ByteSize(200), own_object_bytes: ByteSize(40) }
}

fn build(entries: &[RoundEntry], settings: RoundSettings, continues: Option<ObjectRef>) -> Round {
    let mut builder = RoundBuilder::new(settings, continues, entries[0].index);
    for entry in entries {
        assert_eq!(builder.push(entry), Ok(Taken::Yes));
    }
    builder.finish(name(100), b"voters 1 2 3").unwrap()
}

/// A round of each kind of entry; segments 7 and 8 share an object, 9 has one of its own.
fn sample() -> Vec<RoundEntry> {
    let nines = [b'9'; 50];
    vec![
        empty(5, 3),
        normal(6, 3, &[(b"open", b"", None), (b"a1", b"seven", Some(7)), (b"a2", b"!", Some(7))]),
        membership(7, 3, b"add 3"),
        normal(
            8,
            4,
            &[(b"a3", b"eight", Some(8)), (b"a4", b"twice", None), (b"a5", b"7", Some(7))],
        ),
        normal(9, 4, &[(b"a6", &nines, Some(9))]),
    ]
}

fn sample_round() -> Round {
    let continues = ObjectRef { name: name(42), length: 4_096, checksum: 0xfeed_beef };
    build(&sample(), small(), Some(continues))
}

/// Behind entries that are lost, from 3 on.
fn beginning_round() -> Round {
    let continues = ObjectRef { name: name(42), length: 4_096, checksum: 0xfeed_beef };
    let checkpoint = ObjectRef { name: name(50), length: 77, checksum: 0x0bad_cafe };
    let begins = Beginning { first_lost: LogIndex(3), checkpoint };
    let entries = sample();
    let builder = RoundBuilder::new(small(), Some(continues), entries[0].index);
    let mut builder = builder.behind(Some(begins));
    for entry in &entries {
        assert_eq!(builder.push(entry), Ok(Taken::Yes));
    }
    builder.finish(name(100), b"voters 1 2 3").unwrap()
}

fn sample_checkpoint() -> (Vec<Sealed>, Sealed) {
    let applied = Applied {
        index: LogIndex(77),
        term: Term(8),
        stamp: Stamp { wall: WallTime(5), up_micros: 6 },
        digest: 7,
    };
    let membership = Bytes::from_static(b"voters 1");
    let draft = CheckpointDraft { applied, feature_level: FeatureLevel(2), membership };
    let settings = CheckpointSettings { chunk_bytes: ByteSize(80) };
    let mut writer = CheckpointWriter::new(settings, draft).unwrap();
    let mut names = names(3);
    let mut chunks = Vec::new();
    for (key, value) in [("a", "first"), ("ab", ""), ("b", "third"), ("c", "fourth")] {
        let key = Bytes::from_static(key.as_bytes());
        chunks.extend(writer.push(&key, value.as_bytes(), &mut names).unwrap());
    }
    let (last, checkpoint) = writer.finish(&mut names).unwrap();
    chunks.extend(last);
    (chunks, checkpoint)
}

fn bytes(sealed: &Sealed) -> Bytes {
    sealed.payload.clone().into_bytes()
}

fn footer(round: &Round) -> Footer {
    Footer::decode(round.footer.reference.name, &bytes(&round.footer)).unwrap()
}
