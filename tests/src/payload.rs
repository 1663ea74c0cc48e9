//! Event payloads that say who wrote them, so that reading them back checks every byte.
//!
//! `writer u32 | number u64 | key u32 | filler`, the filler drawn from the three, its length from
//! the frame. The framing adds its own checksum.

use bytes::{Bytes, BytesMut};
use common::routing::position_of_key;
use common::{KeyRange, Rng};
use proto::framing::{self, EventRef};

use crate::history::Seen;

const HEAD_BYTES: usize = 16;

/// The routing key's text.
pub fn key_text(key: u32) -> String {
    format!("k{key}")
}

/// A key whose position lies in `range`, the first from `from` on.
pub fn key_in(range: KeyRange, from: u32) -> u32 {
    (from..).find(|key| range.contains(position_of_key(&key_text(*key)))).unwrap_or(from)
}

/// The payload of an event.
pub fn payload(writer: u32, number: u64, key: u32, filler: usize) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES + filler];
    bytes[..4].copy_from_slice(&writer.to_le_bytes());
    bytes[4..12].copy_from_slice(&number.to_le_bytes());
    bytes[12..HEAD_BYTES].copy_from_slice(&key.to_le_bytes());
    let seed = number ^ u64::from(writer) << 40 ^ u64::from(key) << 20;
    Rng::from_seed(seed).fill(&mut bytes[HEAD_BYTES..]);
    bytes
}

/// The framed event, as it lies in a segment.
pub fn frame(writer: u32, number: u64, key: u32, filler: usize) -> Bytes {
    let (payload, key) = (payload(writer, number, key, filler), key_text(key));
    let event = EventRef { key: Some(&key), ..EventRef::new(&payload) };
    let mut out = BytesMut::new();
    event.frame_into(&mut out).expect("simulated events are small");
    out.freeze()
}

/// The events in `bytes`, which begin at `offset` of a segment; with the offset behind the last
/// complete one. Bytes that are no event end the list with one that is not intact.
pub fn parse(mut bytes: Bytes, mut offset: u64) -> (Vec<Seen>, u64) {
    let mut events = Vec::new();
    loop {
        match framing::take_event(&mut bytes) {
            Ok(Some(event)) => {
                events.push(seen(&event, offset));
                offset += event.frame_bytes as u64;
            }
            Ok(None) => return (events, offset),
            Err(_) => {
                events.push(Seen { offset, writer: 0, number: 0, key: 0, intact: false });
                return (events, offset + 1);
            }
        }
    }
}

fn seen(event: &framing::FramedEvent, offset: u64) -> Seen {
    let word = |at: usize| event.payload.get(at..at + 4).and_then(|b| b.try_into().ok());
    let number = |at: usize| word(at).map_or(0, u32::from_le_bytes);
    let (writer, key) = (number(0), number(12));
    let number = u64::from(number(4)) | u64::from(number(8)) << 32;
    let filler = event.payload.len().saturating_sub(HEAD_BYTES);
    let intact = event.payload == payload(writer, number, key, filler)
        && event.key_text() == Some(key_text(key).as_str());
    Seen { offset, writer, number, key, intact }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_back_and_a_changed_byte_shows() {
        let mut bytes = BytesMut::new();
        bytes.extend_from_slice(&frame(3, 1 << 33, 7, 100));
        let second = bytes.len() as u64;
        bytes.extend_from_slice(&frame(4, 2, 8, 0));
        let end = bytes.len() as u64;
        let (events, next) = parse(bytes.clone().freeze(), 1_000);
        assert_eq!(next, 1_000 + end);
        let expected = [
            Seen { offset: 1_000, writer: 3, number: 1 << 33, key: 7, intact: true },
            Seen { offset: 1_000 + second, writer: 4, number: 2, key: 8, intact: true },
        ];
        assert_eq!(events, expected);
        bytes[60] ^= 1;
        assert!(!parse(bytes.freeze(), 0).0[0].intact);
    }

    #[test]
    fn an_event_of_another_writer_under_a_right_checksum_is_not_intact() {
        let body =
            [payload(1, 1, 5, 8)[..16].to_vec(), payload(2, 1, 5, 8)[16..].to_vec()].concat();
        let event = EventRef { key: Some("k5"), ..EventRef::new(&body) };
        let mut out = BytesMut::new();
        event.frame_into(&mut out).unwrap();
        assert!(!parse(out.freeze(), 0).0[0].intact);
    }
}
