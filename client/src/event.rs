//! Events as the application writes and reads them.

use bytes::Bytes;
use common::{Offset, SegmentId, WallTime};
use proto::framing::{self, EventRef, FramedEvent, FramingError};

use crate::error::Result;

/// An event to append: an optional routing key, an optional time of its own, headers, and the
/// payload. It borrows all of them, and costs nothing to make or to copy.
///
/// Events with the same routing key are read in the order in which they were appended. Events
/// without a key are spread over the stream's segments.
///
/// ```
/// use client::{Event, Header};
///
/// let headers = [Header::new("content-type", "text/plain")];
/// let event = Event::new("hello").key("greetings").time_micros(978_310_020_000_000);
/// assert_eq!(event.headers(&headers).payload, b"hello");
/// ```
///
#[doc = concat!("```no_run\n", include_str!("../examples/snippets/headers.rs"), "```")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The routing key; at most 8 KiB.
    pub key: Option<&'a str>,
    /// The event's own time, microseconds since the Unix epoch.
    pub time_micros: Option<i64>,
    /// Facts about the event, in the order in which they are read; at most 64, with names and
    /// values at most 64 KiB. An event without any pays nothing for them.
    pub headers: &'a [Header<'a>],
    /// What is to be stored. The event is at most 8 MiB large, its key and headers included.
    pub payload: &'a [u8],
}

impl<'a> Event<'a> {
    /// An event with this payload, without key, time and headers.
    pub fn new(payload: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { key: None, time_micros: None, headers: &[], payload: payload.as_ref() }
    }

    /// With this routing key.
    pub const fn key(mut self, key: &'a str) -> Self {
        self.key = Some(key);
        self
    }

    /// With this time of its own, in microseconds since the Unix epoch.
    pub const fn time_micros(mut self, time_micros: i64) -> Self {
        self.time_micros = Some(time_micros);
        self
    }

    /// With these headers.
    pub const fn headers(mut self, headers: &'a [Header<'a>]) -> Self {
        self.headers = headers;
        self
    }

    /// The event as it is framed.
    pub(crate) const fn framing(&self) -> EventRef<'a> {
        let Self { key, time_micros, headers, payload } = *self;
        EventRef { key, time_micros, headers, payload }
    }

    /// Bytes that the event takes in its segment, or which limit it breaks.
    pub fn stored_bytes(&self) -> Result<usize> {
        Ok(self.framing().frame_bytes()?)
    }
}

#[doc(inline)]
pub use proto::framing::{Header, Headers};

/// When an event was stored, as exactly as the segment's time index knows it: at one of these
/// moments or between them.
///
/// Of what was stored lately the two are less than a second apart. The index becomes coarser with
/// age: behind its newest 128 points, each of which covers a second or more, they are at most one
/// part in 128 apart of the time that it has points for since. They are the server's clock, which
/// goes backwards for nobody: a later event of the segment was not stored earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredTime {
    /// Not before this.
    pub earliest: WallTime,
    /// Not after this.
    pub latest: WallTime,
}

impl StoredTime {
    pub(crate) const fn new(earliest: WallTime, latest: WallTime) -> Self {
        Self { earliest, latest }
    }
}

/// An event as it was read, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadEvent {
    /// The routing key, in UTF-8 as every writer of this library sends it.
    pub key: Option<Bytes>,
    /// The event's own time, microseconds since the Unix epoch.
    pub time_micros: Option<i64>,
    /// When the server stored it; `None` where the server does not know, or does not tell.
    pub stored: Option<StoredTime>,
    /// The headers, in the order in which they were written.
    pub headers: Headers,
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
    /// An event without key, time and headers, as it would be read from `segment` at `offset`; what
    /// else there is to it can be set. For programs that test what they do with events.
    pub fn new(payload: impl Into<Bytes>, segment: SegmentId, offset: Offset) -> Self {
        let payload = payload.into();
        let event = Event::new(&payload);
        let stored = event.framing().frame_bytes().unwrap_or(payload.len());
        Self {
            key: None,
            time_micros: None,
            stored: None,
            headers: Headers::default(),
            segment,
            offset,
            next_offset: offset.plus(stored as u64),
            payload,
        }
    }

    /// Takes the next event off the front of `bytes`, which are raw bytes of `segment` from `offset`
    /// on, as a [`SegmentReader`](crate::SegmentReader) gives them; `None` where it is not complete
    /// yet. Where nothing or no event is found, nothing is taken.
    pub fn take(
        bytes: &mut Bytes,
        segment: SegmentId,
        offset: Offset,
    ) -> Result<Option<Self>, FramingError> {
        let taken = framing::take_event(bytes)?;
        Ok(taken.map(|event| Self::placed(event, segment, offset)))
    }

    /// The event that was parsed from a segment's bytes at `offset`.
    pub(crate) fn placed(event: FramedEvent, segment: SegmentId, offset: Offset) -> Self {
        Self {
            key: event.key,
            time_micros: event.time_micros,
            stored: None,
            headers: event.headers,
            payload: event.payload,
            segment,
            offset,
            next_offset: offset.plus(event.frame_bytes as u64),
        }
    }

    /// The routing key as text; `None` where there is none, or where a foreign client wrote bytes
    /// that are not UTF-8.
    pub fn key_text(&self) -> Option<&str> {
        self.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())
    }
}
