//! The envelope of an entry: what a Raft entry's `context` holds, so that its `data` can stay the
//! caller's payload bytes, uncopied.
//!
//! ```text
//! version u8 | wall u64 | up u64 | operations u32 | { header length u32 | payload length u32 | header }*
//! ```
//!
//! Little-endian. `data` is the concatenation of the payloads. The format is persisted: a change
//! needs a new version, and the old one stays readable.
//!
//! Entries by which a group looks after its archive have version 2 and no data:
//!
//! ```text
//! version u8 | wall u64 | up u64 | housekeeping (see `archive/housekeeping.rs`)
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use common::WallTime;

use crate::entry::{Operation, Stamp};

/// The version written today.
pub const VERSION: u8 = 1;
/// The version of housekeeping entries.
pub(crate) const HOUSEKEEPING: u8 = 2;
/// Bytes before what a housekeeping entry says.
const HOUSEKEEPING_HEAD_BYTES: usize = 1 + 8 + 8;
/// Bytes before the first operation.
pub const HEAD_BYTES: usize = 1 + 8 + 8 + 4;
/// Bytes of the envelope per operation beside its header.
pub const OPERATION_BYTES: usize = 4 + 4;

/// Why the context of an entry cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error(
        "entry envelope has version {0}, this build reads version {VERSION}; run a newer build"
    )]
    Version(u8),
    #[error("entry envelope ends early: {have} of {need} bytes")]
    Short { have: usize, need: usize },
    #[error("entry envelope declares {declared} payload bytes, the entry has {have}")]
    Payload { declared: u64, have: usize },
    #[error("entry envelope has {0} bytes after its last operation")]
    Trailing(usize),
}

pub(crate) struct Head {
    pub(crate) stamp: Stamp,
    pub(crate) operations: u32,
}

/// Collects the operations of one entry.
#[derive(Debug, Default)]
pub struct Builder {
    bytes: BytesMut,
    operations: u32,
}

impl Builder {
    /// A builder with room for `headers` bytes of headers of `operations` operations.
    pub fn with_capacity(operations: usize, headers: usize) -> Self {
        let mut bytes =
            BytesMut::with_capacity(HEAD_BYTES + operations * OPERATION_BYTES + headers);
        bytes.put_bytes(0, HEAD_BYTES);
        Self { bytes, operations: 0 }
    }

    /// Adds an operation whose payload of `payload_len` bytes follows the earlier ones in `data`.
    pub fn push(&mut self, header: &[u8], payload_len: usize) {
        self.bytes.put_u32_le(length(header.len()));
        self.bytes.put_u32_le(length(payload_len));
        self.bytes.put_slice(header);
        self.operations += 1;
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.operations == 0
    }

    pub fn finish(mut self, stamp: Stamp) -> Bytes {
        let mut head = &mut self.bytes[..HEAD_BYTES];
        head.put_u8(VERSION);
        head.put_u64_le(stamp.wall.0);
        head.put_u64_le(stamp.up_micros);
        head.put_u32_le(self.operations);
        self.bytes.freeze()
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("entries are far below 4 GiB")
}

/// Encodes one entry's operations at once: for tests and tools.
pub fn encode(stamp: Stamp, operations: &[(&[u8], &[u8])]) -> (Bytes, Bytes) {
    let headers = operations.iter().map(|(header, _)| header.len()).sum();
    let mut builder = Builder::with_capacity(operations.len(), headers);
    let mut data = BytesMut::new();
    for (header, payload) in operations {
        builder.push(header, payload.len());
        data.put_slice(payload);
    }
    (builder.finish(stamp), data.freeze())
}

/// The context of an entry that says `body`, as `put` writes it.
pub(crate) fn housekeeping(stamp: Stamp, put: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(256);
    out.put_u8(HOUSEKEEPING);
    out.put_u64_le(stamp.wall.0);
    out.put_u64_le(stamp.up_micros);
    put(&mut out);
    out.into()
}

/// What a housekeeping entry says, and when; `None` for every other context.
pub(crate) fn as_housekeeping(context: &Bytes) -> Option<(Stamp, Bytes)> {
    if context.first() != Some(&HOUSEKEEPING) || context.len() < HOUSEKEEPING_HEAD_BYTES {
        return None;
    }
    Some((stamp_of(context), context.slice(HOUSEKEEPING_HEAD_BYTES..)))
}

fn stamp_of(context: &[u8]) -> Stamp {
    Stamp { wall: WallTime(u64_at(context, 1)), up_micros: u64_at(context, 9) }
}

/// Reads the head and walks every operation, so that iterating afterwards cannot fail. What a
/// housekeeping entry says is for its reader to check.
pub(crate) fn check(context: &[u8], payload_len: usize) -> Result<Head, EnvelopeError> {
    let short = |need| EnvelopeError::Short { have: context.len(), need };
    let version = *context.first().ok_or_else(|| short(HEAD_BYTES))?;
    if version == HOUSEKEEPING {
        if context.len() < HOUSEKEEPING_HEAD_BYTES {
            return Err(short(HOUSEKEEPING_HEAD_BYTES));
        }
        if payload_len != 0 {
            return Err(EnvelopeError::Payload { declared: 0, have: payload_len });
        }
        return Ok(Head { stamp: stamp_of(context), operations: 0 });
    }
    if version != VERSION {
        return Err(EnvelopeError::Version(version));
    }
    if context.len() < HEAD_BYTES {
        return Err(short(HEAD_BYTES));
    }
    let stamp = stamp_of(context);
    let operations = u32_at(context, 17);
    let (mut at, mut declared) = (HEAD_BYTES, 0_u64);
    for _ in 0..operations {
        if context.len() - at < OPERATION_BYTES {
            return Err(short(at + OPERATION_BYTES));
        }
        let header = u32_at(context, at) as usize;
        declared += u64::from(u32_at(context, at + 4));
        at += OPERATION_BYTES;
        if context.len() - at < header {
            return Err(short(at + header));
        }
        at += header;
    }
    if at != context.len() {
        return Err(EnvelopeError::Trailing(context.len() - at));
    }
    if declared != payload_len as u64 {
        return Err(EnvelopeError::Payload { declared, have: payload_len });
    }
    Ok(Head { stamp, operations })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Walks the operations of a context that [`check`] accepted.
pub(crate) struct Operations<'a> {
    context: &'a [u8],
    at: usize,
    payload_at: usize,
    left: u32,
}

impl<'a> Operations<'a> {
    pub(crate) fn new(context: &'a [u8], operations: u32) -> Self {
        Self { context, at: HEAD_BYTES, payload_at: 0, left: operations }
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Operation<'a>;

    fn next(&mut self) -> Option<Operation<'a>> {
        self.left = self.left.checked_sub(1)?;
        let header_len = u32_at(self.context, self.at) as usize;
        let payload_len = u32_at(self.context, self.at + 4) as usize;
        let start = self.at + OPERATION_BYTES;
        self.at = start + header_len;
        let payload = self.payload_at..self.payload_at + payload_len;
        self.payload_at = payload.end;
        Some(Operation { header: &self.context[start..self.at], payload })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Operations<'_> {}

#[cfg(test)]
mod tests;
