//! Managing scopes and streams: what exists, where it is, and where it begins and ends.

mod boundaries;
mod cuts;
mod lists;
mod writers;

use std::sync::Arc;

use common::{Offset, ScopeName, ScopedStream, SegmentId, StreamCut, StreamEpoch, StreamId};
use futures::Stream;
pub use proto::convert::SegmentPlace;
use proto::error::Reason;
use proto::v1;

pub(crate) use cuts::{
    PlacedCut, at_time, check_cut, check_within, infos, placed_head, placed_tail,
};
pub(crate) use lists::{locate, locate_once, segments, successors};
pub use writers::{StoredOfWriter, WriterDescription, WriterMode, WriterSummary};

use crate::client::Inner;
use crate::error::{ClientError, Result};

/// How a stream is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamConfig {
    /// Segments at creation: how many parts of the stream can be written and read side by side.
    /// 0: the server's default.
    pub segments: u32,
    /// Create the scope, too, where it does not exist.
    pub create_scope: bool,
}

/// What a stream is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamState {
    /// Being made.
    Creating,
    /// Takes events.
    Active,
    /// Being sealed.
    Sealing,
    /// Takes no more events.
    Sealed,
    /// Being deleted.
    Deleting,
    /// A state that this version does not know.
    Unknown,
}

impl StreamState {
    fn from_wire(state: i32) -> Self {
        match v1::StreamState::try_from(state) {
            Ok(v1::StreamState::Creating) => Self::Creating,
            Ok(v1::StreamState::Active) => Self::Active,
            Ok(v1::StreamState::Sealing) => Self::Sealing,
            Ok(v1::StreamState::Sealed) => Self::Sealed,
            Ok(v1::StreamState::Deleting) => Self::Deleting,
            Ok(v1::StreamState::Unspecified) | Err(_) => Self::Unknown,
        }
    }
}

/// What creating a stream came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamCreated {
    /// The stream's id.
    pub id: StreamId,
    /// False: a stream of that name existed already, whatever its configuration.
    pub created: bool,
}

/// A stream in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSummary {
    /// The stream's name.
    pub stream: ScopedStream,
    /// The stream's id; a stream deleted and created again has another one.
    pub id: StreamId,
    /// What it is doing.
    pub state: StreamState,
    /// Segments that take appends, or that did when it was sealed.
    pub segments: u32,
    /// When it was created, microseconds since the Unix epoch.
    pub created_micros: u64,
}

/// A stream in detail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamDescription {
    /// What listings show.
    pub summary: StreamSummary,
    /// As it was created.
    pub config: StreamConfig,
    /// The version of its set of segments.
    pub epoch: StreamEpoch,
    /// Named writers that are registered.
    pub writers: u64,
}

/// Which of a stream's segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentSet {
    /// Those that take appends; none where the stream is sealed.
    Active,
    /// Those at which reading from the head begins.
    Head,
    /// Those of the newest epoch, sealed or not: where the tail is.
    Tail,
    /// Those of the first epoch, truncated away or not: where the history of each key begins.
    First,
}

/// Segments that were asked for by id.
#[derive(Debug, Default)]
pub(crate) struct Located {
    pub(crate) segments: Vec<SegmentPlace>,
    /// Those that were truncated away: they can be opened, but not read.
    pub(crate) truncated: Vec<SegmentPlace>,
}

/// Segments of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSegments {
    /// The stream.
    pub id: StreamId,
    /// The version of its set of segments.
    pub epoch: StreamEpoch,
    /// What the stream is doing.
    pub state: StreamState,
    /// The segments with what they own and where they are.
    pub segments: Vec<SegmentPlace>,
}

/// What a store knows about a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The segment.
    pub segment: SegmentId,
    /// The first readable byte.
    pub start_offset: Offset,
    /// The first unwritten byte.
    pub length: Offset,
    /// Whether it takes no more appends.
    pub sealed: bool,
    /// Bytes that only the log holds.
    pub log_bytes: u64,
    /// Writers with an entry in the segment's writer table.
    pub writers: u64,
    /// Ingest time of the oldest bytes, microseconds since the Unix epoch; 0: none.
    pub oldest_micros: u64,
    /// Ingest time of the newest bytes, microseconds since the Unix epoch; 0: none.
    pub newest_micros: u64,
}

/// Manages scopes and streams; made by [`Client::streams`](crate::Client::streams).
#[derive(Debug, Clone)]
pub struct StreamManager {
    pub(crate) client: Arc<Inner>,
}

pub(crate) fn stream_name(stream: &ScopedStream) -> v1::StreamName {
    v1::StreamName { scope: stream.scope.to_string(), stream: stream.stream.to_string() }
}

impl StreamManager {
    pub(crate) fn new(client: Arc<Inner>) -> Self {
        Self { client }
    }

    /// Creates a scope; false where it existed already.
    pub async fn create_scope(&self, scope: &ScopeName) -> Result<bool> {
        let request = v1::CreateScopeRequest { scope: scope.to_string() };
        let answer = self.client.controller_job(|mut c| {
            let request = request.clone();
            async move { c.create_scope(request).await }
        });
        let (answer, lost) = answer.await;
        // An attempt whose answer was lost may well have made it.
        Ok(answer?.created || lost)
    }

    /// Deletes a scope, which must be empty.
    pub async fn delete_scope(&self, scope: &ScopeName) -> Result<()> {
        let request = v1::DeleteScopeRequest { scope: scope.to_string() };
        let answer = self.client.controller_job(|mut c| {
            let request = request.clone();
            async move { c.delete_scope(request).await }
        });
        match answer.await {
            // An attempt whose answer was lost deleted it, or somebody else did.
            (Err(error), true) if error.reason() == Some(Reason::ScopeNotFound) => Ok(()),
            (answer, _) => answer.map(drop),
        }
    }

    /// Creates a stream, where no stream of that name exists.
    pub async fn create_stream(
        &self,
        stream: &ScopedStream,
        config: StreamConfig,
    ) -> Result<StreamCreated> {
        let request = v1::CreateStreamRequest {
            stream: Some(stream_name(stream)),
            config: Some(v1::StreamConfig { segments: config.segments }),
            create_scope: config.create_scope,
            // By it the server knows a request that comes again because its answer was lost.
            token: self.client.fork_rng("token of a creation").u64(),
        };
        let answer = self.client.controller_job(|mut c| {
            let request = request.clone();
            async move { c.create_stream(request).await }
        });
        let answer = answer.await.0?;
        Ok(StreamCreated { id: StreamId(answer.stream_id), created: answer.created })
    }

    /// What is known about a stream.
    pub async fn describe(&self, stream: &ScopedStream) -> Result<StreamDescription> {
        let request = v1::DescribeStreamRequest { stream: Some(stream_name(stream)) };
        let answer = self.client.controller(|mut c| {
            let request = request.clone();
            async move { c.describe_stream(request).await }
        });
        let answer = answer.await?;
        let summary = answer.summary.ok_or_else(|| ClientError::protocol("no summary"))?;
        let segments = answer.config.map_or(0, |config| config.segments);
        Ok(StreamDescription {
            summary: lists::summary(summary)?,
            config: StreamConfig { segments, create_scope: false },
            epoch: StreamEpoch(answer.epoch),
            writers: answer.writers,
        })
    }

    /// Ends a stream: it takes no more events, and readers come to its end.
    pub async fn seal(&self, stream: &ScopedStream) -> Result<()> {
        let request = v1::SealStreamRequest { stream: Some(stream_name(stream)) };
        let answer = self.client.controller_job(|mut c| {
            let request = request.clone();
            async move { c.seal_stream(request).await }
        });
        answer.await.0.map(drop)
    }

    /// Drops everything before a stream cut of the whole stream. A cut inside an event is refused
    /// where the stream holds events: nobody could read from its head any more.
    pub async fn truncate(&self, stream: &ScopedStream, cut: &StreamCut) -> Result<()> {
        boundaries::check(&self.client, stream, cut).await?;
        let request = v1::TruncateStreamRequest {
            stream: Some(stream_name(stream)),
            cut: proto::convert::cut_offsets(cut),
            covers: Some(cut.covers.into()),
        };
        let answer = self.client.controller_job(|mut c| {
            let request = request.clone();
            async move { c.truncate_stream(request).await }
        });
        answer.await.0.map(drop)
    }

    /// Deletes a stream and its events for good.
    pub async fn delete(&self, stream: &ScopedStream) -> Result<()> {
        // By its id, so that a repeated request never reaches a stream made later under the name.
        let id = self.describe(stream).await?.summary.id;
        let request =
            v1::DeleteStreamRequest { stream: Some(stream_name(stream)), stream_id: id.0 };
        let answer = self.client.controller_job(|mut c| {
            let request = request.clone();
            async move { c.delete_stream(request).await }
        });
        answer.await.0.map(drop)
    }

    /// All scopes, page by page as they are taken.
    pub fn list_scopes(&self) -> impl Stream<Item = Result<ScopeName>> + Send + Unpin + use<> {
        lists::scopes(self.client.clone())
    }

    /// The streams of a scope, page by page as they are taken.
    pub fn list_streams(
        &self,
        scope: &ScopeName,
    ) -> impl Stream<Item = Result<StreamSummary>> + Send + Unpin + use<> {
        lists::streams(self.client.clone(), scope.clone())
    }

    /// Segments of a stream.
    pub async fn segments(&self, stream: &ScopedStream, set: SegmentSet) -> Result<StreamSegments> {
        segments(&self.client, stream, set, None).await
    }

    /// What follows a sealed segment; empty where it is not sealed, or the stream ends there.
    pub async fn successors(&self, segment: SegmentId) -> Result<Vec<SegmentPlace>> {
        successors(&self.client, segment).await
    }

    /// Where segments of one stream are now; those that it does not have, or not any more, are
    /// left out.
    pub async fn locate(&self, segments: &[SegmentId]) -> Result<Vec<SegmentPlace>> {
        Ok(locate(&self.client, segments, None).await?.segments)
    }

    /// What the stores know about segments, in the order asked for. A segment that does not exist
    /// is an error.
    pub async fn segment_infos(&self, places: &[SegmentPlace]) -> Result<Vec<SegmentInfo>> {
        infos(&self.client, places).await
    }

    /// Where reading the stream from its head begins.
    pub async fn head_cut(&self, stream: &ScopedStream) -> Result<StreamCut> {
        cuts::head(&self.client, stream).await
    }

    /// Where the stream ends now.
    pub async fn tail_cut(&self, stream: &ScopedStream) -> Result<StreamCut> {
        cuts::tail(&self.client, stream).await
    }

    /// Where everything stored at or after a time is found behind. Some events stored shortly
    /// before it may follow, too.
    pub async fn cut_at_time(
        &self,
        stream: &ScopedStream,
        time: common::WallTime,
    ) -> Result<StreamCut> {
        Ok(at_time(&self.client, stream, time).await?.cut)
    }
}
