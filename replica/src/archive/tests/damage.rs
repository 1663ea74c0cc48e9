//! No damage is believed: every single bit, every missing byte, every byte too many, and bytes that
//! only pretend to be whole.

use proptest::prelude::*;

use super::*;

type Decode = fn(ObjectName, &Bytes) -> Result<(), ObjectError>;

fn decode_footer(name: ObjectName, bytes: &Bytes) -> Result<(), ObjectError> {
    let footer = Footer::decode(name, bytes)?;
    let stamped = footer.headers().filter(|header| header.stamp().is_some()).count();
    assert!(stamped <= footer.headers().len());
    for run in footer.runs.iter() {
        let end = run.start + run.bytes;
        assert!(footer.locate(run.index, run.start..end).is_some(), "{run:?}");
    }
    Ok(())
}

fn decode_packed(name: ObjectName, bytes: &Bytes) -> Result<(), ObjectError> {
    let object = PackedObject::decode(name, bytes.clone())?;
    object.index.runs().for_each(|run| drop(object.payload(&run)));
    Ok(())
}

fn decode_index(name: ObjectName, bytes: &Bytes) -> Result<(), ObjectError> {
    let index = PackedIndex::decode(name, bytes.len() as u64, bytes)?;
    index.runs().for_each(drop);
    Ok(())
}

fn decode_checkpoint(name: ObjectName, bytes: &Bytes) -> Result<(), ObjectError> {
    Checkpoint::decode(name, bytes).map(drop)
}

/// Always of the sample's first chunk.
fn decode_chunk(_: ObjectName, bytes: &Bytes) -> Result<(), ObjectError> {
    let (_, checkpoint) = sample_checkpoint();
    let checkpoint = Checkpoint::decode(checkpoint.reference.name, &super::bytes(&checkpoint))?;
    checkpoint.chunk(0, bytes)?.pairs().for_each(drop);
    Ok(())
}

/// One object of each kind, with what reads it.
fn objects() -> Vec<(Decode, Sealed)> {
    let round = sample_round();
    let (chunks, checkpoint) = sample_checkpoint();
    vec![
        (decode_footer, round.footer),
        (decode_packed, round.objects[0].clone()),
        (decode_packed, round.objects[1].clone()),
        (decode_checkpoint, checkpoint),
        (decode_chunk, chunks[0].clone()),
    ]
}

#[test]
fn every_single_changed_bit_is_found() {
    for (decode, sealed) in objects() {
        let (name, whole) = (sealed.reference.name, bytes(&sealed));
        assert_eq!(decode(name, &whole), Ok(()));
        for bit in 0..8 * whole.len() {
            let mut damaged = whole.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(name, &damaged.into()).is_err(), "bit {bit} of `{name}`");
        }
    }
}

#[test]
fn an_object_that_is_cut_short_or_goes_on_is_found_at_every_byte() {
    for (decode, sealed) in objects() {
        let (name, whole) = (sealed.reference.name, bytes(&sealed));
        for length in 0..whole.len() {
            assert!(decode(name, &whole.slice(..length)).is_err(), "{length} bytes of `{name}`");
        }
        let longer: Bytes = [&whole[..], &[0]].concat().into();
        assert!(decode(name, &longer).is_err());
    }
}

#[test]
fn an_index_that_is_read_alone_finds_every_changed_bit_and_another_length() {
    let sealed = &sample_round().objects[1];
    let (name, whole) = (sealed.reference.name, bytes(sealed));
    assert_eq!(decode_index(name, &whole), Ok(()));
    let length = whole.len() as u64;
    let begin = PackedIndex::range(name, length, &whole).unwrap().start as usize;
    // The last four bytes are the frame's.
    for bit in 8 * begin..8 * (whole.len() - 4) {
        let mut damaged = whole.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let damaged = Bytes::from(damaged);
        assert!(decode_index(name, &damaged).is_err(), "bit {bit}");
    }
    let index = whole.slice(begin..);
    assert!(PackedIndex::decode(name, length, &index).is_ok());
    assert!(PackedIndex::decode(name, length + 1, &index).is_err());
    assert!(PackedIndex::decode(name, length, &whole.slice(begin + 1..)).is_err());
    assert!(PackedIndex::decode(super::name(1), length, &index).is_err());
}

#[test]
fn another_object_in_the_place_of_one_is_found_and_both_are_named() {
    let round = sample_round();
    let [own, shared] = &round.objects[..] else { panic!("two objects") };
    let error = PackedObject::decode(name(100), bytes(shared)).unwrap_err();
    assert_eq!(error.problem, Problem::OtherName(name(101)));
    let text = error.to_string();
    assert!(text.contains(&name(100).to_string()) && text.contains(&name(101).to_string()));
    let error = Footer::decode(name(100), &bytes(own)).unwrap_err();
    assert_eq!(error.problem, Problem::Kind { expected: "a round's footer", found: 1 });
    let other = ObjectRef { checksum: 0, ..own.reference };
    let error = own.reference.expect(&other).unwrap_err();
    assert!(matches!(error.problem, Problem::Replaced { found_checksum: 0, .. }));
}

#[test]
fn the_first_bytes_tell_what_an_object_is() {
    let kinds = objects().into_iter().map(|(_, sealed)| {
        let name = sealed.reference.name;
        let first = bytes(&sealed).slice(..Kind::PEEK_BYTES);
        let other = Kind::peek(ObjectName { group: GroupId(3), ..name }, &first).unwrap_err();
        assert_eq!(other.problem, Problem::OtherName(name));
        assert!(Kind::peek(name, &first[..Kind::PEEK_BYTES - 1]).is_err());
        Kind::peek(name, &first).unwrap()
    });
    let expected = [Kind::Footer, Kind::Packed, Kind::Packed, Kind::Checkpoint, Kind::Chunk];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
}

#[test]
fn checksums_tell_objects_apart() {
    // The crc of bytes that end with their own crc is the same number for all bytes.
    let round = sample_round();
    let whole: Vec<_> =
        round.objects.iter().map(|object| crc32fast::hash(&bytes(object))).collect();
    assert_eq!(whole[0], whole[1]);
    let [own, shared] = &round.objects[..] else { panic!("two objects") };
    assert_ne!(own.reference.checksum, shared.reference.checksum);
}

#[test]
fn a_newer_version_is_refused_as_such() {
    let round = sample_round();
    let mut newer = bytes(&round.footer).to_vec();
    newer[0] = 2;
    let error = Footer::decode(round.footer.reference.name, &newer.into()).unwrap_err();
    assert_eq!(error.problem, Problem::Version(2));
    assert!(
        error
            .to_string()
            .ends_with("has version 2, which is unknown to this build; run a newer one")
    );
}

/// The same object with other bytes in its body, and a checksum that is right again.
fn forge(whole: &[u8], changes: &[(usize, u8)]) -> Bytes {
    let mut bytes = whole.to_vec();
    let body = 32..whole.len() - 4;
    for (at, to) in changes {
        bytes[body.start + at % body.len()] = *to;
    }
    let crc = crc32fast::hash(&bytes[..body.end]);
    bytes[body.end..].copy_from_slice(&crc.to_le_bytes());
    bytes.into()
}

#[test]
fn hostile_counts_and_lengths_are_refused_before_anything_is_made_of_them() {
    for (decode, sealed) in objects() {
        let whole = bytes(&sealed);
        for at in 0..whole.len() - FRAME_BYTES - 4 {
            for word in [u32::MAX, u32::MAX / 2, 1 << 28] {
                let words = word.to_le_bytes();
                let changes: Vec<_> =
                    words.iter().enumerate().map(|(i, to)| (at + i, *to)).collect();
                // Whatever comes of it: no panic, and no allocation beyond what there is.
                drop(decode(sealed.reference.name, &forge(&whole, &changes)));
            }
        }
    }
}

#[test]
fn runs_outside_their_entry_or_object_are_refused() {
    let round = sample_round();
    let whole = bytes(&round.footer);
    let rows = whole.len()
        - FRAME_BYTES
        - footer(&round).headers().map(|header| header.encoded_bytes()).sum::<usize>()
        - 4 * 28;
    // Of the first run: log index, start, bytes, object, offset (behind its object's end).
    for (at, to) in [(0, 200), (8, 9), (12, 200), (16, 2), (20, 255), (20, 1)] {
        let forged = forge(&whole, &[(rows + at, to)]);
        let found = Footer::decode(round.footer.reference.name, &forged);
        assert!(matches!(found.unwrap_err().problem, Problem::Impossible { .. }), "byte {at}");
    }
}

#[test]
fn an_object_that_says_another_length_than_it_has_is_refused_though_its_checksum_is_right() {
    for (decode, sealed) in objects() {
        let whole = bytes(&sealed);
        let cut = [&whole[..whole.len() - FRAME_BYTES], &[0; 4]].concat();
        let error = decode(sealed.reference.name, &forge(&cut, &[])).unwrap_err();
        let (have, declared) = (cut.len() as u64, whole.len() as u64);
        assert_eq!(error.problem, Problem::Length { have, declared });
    }
}

#[test]
fn an_index_whose_runs_do_not_add_up_to_the_object_is_refused() {
    let sealed = &sample_round().objects[1];
    let (name, whole) = (sealed.reference.name, bytes(sealed));
    let begin = PackedIndex::range(name, whole.len() as u64, &whole).unwrap().start as usize;
    // The length of the first run, behind owner, count, log index and start.
    let mut forged = whole.to_vec();
    forged[begin + 16 + 4 + 8 + 4] += 1;
    let covered = [&forged[..32], &forged[begin..forged.len() - 8]].concat();
    let at = forged.len() - 8;
    forged[at..at + 4].copy_from_slice(&crc32fast::hash(&covered).to_le_bytes());
    let error = decode_index(name, &forged.into()).unwrap_err();
    let (have, declared) = (whole.len() as u64, whole.len() as u64 + 1);
    assert_eq!(error.problem, Problem::Length { have, declared });
}

#[test]
fn terms_that_fall_or_are_above_that_of_the_name_are_refused() {
    let round = sample_round();
    let whole = bytes(&round.footer);
    let headers: Vec<_> = footer(&round).headers().collect();
    let mut at = whole.len() - FRAME_BYTES;
    at -= headers.iter().map(|header| header.encoded_bytes()).sum::<usize>();
    for (header, wrong) in headers.iter().zip([10, 2, 2, 2, 3]) {
        let forged = forge(&whole, &[(at, wrong)]);
        let error = Footer::decode(round.footer.reference.name, &forged).unwrap_err();
        assert_eq!(error.problem, Problem::impossible("term", u64::from(wrong)));
        at += header.encoded_bytes();
    }
}

#[test]
fn a_chunk_whose_keys_fall_or_reach_into_the_next_one_is_refused() {
    let (chunks, sealed) = sample_checkpoint();
    let mut checkpoint = Checkpoint::decode(sealed.reference.name, &bytes(&sealed)).unwrap();
    let whole = bytes(&chunks[0]);
    // The chunk holds `a` = `first`, `ab` = ``, `b` = `third`.
    let (a, ab, b) = (8, 8 + 6 + 8, 8 + 6 + 8 + 2 + 8);
    for (at, to) in [(a, b'A'), (ab, b'A'), (b, b'a'), (b, b'c')] {
        let forged = forge(&whole, &[(at, to)]);
        let crc = &forged[forged.len() - 4..];
        let checksum = u32::from_le_bytes(crc.try_into().unwrap());
        checkpoint.chunks[0].object.checksum = checksum;
        let error = checkpoint.chunk(0, &forged).unwrap_err();
        assert!(matches!(error.problem, Problem::Impossible { field: "pair", .. }), "{error}");
    }
}

proptest! {
    #[test]
    fn bytes_that_pretend_to_be_whole_never_make_a_reader_panic(
        which in 0_usize..5,
        changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let (decode, sealed) = objects().swap_remove(which);
        drop(decode(sealed.reference.name, &forge(&bytes(&sealed), &changes)));
    }

    #[test]
    fn arbitrary_bytes_are_no_object(mut any in prop::collection::vec(any::<u8>(), 0..120)) {
        for version in [None, Some(1)] {
            if let (Some(first), Some(version)) = (any.first_mut(), version) {
                *first = version;
            }
            for (decode, sealed) in objects() {
                prop_assert!(decode(sealed.reference.name, &any.clone().into()).is_err());
            }
        }
    }
}
