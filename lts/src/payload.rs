//! The bytes of an object on their way to or from a bucket.

use bytes::{Bytes, BytesMut};

/// A run of bytes in pieces, so that an object is put together from what lies in memory, and a
/// window from parallel reads, without a copy.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    pieces: Vec<Bytes>,
    length: u64,
    frees_space: bool,
}

impl Payload {
    pub fn len(&self) -> u64 {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Marks it as something without which no space would come back, such as a round's footer or a
    /// checkpoint: a bucket that keeps room for others lets it have most of that.
    #[must_use]
    pub fn that_frees_space(mut self) -> Self {
        self.frees_space = true;
        self
    }

    pub(crate) fn frees_space(&self) -> bool {
        self.frees_space
    }

    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    pub fn push(&mut self, piece: Bytes) {
        self.length += piece.len() as u64;
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }

    /// CRC-32 (IEEE) of all bytes.
    pub fn crc32(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        self.pieces.iter().for_each(|piece| hasher.update(piece));
        hasher.finalize()
    }

    /// All bytes in one piece: without a copy where there is one already.
    pub fn into_bytes(mut self) -> Bytes {
        if self.pieces.len() == 1 {
            return self.pieces.swap_remove(0);
        }
        let mut all = BytesMut::with_capacity(self.length as usize);
        self.pieces.iter().for_each(|piece| all.extend_from_slice(piece));
        all.freeze()
    }
}

impl<T: Into<Bytes>> From<T> for Payload {
    fn from(bytes: T) -> Self {
        let mut payload = Self::default();
        payload.push(bytes.into());
        payload
    }
}

impl FromIterator<Bytes> for Payload {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut payload = Self::default();
        pieces.into_iter().for_each(|piece| payload.push(piece));
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_add_up_to_the_same_bytes_and_checksum() {
        let pieces = [Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"cde")];
        let payload: Payload = pieces.into_iter().collect();
        assert_eq!((payload.len(), payload.pieces().len()), (5, 2));
        assert_eq!(payload.crc32(), Payload::from(&b"abcde"[..]).crc32());
        assert_eq!(payload.into_bytes(), &b"abcde"[..]);
        assert!(Payload::default().is_empty() && Payload::default().into_bytes().is_empty());
    }
}
