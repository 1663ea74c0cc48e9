//! Reading and writing of the fixed little-endian forms in headers and saved state.
//!
//! Every read is bound-checked and says what was missing; nothing here panics on foreign bytes.

use bytes::{BufMut, Bytes};
use common::{
    Attempt, ContainerId, EventNumber, KeyRange, Offset, ScopedStream, SegmentId, WriterEpoch,
    WriterId, WriterSession,
};

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("bytes end within `{field}`")]
    Short { field: &'static str },
    #[error("`{field}` has the impossible value {value}")]
    Impossible { field: &'static str, value: u64 },
    #[error("`{field}` counts {count}, at most {max} are allowed")]
    TooMany { field: &'static str, count: u64, max: u64 },
    #[error("`{field}` is not a name: {problem}")]
    BadName { field: &'static str, problem: String },
    #[error("{0} bytes follow the end")]
    Trailing(usize),
    #[error("version {0} is not known to this build; run the version that wrote it, or newer")]
    Version(u8),
    #[error("kind {0} is not known to this build; run the version that wrote it, or newer")]
    Kind(u8),
}

/// Takes fields off the front of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

macro_rules! integer {
    ($name:ident, $type:ty) => {
        pub(crate) fn $name(&mut self, field: &'static str) -> Result<$type, CodecError> {
            let (head, rest) = self.rest.split_first_chunk().ok_or(CodecError::Short { field })?;
            self.rest = rest;
            Ok(<$type>::from_le_bytes(*head))
        }
    };
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    integer!(u8, u8);
    integer!(u16, u16);
    integer!(u32, u32);
    integer!(u64, u64);
    integer!(u128, u128);

    pub(crate) fn bytes(
        &mut self,
        count: usize,
        field: &'static str,
    ) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(CodecError::Short { field })?;
        self.rest = rest;
        Ok(head)
    }

    /// A count of things of at least `item_bytes` each: refused before anything is allocated for
    /// more of them than there can be.
    pub(crate) fn count(
        &mut self,
        max: usize,
        item_bytes: usize,
        field: &'static str,
    ) -> Result<usize, CodecError> {
        let count = self.u32(field)? as usize;
        if count > max {
            return Err(CodecError::TooMany { field, count: count as u64, max: max as u64 });
        }
        if count.saturating_mul(item_bytes) > self.rest.len() {
            return Err(CodecError::Short { field });
        }
        Ok(count)
    }

    /// A byte string with its length (u16) in front.
    pub(crate) fn string(
        &mut self,
        max: usize,
        field: &'static str,
    ) -> Result<&'a [u8], CodecError> {
        let count = usize::from(self.u16(field)?);
        if count > max {
            return Err(CodecError::TooMany { field, count: count as u64, max: max as u64 });
        }
        self.bytes(count, field)
    }

    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, CodecError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(CodecError::Impossible { field, value: other.into() }),
        }
    }

    pub(crate) fn segment(&mut self) -> Result<SegmentId, CodecError> {
        let bytes = self.bytes(SegmentId::ENCODED_BYTES, "segment")?;
        let bytes = bytes.try_into().map_err(|_| CodecError::Short { field: "segment" })?;
        Ok(SegmentId::decode(bytes))
    }

    pub(crate) fn segments(
        &mut self,
        max: usize,
        field: &'static str,
    ) -> Result<Vec<SegmentId>, CodecError> {
        let count = self.count(max, SegmentId::ENCODED_BYTES, field)?;
        (0..count).map(|_| self.segment()).collect()
    }

    pub(crate) fn writer(&mut self) -> Result<WriterId, CodecError> {
        self.u128("writer").map(WriterId)
    }

    pub(crate) fn session(&mut self) -> Result<WriterSession, CodecError> {
        Ok(WriterSession {
            epoch: WriterEpoch(self.u64("session epoch")?),
            attempt: Attempt(self.u32("session attempt")?),
        })
    }

    pub(crate) fn number(&mut self, field: &'static str) -> Result<EventNumber, CodecError> {
        self.u64(field).map(EventNumber)
    }

    pub(crate) fn offset(&mut self, field: &'static str) -> Result<Offset, CodecError> {
        self.u64(field).map(Offset)
    }

    pub(crate) fn container(&mut self) -> Result<ContainerId, CodecError> {
        self.u64("container").map(ContainerId)
    }

    pub(crate) fn range(&mut self) -> Result<KeyRange, CodecError> {
        let (low, high) = (self.u64("range low")?, self.u64("range high")?);
        KeyRange::new(low, high).ok_or(CodecError::Impossible { field: "range low", value: low })
    }

    pub(crate) fn stream(&mut self) -> Result<ScopedStream, CodecError> {
        let scope = self.text("scope")?;
        let stream = self.text("stream")?;
        ScopedStream::new(scope, stream)
            .map_err(|error| CodecError::BadName { field: "stream", problem: error.to_string() })
    }

    fn text(&mut self, field: &'static str) -> Result<&'a str, CodecError> {
        let bytes = self.string(common::limits::NAME_BYTES_MAX, field)?;
        std::str::from_utf8(bytes)
            .map_err(|error| CodecError::BadName { field, problem: error.to_string() })
    }

    /// Refuses bytes behind the last field.
    pub(crate) fn end(self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(CodecError::Trailing(more)),
        }
    }
}

/// Puts fields at the end of a buffer; what it writes, [`Fields`] reads.
pub(crate) trait PutFields: BufMut {
    fn put_segment(&mut self, segment: SegmentId) {
        self.put_slice(&segment.encode());
    }

    fn put_segments(&mut self, segments: &[SegmentId]) {
        self.put_count(segments.len());
        for segment in segments {
            self.put_segment(*segment);
        }
    }

    fn put_count(&mut self, count: usize) {
        self.put_u32_le(
            u32::try_from(count).expect("counts are checked against limits below 2^32"),
        );
    }

    fn put_string(&mut self, bytes: &[u8]) {
        self.put_u16_le(u16::try_from(bytes.len()).expect("strings are checked to be short"));
        self.put_slice(bytes);
    }

    fn put_session(&mut self, session: WriterSession) {
        self.put_u64_le(session.epoch.0);
        self.put_u32_le(session.attempt.0);
    }

    fn put_range(&mut self, range: KeyRange) {
        self.put_u64_le(range.low());
        self.put_u64_le(range.high());
    }

    fn put_stream(&mut self, stream: &ScopedStream) {
        self.put_string(stream.scope.as_str().as_bytes());
        self.put_string(stream.stream.as_str().as_bytes());
    }
}

impl<B: BufMut + ?Sized> PutFields for B {}

/// A frozen copy of what `put` writes.
pub(crate) fn written(capacity: usize, put: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(capacity);
    put(&mut out);
    Bytes::from(out)
}
