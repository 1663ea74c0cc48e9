//! What a reader reads, and how it finds it.

use std::collections::BTreeSet;

use common::{KeyRange, Offset, ScopedStream, SegmentId, StreamCut, WallTime};

use super::EventReader;
use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::streams::{self, PlacedCut, SegmentPlace, SegmentSet};

/// Where reading begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReadFrom {
    /// At the oldest event that is kept.
    Head,
    /// Behind the newest event.
    #[default]
    Tail,
    /// At a stream cut.
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
    /// Before a stream cut.
    Cut(StreamCut),
    /// Before the first event stored at or after a time that has passed, found when the reader is
    /// opened; a time that has not passed ends it at the tail.
    Time(WallTime),
}

/// Chooses what an [`EventReader`] reads.
#[derive(Debug, Clone)]
pub struct EventReaderBuilder {
    client: Client,
    stream: ScopedStream,
    from: ReadFrom,
    until: ReadUntil,
    segments: Vec<SegmentId>,
    key_range: KeyRange,
}

impl EventReaderBuilder {
    pub(crate) fn new(client: Client, stream: ScopedStream) -> Self {
        Self {
            client,
            stream,
            from: ReadFrom::default(),
            until: ReadUntil::default(),
            segments: Vec::new(),
            key_range: KeyRange::ALL,
        }
    }

    /// Where to begin; the tail unless told.
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

    /// Locates the stream's segments and begins to read.
    pub async fn open(self) -> Result<EventReader> {
        let until = self.find_until().await?;
        let from = self.find_from().await?;
        let stream = from.cut.stream;
        if until.as_ref().is_some_and(|until| until.cut.stream != stream) {
            return Err(another_stream(&self.stream));
        }
        let chosen: BTreeSet<SegmentId> = self.segments.iter().copied().collect();
        let scope = Scope { chosen, range: self.key_range, until };
        let begin = from.places.into_iter().filter_map(|place| {
            let offset = from.cut.get(place.segment).unwrap_or(Offset::ZERO);
            scope.takes(&place).then_some((place, offset))
        });
        let begin: Vec<_> = begin.collect();
        let missing = |id: &&SegmentId| !begin.iter().any(|(place, _)| place.segment == **id);
        if let Some(missing) = self.segments.iter().find(missing) {
            return Err(ClientError::invalid(format!(
                "segment {missing} is not among those at which reading begins; `braid stream \
                 segments` shows them"
            )));
        }
        EventReader::start(self.client, stream, scope, begin)
    }

    async fn find_from(&self) -> Result<PlacedCut> {
        let client = &self.client.inner;
        match &self.from {
            ReadFrom::Head => {
                let found = streams::segments(client, &self.stream, SegmentSet::Head, None).await?;
                let infos = streams::infos(client, &found.segments).await?;
                let mut cut = StreamCut::new(found.id);
                infos.iter().for_each(|info| cut.set(info.segment, info.start_offset));
                Ok(PlacedCut { cut, places: found.segments })
            }
            ReadFrom::Tail => streams::placed_tail(client, &self.stream).await,
            ReadFrom::Cut(cut) => {
                let placed = self.place(cut).await?;
                let infos = streams::infos(client, &placed.places).await?;
                streams::check_within(&infos, |segment| cut.get(segment))?;
                Ok(placed)
            }
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

    /// Finds the segments of a cut.
    async fn place(&self, cut: &StreamCut) -> Result<PlacedCut> {
        let client = &self.client.inner;
        // A cut outlives its stream: the name may be another stream's by now.
        if self.client.streams().describe(&self.stream).await?.summary.id != cut.stream {
            return Err(another_stream(&self.stream));
        }
        let segments: Vec<_> = cut.segments().map(|(segment, _)| segment).collect();
        let found = streams::locate(client, &segments, None).await?;
        if let Some(gone) = found.truncated.first() {
            return Err(ClientError::invalid(format!(
                "the stream cut names segment {}, which stream `{}` does not have any more: it was \
                 truncated away; read from the head",
                gone.segment, self.stream
            )));
        }
        let known: BTreeSet<_> = found.segments.iter().map(|place| place.segment).collect();
        if let Some(unknown) = segments.iter().find(|segment| !known.contains(segment)) {
            return Err(ClientError::invalid(format!(
                "the stream cut names segment {unknown}, which stream `{}` never had; take one \
                 from `braid stream cut`",
                self.stream
            )));
        }
        Ok(PlacedCut { cut: cut.clone(), places: found.segments })
    }
}

fn another_stream(stream: &ScopedStream) -> ClientError {
    ClientError::invalid(format!(
        "the stream cut is of another stream than `{stream}` is now: it was deleted and created \
         again, or the cut belongs to another name"
    ))
}

/// What of a stream a reader wants.
#[derive(Debug)]
pub(super) struct Scope {
    chosen: BTreeSet<SegmentId>,
    range: KeyRange,
    until: Option<PlacedCut>,
}

impl Scope {
    /// Whether anything of the segment is wanted.
    pub(super) fn takes(&self, place: &SegmentPlace) -> bool {
        let chosen = self.chosen.is_empty() || self.chosen.contains(&place.segment);
        chosen && place.range.overlaps(self.range) && !self.is_beyond(place)
    }

    /// Where the segment is to be read up to, if it ends inside it.
    pub(super) fn end_of(&self, segment: SegmentId) -> Option<Offset> {
        self.until.as_ref().and_then(|until| until.cut.get(segment))
    }

    /// Whether what comes behind a segment is wanted, too.
    pub(super) fn follows(&self, segment: SegmentId) -> bool {
        self.chosen.is_empty() && self.end_of(segment).is_none()
    }

    /// Keys have a linear history: a segment that shares keys with an older one in which the
    /// reader ends comes behind that end.
    fn is_beyond(&self, place: &SegmentPlace) -> bool {
        let Some(until) = &self.until else { return false };
        let behind = |end: &SegmentPlace| {
            end.range.overlaps(place.range) && end.segment.epoch < place.segment.epoch
        };
        until.cut.get(place.segment).is_none() && until.places.iter().any(behind)
    }
}
