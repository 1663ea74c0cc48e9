//! Where an event goes: the mapping from routing keys to the key space. Fixed for ever.
//!
//! - With a routing key: XXH3-64 (seed 0) of the key's UTF-8 bytes.
//! - Without: XXH3-64 (seed 0) of the writer's identity (a named writer's name bytes, or the 16
//!   random bytes of an anonymous one), a zero byte, and the event number as u64 little-endian, so
//!   that a resumed writer sends the event to the same place.
//!
//! The test vectors below are part of the format: a client in another language must give the same.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::ids::EventNumber;
use crate::key_range::KeyPosition;

/// The position of a routing key.
pub fn position_of_key(routing_key: &str) -> KeyPosition {
    KeyPosition(xxh3_64(routing_key.as_bytes()))
}

/// The position of an event without a routing key.
pub fn position_without_key(writer_identity: &[u8], number: EventNumber) -> KeyPosition {
    let mut hash = Xxh3::new();
    hash.update(writer_identity);
    hash.update(&[0]);
    hash.update(&number.0.to_le_bytes());
    KeyPosition(hash.digest())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapping_keeps_its_published_vectors() {
        assert_eq!(position_of_key("").0, 0x2d06_8005_38d3_94c2);
        assert_eq!(position_of_key("DTW").0, xxh3_64(b"DTW"));
        let mut keyless = b"loader".to_vec();
        keyless.push(0);
        keyless.extend_from_slice(&7_u64.to_le_bytes());
        assert_eq!(position_without_key(b"loader", EventNumber(7)).0, xxh3_64(&keyless));
    }
}
