use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn draft() -> CheckpointDraft {
    CheckpointDraft {
        applied: Applied { index: LogIndex(7), term: Term(2), ..Applied::default() },
        feature_level: FeatureLevel::FIRST,
        membership: Bytes::from_static(b"voters"),
    }
}

fn decode(sealed: &Sealed) -> Checkpoint {
    Checkpoint::decode(sealed.reference.name, &bytes(sealed)).unwrap()
}

#[test]
fn a_checkpoint_tells_its_place_and_its_chunks_hold_the_sorted_state() {
    let (chunks, sealed) = sample_checkpoint();
    let checkpoint = decode(&sealed);
    assert_eq!((checkpoint.index(), checkpoint.applied.digest), (LogIndex(77), 7));
    assert_eq!(checkpoint.feature_level, FeatureLevel(2));
    assert_eq!(checkpoint.membership, &b"voters 1"[..]);
    let first_keys: Vec<_> = checkpoint.chunks.iter().map(|chunk| &chunk.first_key[..]).collect();
    assert_eq!(first_keys, [&b"a"[..], b"c"]);
    let second = checkpoint.chunk(1, &bytes(&chunks[1])).unwrap();
    assert_eq!(second.pairs().collect::<Vec<_>>(), [("c".into(), "fourth".into())]);
}

#[test]
fn an_empty_state_is_a_checkpoint_without_chunks() {
    let writer = CheckpointWriter::new(CheckpointSettings::default(), draft()).unwrap();
    let (chunk, sealed) = writer.finish(names(1)).unwrap();
    assert!(chunk.is_none());
    assert_eq!((decode(&sealed).pairs, decode(&sealed).chunks.len()), (0, 0));
}

#[test]
fn a_chunk_of_the_same_name_with_other_state_is_refused() {
    let write = |value: &[u8]| {
        let mut writer = CheckpointWriter::new(CheckpointSettings::default(), draft()).unwrap();
        writer.push(&"k".into(), value, names(1)).unwrap();
        writer.finish(names(1)).unwrap()
    };
    let (_, sealed) = write(b"one");
    let (other, _) = write(b"two");
    let error = decode(&sealed).chunk(0, &bytes(&other.unwrap())).unwrap_err();
    assert!(matches!(error.problem, Problem::Replaced { .. }), "{error}");
}

#[test]
fn keys_out_of_order_pairs_too_large_and_names_that_go_back_are_refused() {
    let new = || {
        let settings = CheckpointSettings { chunk_bytes: ByteSize(1) };
        let mut writer = CheckpointWriter::new(settings, draft()).unwrap();
        assert!(writer.push(&"k".into(), b"v", names(5)).unwrap().is_none());
        writer
    };
    for key in ["k", "a", ""] {
        let error = new().push(&key.into(), b"v", names(5)).unwrap_err();
        assert_eq!(error, CheckpointError::Order(key.into()));
    }
    let value = vec![0; lts::OBJECT_BYTES_MAX as usize];
    let error = new().push(&"l".into(), &value, names(5)).unwrap_err();
    assert!(matches!(error, CheckpointError::TooLarge { .. }));
    for second in [name(5), name(4), ObjectName { term: Term(10), ..name(6) }] {
        let mut writer = new();
        assert!(writer.push(&"l".into(), b"v", names(5)).unwrap().is_some());
        let error = writer.push(&"m".into(), b"v", || second).unwrap_err();
        assert_eq!(error, CheckpointError::Name { name: second, before: name(5) });
    }
}

proptest! {
    #[test]
    fn any_state_reads_back_from_its_checkpoint(
        state in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 0..6),
            prop::collection::vec(any::<u8>(), 0..40),
            0..60,
        ),
        chunk_bytes in 1_u64..600,
    ) {
        let settings = CheckpointSettings { chunk_bytes: ByteSize(chunk_bytes) };
        let mut writer = CheckpointWriter::new(settings, draft()).unwrap();
        let mut names = names(1);
        let mut chunks = Vec::new();
        for (key, value) in &state {
            chunks.extend(writer.push(&key.clone().into(), value, &mut names).unwrap());
        }
        let (last, sealed) = writer.finish(&mut names).unwrap();
        chunks.extend(last);
        let checkpoint = decode(&sealed);
        prop_assert_eq!(&checkpoint.applied, &draft().applied);
        prop_assert_eq!(checkpoint.pairs, state.len() as u64);
        prop_assert_eq!(checkpoint.chunks.len(), chunks.len());
        let mut read = BTreeMap::new();
        for (ordinal, chunk) in chunks.iter().enumerate() {
            let object = bytes(chunk);
            let decoded = checkpoint.chunk(ordinal, &object).unwrap();
            prop_assert!(object.len() as u64 <= chunk_bytes || decoded.pairs().count() == 1);
            read.extend(decoded.pairs().map(|(key, value)| (key.to_vec(), value.to_vec())));
        }
        prop_assert_eq!(read, state);
    }
}
