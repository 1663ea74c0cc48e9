use proptest::prelude::*;

use super::*;

fn framed(event: &EventRef<'_>) -> Bytes {
    let mut out = BytesMut::new();
    event.frame_into(&mut out).unwrap();
    out.freeze()
}

#[test]
fn the_golden_frame_keeps_its_bytes() {
    let event =
        EventRef { key: Some("DTW"), time_micros: Some(978_310_020_000_000), payload: b"hello" };
    let expected: [u8; 26] = [
        0x12, 0x0, 0x0, 0x0, 0xb2, 0x91, 0xeb, 0xa1, 0x3, 0x3, 0x44, 0x54, 0x57, 0x0, 0xe9, 0x38,
        0x8d, 0xc4, 0x79, 0x3, 0x0, 0x68, 0x65, 0x6c, 0x6c, 0x6f,
    ];
    assert_eq!(framed(&event)[..], expected);
}

proptest! {
    #[test]
    fn every_event_reads_back_from_its_frame(
        key in proptest::option::of(".{0,300}"),
        time_micros: Option<i64>,
        payload in proptest::collection::vec(any::<u8>(), 0..2_000),
    ) {
        let event = EventRef { key: key.as_deref(), time_micros, payload: &payload };
        let mut bytes = framed(&event);
        prop_assert_eq!(bytes.len(), event.frame_bytes().unwrap());
        let read = take_event(&mut bytes).unwrap().unwrap();
        prop_assert!(bytes.is_empty());
        prop_assert_eq!(read.key_text(), key.as_deref());
        prop_assert_eq!(read.time_micros, time_micros);
        prop_assert_eq!(&read.payload[..], &payload[..]);
    }

    #[test]
    fn a_frame_cut_short_waits_for_more(cut in 0_usize..25) {
        let whole = framed(&EventRef { key: Some("k"), time_micros: Some(1), payload: b"1234567" });
        let mut part = whole.slice(..cut.min(whole.len() - 1));
        let before = part.clone();
        prop_assert_eq!(take_event(&mut part).unwrap(), None);
        prop_assert_eq!(part, before);
    }

    #[test]
    fn a_flipped_bit_is_never_read_as_an_event(bit in 0_usize..(26 * 8)) {
        let whole = framed(&EventRef { key: Some("k"), time_micros: Some(1), payload: b"12345678" });
        let mut flipped = whole.to_vec();
        prop_assume!(bit / 8 < flipped.len());
        flipped[bit / 8] ^= 1 << (bit % 8);
        // A longer length waits for bytes that never come; everything else is an error.
        prop_assert!(!matches!(take_event(&mut Bytes::from(flipped)), Ok(Some(_))));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = take_event(&mut Bytes::from(bytes));
    }
}

#[test]
fn an_unknown_flag_is_refused_not_guessed() {
    for flag in [FLAG_HEADERS, FLAG_COMPRESSED, FLAG_SCHEMA, 1 << 7] {
        let mut bytes = framed(&EventRef { key: None, time_micros: None, payload: b"x" }).to_vec();
        bytes[8] |= flag;
        let crc = crc32fast::hash(&bytes[8..]).to_le_bytes();
        bytes[4..8].copy_from_slice(&crc);
        assert_eq!(take_event(&mut Bytes::from(bytes)), Err(FramingError::UnknownFlags(flag)));
    }
}

#[test]
fn sizes_at_the_limit_are_accepted_and_beyond_it_refused() {
    let payload = vec![7; EVENT_BYTES_MAX];
    let fits = EVENT_BYTES_MAX - PREFIX_BYTES - 1;
    let event = EventRef { key: None, time_micros: None, payload: &payload[..fits] };
    assert_eq!(event.frame_bytes(), Ok(EVENT_BYTES_MAX));
    assert!(take_event(&mut framed(&event)).unwrap().is_some());
    let event = EventRef { key: None, time_micros: None, payload: &payload[..fits + 1] };
    assert_eq!(event.frame_bytes(), Err(EventError::TooLarge { bytes: EVENT_BYTES_MAX + 1 }));
    let key = "k".repeat(ROUTING_KEY_BYTES_MAX + 1);
    let event = EventRef { key: Some(&key), time_micros: None, payload: b"" };
    assert!(matches!(event.frame_bytes(), Err(EventError::KeyTooLong { .. })));
}

#[test]
fn an_impossible_length_is_refused_before_anything_is_waited_for() {
    for length in [0_u32, EVENT_BYTES_MAX as u32, u32::MAX] {
        let mut bytes = Bytes::copy_from_slice(&length.to_le_bytes());
        assert_eq!(take_event(&mut bytes), Err(FramingError::BadLength(length)));
    }
}
