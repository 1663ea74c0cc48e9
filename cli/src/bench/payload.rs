//! What measuring writes: events that say who sent them, when, and which in the order they are,
//! so that what is read can be checked for loss, doubles, order and damage.
//!
//! ```text
//! writer u32 | key u32 | number u64 | sent u64 ns | crc32 u32 of what precedes | fill
//! ```
//!
//! `number` counts the events of one writer with one key, from 1. The fill is the same in every
//! event and does not compress.

use common::Rng;

/// Bytes before the fill: the smallest event that can be checked.
pub(super) const HEADER_BYTES: usize = 28;

/// What an event says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) writer: u32,
    pub(super) key: u32,
    pub(super) number: u64,
    /// When it was meant to be sent, by the clock of the run.
    pub(super) sent_nanos: u64,
}

/// Makes events of one size, in place.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    bytes: Vec<u8>,
}

impl Payload {
    /// Panics when an event of `size` bytes has no room for the header.
    pub(super) fn new(size: usize) -> Self {
        assert!(size >= HEADER_BYTES, "an event holds its header");
        let mut bytes = vec![0; size];
        Rng::from_seed(0).fill(&mut bytes[HEADER_BYTES..]);
        Self { bytes }
    }

    /// The event with this header.
    pub(super) fn with(&mut self, header: Header) -> &[u8] {
        let bytes = &mut self.bytes;
        bytes[0..4].copy_from_slice(&header.writer.to_le_bytes());
        bytes[4..8].copy_from_slice(&header.key.to_le_bytes());
        bytes[8..16].copy_from_slice(&header.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&header.sent_nanos.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..24]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header of an event that is in every byte as it was sent.
    pub(super) fn open(&self, event: &[u8]) -> Result<Header, String> {
        if event.len() != self.bytes.len() {
            let expected = self.bytes.len();
            return Err(format!("an event has {} bytes instead of {expected}", event.len()));
        }
        let u32_at = |at: usize| {
            u32::from_le_bytes([event[at], event[at + 1], event[at + 2], event[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if crc32fast::hash(&event[..24]) != u32_at(24) {
            return Err("an event's header does not have its checksum".to_owned());
        }
        if event[HEADER_BYTES..] != self.bytes[HEADER_BYTES..] {
            return Err("an event's bytes are not those that were sent".to_owned());
        }
        Ok(Header { writer: u32_at(0), key: u32_at(4), number: u64_at(8), sent_nanos: u64_at(16) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_noticed() {
        let header = Header { writer: 1, key: 2, number: 1 << 40, sent_nanos: u64::MAX };
        let mut payload = Payload::new(40);
        let sent = payload.with(header).to_vec();
        assert_eq!(payload.open(&sent), Ok(header));
        for i in 0..sent.len() {
            let mut damaged = sent.clone();
            damaged[i] ^= 0x10;
            assert!(payload.open(&damaged).is_err(), "byte {i}");
        }
        assert!(payload.open(&sent[1..]).is_err());
    }
}
