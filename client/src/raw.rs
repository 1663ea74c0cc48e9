//! Raw bytes of one segment, below events: for tools, and for who brings a framing of their own.

mod writer;

use std::sync::Arc;

use bytes::Bytes;
use common::Offset;

use crate::client::Client;
use crate::error::Result;
use crate::reader::bytes::{Channels, End, SegmentStream};
use crate::streams::{self, SegmentPlace};

pub use writer::SegmentWriter;

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

/// Reads raw bytes of one segment, in order, across lost connections.
#[derive(Debug)]
pub struct SegmentReader {
    client: Client,
    place: SegmentPlace,
    offset: Offset,
    end: Until,
    stream: Option<SegmentStream>,
}

#[derive(Debug, Clone, Copy)]
enum Until {
    Never,
    /// The end as it is when the first bytes are asked for.
    PresentEnd,
    At(Offset),
}

impl SegmentReader {
    pub(crate) fn new(client: Client, place: SegmentPlace, offset: Offset) -> Self {
        Self { client, place, offset, end: Until::Never, stream: None }
    }

    /// Stop before `end`, or, without one, at the segment's present end, instead of following it.
    pub fn until(mut self, end: Option<Offset>) -> Self {
        self.end = end.map_or(Until::PresentEnd, Until::At);
        self.stream = None;
        self
    }

    /// The next bytes; `None` at the end: of a sealed segment, or where it was told to stop.
    pub async fn next(&mut self) -> Result<Option<SegmentBytes>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let end = self.find_end().await?;
                let (client, place) = (self.client.clone(), self.place.clone());
                let channels = Arc::new(Channels::default());
                let stream = SegmentStream::new(client, place, channels, self.offset, end)?;
                self.stream.insert(stream)
            }
        };
        let bytes = stream.next().await?;
        if let Some(bytes) = &bytes {
            self.offset = bytes.offset.plus(bytes.data.len() as u64);
        }
        Ok(bytes)
    }

    /// Where to end, fixed from the first call on: who appends faster than this reads would
    /// otherwise keep it from ever ending.
    async fn find_end(&mut self) -> Result<End> {
        match self.end {
            Until::Never => Ok(End::Never),
            Until::At(end) => Ok(End::At(end)),
            Until::PresentEnd => {
                let place = std::slice::from_ref(&self.place);
                let infos = streams::infos(&self.client.inner, place).await?;
                streams::check_within(&infos, |_| Some(self.offset))?;
                let end = infos[0].length;
                self.end = Until::At(end);
                Ok(End::At(end))
            }
        }
    }

    /// Where the next bytes begin.
    pub fn offset(&self) -> Offset {
        self.offset
    }
}
