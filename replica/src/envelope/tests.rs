use common::{GroupId, LogIndex, Term};
use proptest::prelude::*;

use super::*;
use crate::entry::Entry;

fn stamp() -> Stamp {
    Stamp { wall: WallTime(0x0102_0304_0506_0708), up_micros: 9 }
}

#[test]
fn the_encoding_is_what_it_was() {
    let (context, data) = encode(stamp(), &[(b"ab", b"xyz"), (b"", b""), (b"c", b"w")]);
    let golden: &[u8] = &[
        1, // version
        8, 7, 6, 5, 4, 3, 2, 1, // wall
        9, 0, 0, 0, 0, 0, 0, 0, // up
        3, 0, 0, 0, // operations
        2, 0, 0, 0, 3, 0, 0, 0, b'a', b'b', //
        0, 0, 0, 0, 0, 0, 0, 0, //
        1, 0, 0, 0, 1, 0, 0, 0, b'c',
    ];
    assert_eq!(context, golden);
    assert_eq!(data, &b"xyzw"[..]);
}

#[test]
fn operations_read_back_in_order_with_their_payloads() {
    let (context, data) = encode(stamp(), &[(b"ab", b"xyz"), (b"c", b"w")]);
    let entry = Entry::decode(GroupId(2), LogIndex(5), Term(1), &context, &data).unwrap();
    assert_eq!((entry.len(), entry.stamp), (2, stamp()));
    let read: Vec<_> = entry
        .operations()
        .map(|op| (entry.header_bytes(&op), entry.payload_bytes(&op).unwrap()))
        .collect();
    assert_eq!(read[0], (Bytes::from_static(b"ab"), Bytes::from_static(b"xyz")));
    assert_eq!(read[1], (Bytes::from_static(b"c"), Bytes::from_static(b"w")));
}

#[test]
fn damage_is_told_apart() {
    let (context, data) = encode(stamp(), &[(b"ab", b"xyz")]);
    assert_eq!(check(&[], 0).err(), Some(EnvelopeError::Short { have: 0, need: HEAD_BYTES }));
    assert_eq!(check(&[9], 0).err(), Some(EnvelopeError::Version(9)));
    assert_eq!(check(&context, 2).err(), Some(EnvelopeError::Payload { declared: 3, have: 2 }));
    let longer = [&context[..], b"?"].concat();
    assert_eq!(check(&longer, data.len()).err(), Some(EnvelopeError::Trailing(1)));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(context in prop::collection::vec(any::<u8>(), 0..80), len in 0_usize..64) {
        let mut versioned = context.clone();
        if let Some(first) = versioned.first_mut() {
            *first = VERSION;
        }
        for bytes in [context, versioned] {
            if let Ok(head) = check(&bytes, len) {
                let total: usize = Operations::new(&bytes, head.operations).map(|op| op.payload.len()).sum();
                prop_assert_eq!(total, len);
            }
        }
    }
}
