//! What a reader reads, and how it finds it.

use std::collections::BTreeSet;

use common::{ByteSize, KeyRange, Offset, ScopedStream, SegmentId, StreamCut, WallTime};

use super::EventReader;
use super::reset::OnTruncated;
use super::scope::Scope;
use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::streams::{self, PlacedCut, SegmentPlace};

/// Where reading begins.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadFrom {
    /// At the oldest event that is kept. Where a truncation overtakes the reader before it has read
    /// an event of a segment, it begins where the segment starts then, and nothing was skipped.
    Head,
    /// Behind the newest event.
    Tail,
    /// At a stream cut. One that covers a part of the stream only limits the reader to that part.
    Cut(StreamCut),
    /// At the first event stored at or after a time; some stored shortly before may come, too.
    Time(WallTime),
}

/// Where reading ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReadUntil {
    /// At the end of a sealed stream; otherwise it follows the tail.
    #[default]
    Never,
    /// At the tail as it was when the reader was opened.
    Tail,
    /// Before a stream cut, which covers at least what is read.
    Cut(StreamCut),
    /// Before the first event stored at or after a time that has passed, found when the reader is
    /// opened; a time that has not passed ends it at the tail.
    Time(WallTime),
}

/// A reader that does not know yet where to begin; there is no place that suits everybody.
#[derive(Debug, Clone)]
pub struct EventReaderStart {
    client: Client,
    stream: ScopedStream,
}

impl EventReaderStart {
    pub(crate) fn new(client: Client, stream: ScopedStream) -> Self {
        Self { client, stream }
    }

    /// Where to begin.
    pub fn from(self, from: ReadFrom) -> EventReaderBuilder {
        EventReaderBuilder {
            client: self.client,
            stream: self.stream,
            from,
            until: ReadUntil::default(),
            segments: Vec::new(),
            key_range: KeyRange::ALL,
            on_truncated: OnTruncated::default(),
            memory_limit: MEMORY_DEFAULT,
        }
    }
}

/// Bytes of memory that a reader may use, unless told.
const MEMORY_DEFAULT: ByteSize = ByteSize::mib(64);

/// Chooses what an [`EventReader`] reads.
#[derive(Debug, Clone)]
pub struct EventReaderBuilder {
    client: Client,
    stream: ScopedStream,
    from: ReadFrom,
    until: ReadUntil,
    segments: Vec<SegmentId>,
    key_range: KeyRange,
    on_truncated: OnTruncated,
    memory_limit: ByteSize,
}

/// What a reader begins with.
pub(super) struct Beginning {
    pub(super) stream: common::StreamId,
    pub(super) scope: Scope,
    pub(super) places: Vec<(SegmentPlace, Offset)>,
    /// The places are where the head was when it was asked for.
    pub(super) at_head: bool,
}

impl EventReaderBuilder {
    /// Where to begin instead.
    pub fn from(mut self, from: ReadFrom) -> Self {
        self.from = from;
        self
    }

    /// Where to end; never unless told.
    pub fn until(mut self, until: ReadUntil) -> Self {
        self.until = until;
        self
    }

    /// Only these segments, to their ends; successors are not followed.
    pub fn segments(mut self, segments: Vec<SegmentId>) -> Self {
        self.segments = segments;
        self
    }

    /// Only segments that own a part of `range`.
    pub fn key_range(mut self, range: KeyRange) -> Self {
        self.key_range = range;
        self
    }

    /// What to do where what is to be read next was truncated away; to fail unless told.
    ///
    #[doc = concat!("```no_run\n", include_str!("../../examples/snippets/skip_truncated.rs"), "```")]
    pub fn on_truncated(mut self, on_truncated: OnTruncated) -> Self {
        self.on_truncated = on_truncated;
        self
    }

    /// Bytes of memory for what waits in connections and for events of which a part has come, about
    /// half for each; 64 MiB unless told. With less than 34 MiB reading is slower; one event is
    /// read whatever its size. What was given out is the caller's.
    pub fn memory_limit(mut self, limit: ByteSize) -> Self {
        self.memory_limit = limit;
        self
    }

    /// Locates the stream's segments and begins to read.
    pub async fn open(self) -> Result<EventReader> {
        let until = self.find_until().await?;
        let beginning = self.find_beginning(until).await?;
        EventReader::start(self, beginning)
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    pub(super) const fn wanted_on_truncated(&self) -> OnTruncated {
        self.on_truncated
    }

    /// Half of the memory, in bytes.
    pub(super) const fn half_of_memory(&self) -> u64 {
        self.memory_limit.bytes() / 2
    }

    /// Where to begin, with an end that was found before.
    pub(super) async fn find_beginning(&self, until: Option<PlacedCut>) -> Result<Beginning> {
        let from = self.find_from().await?;
        let stream = from.cut.stream;
        if until.as_ref().is_some_and(|until| until.cut.stream != stream) {
            return Err(ClientError::invalid(format!(
                "where to begin and where to end are of two streams: `{}` was deleted and created \
                 again, or a cut belongs to another name",
                self.stream
            )));
        }
        let scope = self.scope(&from.cut, until)?;
        let places = from.places.into_iter().filter_map(|place| {
            let offset = from.cut.get(place.segment).unwrap_or(Offset::ZERO);
            scope.takes(&place).then_some((place, offset))
        });
        let places: Vec<_> = places.collect();
        let missing = |id: &&SegmentId| !places.iter().any(|(place, _)| place.segment == **id);
        if let Some(missing) = self.segments.iter().find(missing) {
            return Err(ClientError::invalid(format!(
                "segment {missing} is not among those at which reading begins; `braid segment \
                 list` shows them"
            )));
        }
        Ok(Beginning { stream, scope, places, at_head: self.from == ReadFrom::Head })
    }

    /// What is wanted: what was asked for, within what the cuts cover.
    fn scope(&self, from: &StreamCut, until: Option<PlacedCut>) -> Result<Scope> {
        let asked: BTreeSet<SegmentId> = self.segments.iter().copied().collect();
        let scope = Scope::new(asked, self.key_range, until);
        let scope = scope.within(from).ok_or_else(|| {
            ClientError::invalid(format!(
                "the stream cut `{from}` covers only a part of the stream, and more than that is to \
                 be read from it; read what it covers, or take a cut of the whole stream"
            ))
        })?;
        match scope.is_covered_by_its_end() {
            true => Ok(scope),
            false => Err(ClientError::invalid(
                "the stream cut that reading is to end at covers less than what is to be read; end \
                 at a cut of the whole stream, or read only what it covers",
            )),
        }
    }

    async fn find_from(&self) -> Result<PlacedCut> {
        let client = &self.client.inner;
        match &self.from {
            ReadFrom::Head => streams::placed_head(client, &self.stream).await,
            ReadFrom::Tail => streams::placed_tail(client, &self.stream).await,
            ReadFrom::Cut(cut) => self.place(cut).await,
            ReadFrom::Time(time) => streams::at_time(client, &self.stream, *time).await,
        }
    }

    async fn find_until(&self) -> Result<Option<PlacedCut>> {
        let client = &self.client.inner;
        Ok(match &self.until {
            ReadUntil::Never => None,
            ReadUntil::Tail => Some(streams::placed_tail(client, &self.stream).await?),
            ReadUntil::Cut(cut) => Some(self.place(cut).await?),
            ReadUntil::Time(time) => Some(streams::at_time(client, &self.stream, *time).await?),
        })
    }

    /// Finds the segments of a cut, which the server finds to be a place in the stream. Those that
    /// were truncated away are among them where the reader is to go on behind them.
    async fn place(&self, cut: &StreamCut) -> Result<PlacedCut> {
        let client = &self.client.inner;
        streams::check_cut(client, &self.stream, cut).await?;
        let segments: Vec<_> = cut.segments().map(|(segment, _)| segment).collect();
        let mut found = streams::locate(client, &segments, None).await?;
        match (found.truncated.first(), self.on_truncated) {
            (Some(gone), OnTruncated::Fail) => {
                return Err(ClientError::TruncatedAway { segment: gone.segment });
            }
            _ => found.segments.append(&mut found.truncated),
        }
        if found.segments.len() != segments.len() {
            // Forgotten since it was checked.
            return Err(ClientError::invalid(format!(
                "stream `{}` was deleted while it was looked up",
                self.stream
            )));
        }
        Ok(PlacedCut { cut: cut.clone(), places: found.segments })
    }
}
