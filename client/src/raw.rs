//! Raw bytes of one segment, below events: for tools, and for who brings a framing of their own.

use bytes::Bytes;
use common::Offset;

use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::streams::SegmentPlace;

/// A run of a segment's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentBytes {
    /// Where the run begins.
    pub offset: Offset,
    /// The bytes.
    pub data: Bytes,
    /// The segment's length when they were sent.
    pub length: Offset,
}

/// Appends raw bytes to one segment, if wanted only at an expected offset.
#[derive(Debug)]
pub struct SegmentWriter {
    client: Client,
    place: SegmentPlace,
}

impl SegmentWriter {
    pub(crate) fn new(client: Client, place: SegmentPlace) -> Self {
        Self { client, place }
    }

    /// Appends `data` durably and gives the segment's length behind it. With `expected`, only if
    /// the segment is that long; otherwise nothing is stored and the error is
    /// [`ClientError::OffsetMismatch`].
    pub async fn append(&mut self, data: Bytes, expected: Option<Offset>) -> Result<Offset> {
        let (_, _, _) = (&self.client, data, expected);
        Err(ClientError::protocol(format!("{} cannot be written yet", self.place.segment)))
    }
}

/// Reads raw bytes of one segment.
#[derive(Debug)]
pub struct SegmentReader {
    client: Client,
    place: SegmentPlace,
    offset: Offset,
}

impl SegmentReader {
    pub(crate) fn new(client: Client, place: SegmentPlace, offset: Offset) -> Self {
        Self { client, place, offset }
    }

    /// Stop at the segment's present end instead of following it, or before `end` if given.
    pub fn until(self, end: Option<Offset>) -> Self {
        let (_, _) = (end, self.offset);
        self
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<SegmentBytes>> {
        let _ = &self.client;
        Err(ClientError::protocol(format!("{} cannot be read yet", self.place.segment)))
    }
}
