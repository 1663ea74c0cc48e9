//! Events as the application writes and reads them.

use bytes::Bytes;
use common::{Offset, SegmentId};

/// An event to append: an optional routing key, an optional time of its own, and the payload.
///
/// Events with the same routing key are read in the order in which they were appended. Events
/// without a key are spread over the stream's segments.
pub type Event<'a> = proto::framing::EventRef<'a>;

/// An event as it was read, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadEvent {
    /// The routing key, in UTF-8 as every writer of this library sends it.
    pub key: Option<Bytes>,
    /// The event's own time, microseconds since the Unix epoch.
    pub time_micros: Option<i64>,
    /// What was appended.
    pub payload: Bytes,
    /// The segment that holds the event.
    pub segment: SegmentId,
    /// Where the event begins in its segment.
    pub offset: Offset,
    /// Where the next event of the segment begins.
    pub next_offset: Offset,
}

impl ReadEvent {
    /// The routing key as text; `None` where there is none, or where a foreign client wrote bytes
    /// that are not UTF-8.
    pub fn key_text(&self) -> Option<&str> {
        self.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())
    }
}
