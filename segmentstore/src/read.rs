//! Reading a segment: from memory where the bytes are new, from the log where they are not, and from
//! long-term storage where they are older than the log.
//!
//! A [`SegmentReader`] goes through one segment in order. Its bytes come, in this order, from the
//! segment's tail (shared by all readers), from the cache of recently read log entries, from the
//! log's files through a bounded pool of threads, and from objects through a cache of their blocks;
//! from the log and from objects ahead of a sequential reader. Where bytes are, is what the
//! segment's state says at that moment, message by message: a reader does not notice when it comes
//! from one to the other, nor when they move meanwhile.
//!
//! Guarantees: only committed bytes are handed out, in order, without gaps; a reader whose place
//! was truncated, also while it waited for the log, is told `TRUNCATED` with the new start; dropping
//! a reader, or the future of [`SegmentReader::next`], at any moment loses nothing.

mod log_cache;
mod object_cache;
mod objects;

use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use common::{Offset, SegmentId};
use proto::error::Reason;

pub(crate) use self::log_cache::LogCache;
pub use self::log_cache::LogSource;
use self::object_cache::LoadError;
pub(crate) use self::object_cache::ObjectCache;
use self::objects::{ObjectCursor, Wanted};
use crate::extent::{Extent, ObjectExtent};
use crate::handle::ContainerError;
use crate::limits::{
    READ_AHEAD_BYTES_MAX, READ_AHEAD_BYTES_MIN, READ_GATHER_BELOW, READ_GATHER_BYTES,
    READ_MESSAGE_BYTES_MAX,
};
use crate::metrics::Metrics;
use crate::shared::{Bounds, Located, SegmentShared};
pub use crate::time_index::TimePoint;

/// How often a reader looks for bytes where the segment's state says that they are, before it takes
/// it that they are damaged: they may have been moved, or read wrong.
const RESOLVE_ATTEMPTS: u32 = 3;

/// Where to read and when to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadRange {
    pub offset: Offset,
    /// Stop before this offset.
    pub end: Option<Offset>,
    /// Wait at the tail of an open segment. Otherwise the length at the beginning is the end.
    pub follow: bool,
}

/// Bytes of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadChunk {
    pub offset: Offset,
    pub data: Bytes,
    /// The segment's length now.
    pub length: Offset,
    /// The segment is sealed and this is its end.
    pub end_of_segment: bool,
    /// When which of the bytes were stored.
    pub times: Vec<TimePoint>,
}

/// Why reading ends early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error(
        "segment `{segment}` does not exist (any more); ask the controller for the stream's segments"
    )]
    SegmentNotFound { segment: SegmentId },
    #[error("offset {offset} of segment `{segment}` is truncated; the segment starts at {start}")]
    Truncated { segment: SegmentId, offset: Offset, start: Offset },
    #[error(
        "offset {offset} is beyond the end of segment `{segment}`, which is {length}; read from an offset up to that"
    )]
    OutOfRange { segment: SegmentId, offset: Offset, length: Offset },
    /// Acknowledged bytes cannot be read.
    #[error("bytes of segment `{segment}` at offset {offset} cannot be read: {detail}")]
    Damaged { segment: SegmentId, offset: Offset, detail: String },
    /// Acknowledged bytes rest in long-term storage, which cannot give them now.
    #[error(
        "bytes of segment `{segment}` at offset {offset} rest in long-term storage, which cannot be read now: {detail}; read again when it can"
    )]
    StorageUnavailable { segment: SegmentId, offset: Offset, detail: String },
    #[error(
        "bytes of segment `{segment}` at offset {offset} rest in long-term storage, and this server was started without it; start it with the storage that it had before"
    )]
    NoStorage { segment: SegmentId, offset: Offset },
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error("the server is stopping; connect again")]
    Stopping,
    /// What is stored can be read, and more will not come.
    #[error(
        "the container of segment `{segment}` has stopped, because the server is stopping or the container is quarantined; connect again, and if that does not help look at `/readyz` of the server for the reason and restart it"
    )]
    ContainerGone { segment: SegmentId },
}

impl ReadError {
    /// The stable reason on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            ReadError::SegmentNotFound { .. } => Reason::SegmentNotFound,
            ReadError::Truncated { .. } => Reason::Truncated,
            ReadError::OutOfRange { .. } => Reason::OutOfRange,
            ReadError::Damaged { .. } => Reason::DataLost,
            ReadError::Container(error) => error.reason(),
            ReadError::StorageUnavailable { .. }
            | ReadError::NoStorage { .. }
            | ReadError::Stopping
            | ReadError::ContainerGone { .. } => Reason::Unavailable,
        }
    }
}

/// What readers share.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub(crate) log: Arc<LogCache>,
    /// None: the server has no long-term storage.
    pub(crate) objects: Option<ObjectCache>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Reads one segment in order.
#[derive(Debug)]
pub struct SegmentReader {
    shared: Arc<SegmentShared>,
    cache: Arc<LogCache>,
    metrics: Arc<Metrics>,
    offset: Offset,
    end: Option<Offset>,
    follow: bool,
    /// Bytes to read ahead from the log; doubles with each read from it.
    ahead: usize,
    objects: Option<ObjectCursor>,
    /// Bytes of one message at most.
    message_max: usize,
    finished: bool,
}

/// What the segment's state says about the next step.
enum Step {
    Memory(Vec<Bytes>, Bounds),
    Log(Vec<Extent>, Bounds),
    Objects(Vec<ObjectExtent>, Bounds),
    EndOfSegment(Bounds),
    Finished,
    Wait,
}

impl SegmentReader {
    /// A reader over `range`, checked against the segment as it is now.
    pub(crate) fn new(
        shared: Arc<SegmentShared>,
        sources: Sources,
        range: ReadRange,
    ) -> Result<Self, ReadError> {
        let Sources { log: cache, objects, metrics } = sources;
        let bounds = shared.bounds();
        let end = match (range.end, range.follow) {
            (end, true) => end,
            (end, false) => Some(end.map_or(bounds.length, |end| end.min(bounds.length))),
        };
        metrics.readers.add(1);
        let follow = range.follow;
        let ahead = READ_AHEAD_BYTES_MIN.min(cache.share(metrics.readers.get()));
        let (offset, finished) = (range.offset, false);
        let objects = objects.map(ObjectCursor::new);
        let message_max = READ_MESSAGE_BYTES_MAX;
        let reader = Self {
            shared,
            cache,
            metrics,
            offset,
            end,
            follow,
            ahead,
            objects,
            message_max,
            finished,
        };
        reader.check(bounds)?;
        Ok(reader)
    }

    /// The same with messages of at most `bytes`.
    pub(crate) fn with_messages_of(mut self, bytes: usize) -> Self {
        self.message_max = bytes.clamp(1, READ_MESSAGE_BYTES_MAX);
        self
    }

    /// The offset of the next byte.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// The next bytes; `None` at the end of what was asked for.
    pub async fn next(&mut self) -> Result<Option<ReadChunk>, ReadError> {
        let mut attempts = 0;
        while !self.finished {
            let shared = self.shared.clone();
            // Enabled before the state is looked at: a change after that wakes it.
            let mut changed = pin!(shared.changed());
            changed.as_mut().enable();
            match self.step()? {
                Step::Memory(pieces, bounds) => {
                    self.leave_objects();
                    return Ok(Some(self.chunk(gather(pieces), bounds)));
                }
                Step::Log(extents, bounds) => match self.read_log(&extents).await {
                    Ok(data) => return Ok(Some(self.chunk(data, bounds))),
                    Err(detail) => self.try_again(&mut attempts, detail)?,
                },
                Step::Objects(extents, bounds) => {
                    match self.read_objects(&extents, attempts > 0).await? {
                        Ok(data) => return Ok(Some(self.chunk(data, bounds))),
                        Err(detail) => self.try_again(&mut attempts, detail)?,
                    }
                }
                Step::EndOfSegment(bounds) => return Ok(Some(self.chunk(Bytes::new(), bounds))),
                Step::Finished => self.finished = true,
                Step::Wait => {
                    self.leave_objects();
                    changed.await;
                }
            }
        }
        Ok(None)
    }

    /// Counts a failed attempt at bytes that should be there; the last one is an error.
    fn try_again(&self, attempts: &mut u32, detail: String) -> Result<(), ReadError> {
        *attempts += 1;
        if *attempts < RESOLVE_ATTEMPTS {
            return Ok(());
        }
        let (segment, offset) = (self.shared.segment, self.offset);
        Err(ReadError::Damaged { segment, offset, detail })
    }

    fn step(&self) -> Result<Step, ReadError> {
        let state = self.shared.lock();
        let bounds = state.bounds();
        self.check(bounds)?;
        if bounds.sealed && self.offset == bounds.length {
            return Ok(Step::EndOfSegment(bounds));
        }
        if self.end.is_some_and(|end| self.offset >= end) {
            return Ok(Step::Finished);
        }
        let window = self.objects.as_ref().and_then(ObjectCursor::window);
        let ahead = window.unwrap_or(self.ahead);
        Ok(match state.locate(self.offset, self.message_bytes(), ahead) {
            Located::Memory(pieces) => Step::Memory(pieces, bounds),
            Located::Objects(extents) => Step::Objects(self.not_lost(extents)?, bounds),
            Located::Log(extents) => Step::Log(extents, bounds),
            Located::AtEnd if self.follow && state.gone => {
                return Err(ReadError::ContainerGone { segment: self.shared.segment });
            }
            Located::AtEnd if self.follow => Step::Wait,
            Located::AtEnd => Step::Finished,
        })
    }

    /// The extents up to one that is lost, which is told when it is come to.
    fn not_lost(&self, mut extents: Vec<ObjectExtent>) -> Result<Vec<ObjectExtent>, ReadError> {
        let lost = |extent: &ObjectExtent| extent.rested.lost_entry();
        if let Some(entry) = extents.first().and_then(lost) {
            let (segment, offset) = (self.shared.segment, self.offset);
            let end = extents[0].end();
            let detail = format!(
                "they were lost with entry {entry} of the log, which a repair gave up before it was \
                 archived; what comes behind offset {end} is there"
            );
            return Err(ReadError::Damaged { segment, offset, detail });
        }
        if let Some(at) = extents.iter().position(|extent| lost(extent).is_some()) {
            extents.truncate(at);
        }
        Ok(extents)
    }

    fn check(&self, bounds: Bounds) -> Result<(), ReadError> {
        let (segment, offset) = (self.shared.segment, self.offset);
        if bounds.deleted {
            return Err(ReadError::SegmentNotFound { segment });
        }
        if offset < bounds.start {
            return Err(ReadError::Truncated { segment, offset, start: bounds.start });
        }
        if offset > bounds.length {
            return Err(ReadError::OutOfRange { segment, offset, length: bounds.length });
        }
        Ok(())
    }

    /// Bytes that the next message may have.
    fn message_bytes(&self) -> usize {
        let left = self.end.map_or(u64::MAX, |end| end.0.saturating_sub(self.offset.0));
        usize::try_from(left).unwrap_or(usize::MAX).min(self.message_max)
    }

    fn chunk(&mut self, data: Bytes, bounds: Bounds) -> ReadChunk {
        let offset = self.offset;
        self.offset = offset.plus(data.len() as u64);
        let end_of_segment = bounds.sealed && self.offset == bounds.length;
        self.finished = end_of_segment;
        self.metrics.read_bytes.add(data.len() as u64);
        self.shared.counters.read_bytes.add(data.len() as u64);
        let times = match data.is_empty() {
            true => Vec::new(),
            // After the bytes: what they were stored at is in the index.
            false => self.shared.lock().times.covering(offset, self.offset),
        };
        ReadChunk { offset, data, length: bounds.length, end_of_segment, times }
    }

    /// Bytes at the reader's offset from objects; inside, why they are not there. A second attempt
    /// reads what it needs `alone`.
    async fn read_objects(
        &mut self,
        extents: &[ObjectExtent],
        alone: bool,
    ) -> Result<Result<Bytes, String>, ReadError> {
        let (segment, offset) = (self.shared.segment, self.offset);
        let wanted = Wanted { offset, bytes_max: self.message_bytes(), end: self.end, alone };
        let Some(objects) = &mut self.objects else {
            return Err(ReadError::NoStorage { segment, offset });
        };
        let error = match objects.read(extents, wanted).await {
            Ok(data) => return Ok(Ok(data)),
            Err(error) => error,
        };
        let detail = error.to_string();
        match error {
            LoadError::GivenUp => Err(ReadError::Stopping),
            error if error.is_unavailable() => {
                Err(ReadError::StorageUnavailable { segment, offset, detail })
            }
            _ => {
                objects.lost(extents);
                Ok(Err(detail))
            }
        }
    }

    fn leave_objects(&mut self) {
        if let Some(objects) = &mut self.objects {
            objects.leave();
        }
    }

    /// Bytes at the reader's offset from the log; why not, where they are not there.
    async fn read_log(&mut self, extents: &[Extent]) -> Result<Bytes, String> {
        self.leave_objects();
        let first = extents.first().ok_or("no extent covers the offset")?;
        let group = self.shared.group;
        let mut indices: Vec<_> = extents.iter().map(|extent| extent.index).collect();
        indices.dedup();
        let entry = self.cache.get(group, &indices).await.map_err(|error| error.to_string())?;
        let most = READ_AHEAD_BYTES_MAX.min(self.cache.share(self.metrics.readers.get()));
        self.ahead = (2 * self.ahead).clamp(READ_AHEAD_BYTES_MIN.min(most), most);
        let skip = (self.offset.0 - first.offset.0) as usize;
        let data = slice(&entry, first, skip, self.message_bytes())?;
        if data.len() >= READ_GATHER_BELOW || extents.len() == 1 {
            return Ok(data);
        }
        Ok(self.gather_ready(data, &extents[1..]))
    }

    /// Adds the small extents behind `first` whose entries are in memory already.
    fn gather_ready(&self, first: Bytes, extents: &[Extent]) -> Bytes {
        let mut gathered = first.len();
        let mut pieces = vec![first];
        for extent in extents {
            let room = self.message_bytes().min(READ_GATHER_BYTES).saturating_sub(gathered);
            if room == 0 || extent.bytes as usize >= READ_GATHER_BELOW {
                break;
            }
            let entry = self.cache.ready(self.shared.group, extent.index);
            let Some(Ok(piece)) = entry.map(|entry| slice(&entry, extent, 0, room)) else { break };
            gathered += piece.len();
            pieces.push(piece);
        }
        gather(pieces)
    }
}

impl Drop for SegmentReader {
    fn drop(&mut self) {
        self.metrics.readers.subtract(1);
    }
}

/// The bytes of an extent in its entry's payload, without the first `skip`, at most `most`.
fn slice(entry: &Bytes, extent: &Extent, skip: usize, most: usize) -> Result<Bytes, String> {
    let end = extent.start as usize + extent.bytes as usize;
    if end > entry.len() {
        let (index, have) = (extent.index, entry.len());
        return Err(format!("log entry {index} has {have} bytes, the extent ends at {end}"));
    }
    let start = extent.start as usize + skip;
    Ok(entry.slice(start..end.min(start + most)))
}

/// One piece as it is, several copied together.
fn gather(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.remove(0);
    }
    let mut out = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        out.extend_from_slice(&piece);
    }
    out.freeze()
}

#[cfg(test)]
mod tests;
