use proptest::prelude::*;

use super::*;

const HEADERS: [Header<'static>; 2] =
    [Header { name: "a", value: b"\xff" }, Header { name: "bc", value: b"" }];

/// An event that has every part.
fn with_all(payload: &[u8]) -> EventRef<'_> {
    EventRef { key: Some("k"), time_micros: Some(1), headers: &HEADERS, payload }
}

fn framed(event: &EventRef<'_>) -> Bytes {
    let mut out = BytesMut::new();
    event.frame_into(&mut out).unwrap();
    out.freeze()
}

#[test]
fn the_golden_frame_keeps_its_bytes() {
    let event = EventRef {
        key: Some("DTW"),
        time_micros: Some(978_310_020_000_000),
        ..EventRef::new(b"hello")
    };
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
        headers in proptest::collection::vec((".{1,60}", any::<Vec<u8>>()), 0..5),
        payload in proptest::collection::vec(any::<u8>(), 0..2_000),
    ) {
        let headers: Vec<_> = headers.iter().map(|(n, v)| Header::new(n, v)).collect();
        let event =
            EventRef { key: key.as_deref(), time_micros, headers: &headers, payload: &payload };
        let mut bytes = framed(&event);
        prop_assert_eq!(bytes.len(), event.frame_bytes().unwrap());
        let read = take_event(&mut bytes).unwrap().unwrap();
        prop_assert!(bytes.is_empty());
        prop_assert_eq!(read.key_text(), key.as_deref());
        prop_assert_eq!(read.time_micros, time_micros);
        prop_assert_eq!(read.headers.iter().collect::<Vec<_>>(), &headers[..]);
        prop_assert_eq!(read.headers.is_empty(), headers.is_empty());
        prop_assert_eq!(Headers::try_from(&headers[..]).unwrap(), read.headers);
        prop_assert_eq!(&read.payload[..], &payload[..]);
    }

    #[test]
    fn a_frame_cut_short_waits_for_more(cut in 0_usize..34) {
        let whole = framed(&with_all(b"1234567"));
        let mut part = whole.slice(..cut.min(whole.len() - 1));
        let before = part.clone();
        prop_assert_eq!(take_event(&mut part).unwrap(), None);
        prop_assert_eq!(part, before);
    }

    #[test]
    fn a_flipped_bit_is_never_read_as_an_event(bit in 0_usize..(35 * 8)) {
        let whole = framed(&with_all(b"12345678"));
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
    for flag in [FLAG_COMPRESSED, FLAG_SCHEMA, 1 << 7] {
        let mut bytes = framed(&EventRef::new(b"x")).to_vec();
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
    let event = EventRef::new(&payload[..fits]);
    assert_eq!(event.frame_bytes(), Ok(EVENT_BYTES_MAX));
    assert!(take_event(&mut framed(&event)).unwrap().is_some());
    let event = EventRef::new(&payload[..fits + 1]);
    assert_eq!(event.frame_bytes(), Err(EventError::TooLarge { bytes: EVENT_BYTES_MAX + 1 }));
    let key = "k".repeat(ROUTING_KEY_BYTES_MAX + 1);
    let event = EventRef { key: Some(&key), ..EventRef::new(b"") };
    assert!(matches!(event.frame_bytes(), Err(EventError::KeyTooLong { .. })));
}

#[test]
fn an_impossible_length_is_refused_before_anything_is_waited_for() {
    for length in [0_u32, EVENT_BYTES_MAX as u32, u32::MAX] {
        let mut bytes = Bytes::copy_from_slice(&length.to_le_bytes());
        assert_eq!(take_event(&mut bytes), Err(FramingError::BadLength(length)));
    }
}

#[test]
fn the_golden_frame_with_headers_keeps_its_bytes() {
    let frame = framed(&with_all(b"hello"));
    let expected: [u8; 33] = [
        0x19, 0x0, 0x0, 0x0, 0xd0, 0xfb, 0x44, 0x4b, 0x7, 0x1, 0x6b, 0x1, 0x0, 0x0, 0x0, 0x0, 0x0,
        0x0, 0x0, 0x8, 0x1, 0x61, 0x1, 0xff, 0x2, 0x62, 0x63, 0x0, 0x68, 0x65, 0x6c, 0x6c, 0x6f,
    ];
    assert_eq!(frame[..], expected);
}

#[test]
fn a_plain_event_pays_nothing_for_headers() {
    let event = EventRef { key: Some("k"), ..EventRef::new(b"x") };
    let read = take_event(&mut framed(&event)).unwrap().unwrap();
    assert_eq!(read.frame_bytes, PREFIX_BYTES + 1 + 2 + 1);
    assert!(read.headers.is_empty() && read.headers.get("a").is_none());
    assert_eq!(size_of::<Headers>(), size_of::<usize>());
}

#[test]
fn headers_beyond_a_limit_are_refused_and_up_to_it_accepted() {
    let framed_bytes =
        |headers: &[Header<'_>]| EventRef { headers, ..EventRef::new(b"") }.frame_bytes().map(drop);
    let header = Header::new("n", "v");
    assert_eq!(framed_bytes(&[header; HEADERS_MAX]), Ok(()));
    let count = HEADERS_MAX + 1;
    assert_eq!(framed_bytes(&vec![header; count]), Err(EventError::TooManyHeaders { count }));
    let name = "n".repeat(HEADER_NAME_BYTES_MAX + 1);
    assert_eq!(framed_bytes(&[Header::new(&name[1..], "")]), Ok(()));
    for name in [name.as_str(), ""] {
        let refused = Err(EventError::HeaderName { name: name.to_owned() });
        assert_eq!(framed_bytes(&[Header::new(name, "")]), refused);
    }
    let value = vec![0; HEADERS_BYTES_MAX];
    assert_eq!(framed_bytes(&[Header::new("n", &value[1..])]), Ok(()));
    let bytes = HEADERS_BYTES_MAX + 1;
    let refused = Err(EventError::HeadersTooLarge { bytes });
    assert_eq!(framed_bytes(&[Header::new("n", &value)]), refused);
}

#[test]
fn headers_that_are_not_whole_are_refused() {
    // Their length, then a name of no bytes, one that is no text, one or a value that is cut short.
    let cases: [&[u8]; 6] = [
        &[3, 0, 1, 7],
        &[3, 1, 0xff, 0],
        &[2, 2, b'a'],
        &[2, 1, b'a'],
        &[3, 1, b'a', 1],
        &[9, 1, b'a', 0],
    ];
    for part in cases {
        let mut bytes = framed(&EventRef::new(part)).to_vec();
        bytes[8] |= FLAG_HEADERS;
        let crc = crc32fast::hash(&bytes[8..]).to_le_bytes();
        bytes[4..8].copy_from_slice(&crc);
        assert_eq!(take_event(&mut Bytes::from(bytes)), Err(FramingError::BadParts), "{part:?}");
    }
}
