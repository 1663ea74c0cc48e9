use std::ops::Range;

use proptest::prelude::*;

use super::*;

#[test]
fn a_footer_tells_every_entry_and_where_its_payload_lies() {
    let round = sample_round();
    let footer = footer(&round);
    assert_eq!(footer.range(), LogIndex(5)..=LogIndex(9));
    assert_eq!((footer.last_index(), footer.last_term()), (LogIndex(9), Term(4)));
    assert_eq!(footer.membership, &b"voters 1 2 3"[..]);
    assert_eq!(footer.continues.unwrap().name, name(42));
    assert_eq!(footer.reference, round.footer.reference);
    let stamps: Vec<_> =
        footer.headers().map(|header| header.stamp().map(|stamp| stamp.wall.0)).collect();
    assert_eq!(stamps, [None, Some(1_006), None, Some(1_008), Some(1_009)]);
    let change = footer.headers().nth(2).unwrap();
    assert_eq!((change.kind, &change.change[..]), (EntryKind::JointMembership, &b"add 3"[..]));
    // Segment 9 has an object of its own; what is refused is nowhere.
    let object_of = |index, range| footer.locate(LogIndex(index), range).map(|at| at.object.name);
    assert_eq!(object_of(9, 0..50), Some(name(100)));
    assert_eq!(object_of(6, 0..6), Some(name(101)));
    assert_eq!(object_of(8, 5..10), None);
    assert_eq!(object_of(8, 4..6), None);
    assert_eq!(object_of(7, 0..1), None);
    assert_eq!(round.footer.reference.name, name(102));
}

#[test]
fn payload_of_one_owner_lies_together_and_is_shared_with_the_entries() {
    let entries = sample();
    let round = build(&entries, small(), None);
    let object = PackedObject::decode(name(101), bytes(&round.objects[1])).unwrap();
    let runs: Vec<_> = object.index.runs().map(|run| (run.owner, run.index.0, run.start)).collect();
    assert_eq!(runs, [(7, 6, 0), (7, 8, 10), (8, 8, 0)]);
    let together: Vec<_> = object.index.runs().map(|run| object.payload(&run)).collect();
    assert_eq!(together.concat(), b"seven!7eight");
    let pieces = round.objects[0].payload.pieces();
    assert!(pieces.iter().any(|piece| piece.as_ptr() == entries[4].data.as_ptr()));
}

#[test]
fn a_run_that_is_read_is_checked_and_the_error_names_its_object() {
    let round = sample_round();
    let at = footer(&round).locate(LogIndex(6), 1..3).unwrap();
    assert_eq!((at.start, at.end), (at.run.offset + 1, at.run.offset + 3));
    assert_eq!(at.check(b"seven!"), Ok(()));
    for wrong in [&b"seven?"[..], b"seven", b""] {
        assert_eq!(at.check(wrong).unwrap_err().object, name(101));
    }
}

#[test]
fn ten_thousand_slow_owners_need_one_object() {
    let payload = [1; 1_024];
    let entries: Vec<_> = (0..10_000_u64)
        .map(|at| normal(at + 1, 1, &[(b"append", &payload, Some(u128::from(at)))]))
        .collect();
    let round = build(&entries, RoundSettings::default(), None);
    assert_eq!(round.objects.len(), 1);
    assert_eq!(round.runs.len(), 10_000);
}

#[test]
fn a_round_follows_only_the_very_one_it_continues() {
    let entries = sample();
    let first = build(&entries[..2], small(), None);
    let finish = |entries: &[RoundEntry], continues| {
        let mut builder = RoundBuilder::new(small(), Some(continues), entries[0].index);
        entries.iter().for_each(|entry| assert_eq!(builder.push(entry), Ok(Taken::Yes)));
        footer(&builder.finish(name(200), b"").unwrap())
    };
    let previous = footer(&first);
    let next = finish(&entries[2..], first.footer.reference);
    assert_eq!(next.follows(&previous), Ok(()));
    assert!(previous.follows(&next).is_err());
    let other = ObjectRef { checksum: 1, ..first.footer.reference };
    assert!(finish(&entries[2..], other).follows(&previous).is_err());
    let gap = finish(&entries[3..], first.footer.reference).follows(&previous).unwrap_err();
    assert_eq!(gap.problem, Problem::impossible("first index", 8_u64));
    let back = finish(&[empty(7, 2)], first.footer.reference).follows(&previous).unwrap_err();
    assert_eq!(back.problem, Problem::impossible("first term", 2_u64));
}

#[test]
fn a_round_behind_lost_entries_says_so_and_follows_nothing() {
    let round = beginning_round();
    let found = footer(&round);
    let begins = found.begins.unwrap();
    assert_eq!((begins.first_lost, begins.checkpoint.name), (LogIndex(3), name(50)));
    assert_eq!(found.continues.unwrap().name, name(42));
    // Not even what it is said to continue, and were there no gap.
    let before = build(&[empty(4, 3)], small(), None);
    assert!(found.follows(&footer(&before)).is_err());
    let later =
        Beginning { checkpoint: ObjectRef { name: name(101), ..begins.checkpoint }, ..begins };
    let mut builder = RoundBuilder::new(small(), None, LogIndex(5)).behind(Some(later));
    assert_eq!(builder.push(&empty(5, 3)), Ok(Taken::Yes));
    let refused = builder.finish(name(100), b"").unwrap_err();
    assert!(matches!(refused, RoundError::Name { .. }), "{refused}");
}

#[derive(Debug, Clone)]
struct AnyOp {
    header: Vec<u8>,
    payload: Vec<u8>,
    owner: Option<u128>,
}

#[derive(Debug, Clone)]
enum AnyEntry {
    Empty,
    Membership(Vec<u8>),
    Normal(Vec<AnyOp>),
}

fn any_entry() -> impl Strategy<Value = AnyEntry> {
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
    let owner = prop::option::weighted(0.8, 0_u128..4);
    let op = (bytes(12), bytes(60), owner).prop_map(|(header, payload, owner)| AnyOp {
        header,
        payload,
        owner,
    });
    prop_oneof![
        1 => Just(AnyEntry::Empty),
        1 => bytes(20).prop_map(AnyEntry::Membership),
        6 => prop::collection::vec(op, 0..6).prop_map(AnyEntry::Normal),
    ]
}

fn materialize(index: u64, term: u64, entry: &AnyEntry) -> RoundEntry {
    match entry {
        AnyEntry::Empty => empty(index, term),
        AnyEntry::Membership(change) => RoundEntry {
            kind: EntryKind::Membership,
            data: change.clone().into(),
            ..empty(index, term)
        },
        AnyEntry::Normal(ops) => {
            let ops: Vec<_> =
                ops.iter().map(|op| (&op.header[..], &op.payload[..], op.owner)).collect();
            normal(index, term, &ops)
        }
    }
}

/// What every header must say, put together from the entry alone.
fn expected(entry: &RoundEntry) -> EntryHeader {
    let changes = entry.kind != EntryKind::Normal;
    EntryHeader {
        index: entry.index,
        term: entry.term,
        kind: entry.kind,
        feature_level: entry.feature_level,
        digest: entry.digest,
        data_bytes: entry.data.len() as u32,
        data_crc: crc32fast::hash(&entry.data),
        context: entry.context.clone(),
        change: if changes { entry.data.clone() } else { Bytes::new() },
    }
}

/// Reads a range of payload through the footer, as a reader would, and checks its run.
fn read(footer: &Footer, objects: &[Bytes], index: LogIndex, range: Range<u32>) -> Bytes {
    let at = footer.locate(index, range).expect("what has an owner is archived");
    let object = &objects[at.run.object as usize];
    let run = object.slice(at.run.in_object().start as usize..at.run.in_object().end as usize);
    assert_eq!(at.check(&run), Ok(()));
    object.slice(at.start as usize..at.end as usize)
}

proptest! {
    #[test]
    fn any_entries_read_back_from_their_round(
        first in 1_u64..1_000,
        plan in prop::collection::vec((any_entry(), 0_u64..2), 1..30),
        object_bytes in 100_u64..2_000,
        own_object_bytes in 1_u64..400,
    ) {
        let settings = RoundSettings {
            object_bytes: ByteSize(object_bytes),
            own_object_bytes: ByteSize(own_object_bytes),
        };
        let mut term = 1;
        let mut entries = Vec::new();
        for (at, (entry, step)) in plan.iter().enumerate() {
            term = (term + step).min(9);
            entries.push(materialize(first + at as u64, term, entry));
        }
        let round = build(&entries, settings, None);
        let footer = footer(&round);
        let headers: Vec<_> = footer.headers().collect();
        prop_assert_eq!(headers, entries.iter().map(expected).collect::<Vec<_>>());
        let objects: Vec<_> = round.objects.iter().map(bytes).collect();
        for entry in &entries {
            for (_, range) in entry.owned.iter().filter(|(_, range)| !range.is_empty()) {
                let payload = read(&footer, &objects, entry.index, range.clone());
                prop_assert_eq!(payload, &entry.data[range.start as usize..range.end as usize]);
            }
        }
        let mut indexed = 0;
        for (reference, object) in footer.objects.iter().zip(&objects) {
            let decoded = PackedObject::decode(reference.name, object.clone()).unwrap();
            prop_assert_eq!(&decoded.reference, reference);
            let runs: Vec<_> = decoded.index.runs().collect();
            prop_assert!(object.len() as u64 <= object_bytes || runs.len() == 1);
            let places: Vec<_> = runs.iter().map(|run| (run.owner, run.index, run.start)).collect();
            prop_assert!(places.is_sorted());
            let range =
                PackedIndex::range(reference.name, object.len() as u64, &object[object.len() - 12..])
                    .unwrap();
            let last = object.slice(range.start as usize..);
            let index = PackedIndex::decode(reference.name, object.len() as u64, &last).unwrap();
            prop_assert_eq!(index.runs().collect::<Vec<_>>(), runs.clone());
            indexed += runs.len();
        }
        prop_assert_eq!(indexed, footer.runs.len());
        let owned: usize = entries
            .iter()
            .flat_map(|entry| &entry.owned)
            .map(|(_, range)| range.len())
            .sum();
        prop_assert_eq!(footer.runs.iter().map(|run| run.bytes as usize).sum::<usize>(), owned);
    }
}
