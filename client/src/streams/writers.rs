//! The named writers of a stream: which there are, what they stored where, and the end of a name.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::limits::PAGE_ITEMS_MAX;
use common::{EventNumber, ScopedStream, SegmentId, StreamId, WriterEpoch, WriterId, WriterName};
use futures::Stream;
use proto::error::Reason;
use proto::v1;

use super::cuts::segment_at;
use super::lists::{paged, places};
use super::{SegmentPlace, StreamManager, stream_name};
use crate::client::Inner;
use crate::error::{ClientError, Result};

/// What the event numbers of a named writer mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriterMode {
    /// The n-th event of the source is always the same event.
    Replay,
    /// Numbers go on behind the highest stored one.
    Continue,
    /// A mode that this version does not know.
    Unknown,
}

/// A named writer in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriterSummary {
    /// Its name.
    pub name: WriterName,
    /// The mode that the name was first used in, and keeps.
    pub mode: WriterMode,
    /// Raised by each process that opens the name, which fences those before.
    pub epoch: WriterEpoch,
    /// When a process opened the name last, microseconds since the Unix epoch.
    pub registered_micros: u64,
    /// The name is being deleted, or its deletion was given up and must be asked for again.
    pub deleting: bool,
}

/// A named writer, and what the segments of its stream have of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriterDescription {
    /// What listings show.
    pub summary: WriterSummary,
    /// The id under which segments know it.
    pub id: WriterId,
    /// The stream.
    pub stream: StreamId,
    /// What is stored, for each segment that has something of it, in the order of the segments.
    pub segments: Vec<StoredOfWriter>,
}

/// What a segment has of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredOfWriter {
    /// The segment, which may have been truncated away.
    pub segment: SegmentId,
    /// The number of the last event stored there.
    pub last_number: EventNumber,
}

impl StreamManager {
    /// The named writers of a stream, by name, page by page as they are taken.
    pub fn list_writers(
        &self,
        stream: &ScopedStream,
    ) -> impl Stream<Item = Result<WriterSummary>> + Send + Unpin + use<> {
        let (client, stream) = (self.client.clone(), stream.clone());
        paged(move |page| {
            let (client, stream) = (client.clone(), stream_name(&stream));
            async move {
                let request = v1::ListWritersRequest { stream: Some(stream), page: Some(page) };
                let answer = client.controller(|mut c| {
                    let request = request.clone();
                    async move { c.list_writers(request).await }
                });
                let answer = answer.await?;
                let writers: Result<_> = answer.writers.into_iter().map(summary).collect();
                Ok((writers?, answer.next_token))
            }
        })
    }

    /// A named writer and what each segment has stored of it. Nothing is opened, so that a process
    /// that writes under the name goes on undisturbed.
    pub async fn describe_writer(
        &self,
        stream: &ScopedStream,
        writer: &WriterName,
    ) -> Result<WriterDescription> {
        let mut request = v1::DescribeWriterRequest {
            stream: Some(stream_name(stream)),
            writer: writer.to_string(),
            page: None,
        };
        let mut asked: Vec<SegmentPlace> = Vec::new();
        loop {
            let answer = self.client.controller(|mut c| {
                let request = request.clone();
                async move { c.describe_writer(request).await }
            });
            let answer = answer.await?;
            asked.extend(places(answer.segments)?);
            if !answer.next_token.is_empty() {
                request.page = Some(v1::Page { size: 0, token: answer.next_token });
                continue;
            }
            let described = answer.summary.ok_or_else(|| ClientError::protocol("no summary"))?;
            let id = proto::convert::writer_id(&answer.writer)?;
            return Ok(WriterDescription {
                summary: summary(described)?,
                id,
                stream: StreamId(answer.stream_id),
                segments: stored(&self.client, id, &asked).await?,
            });
        }
    }

    /// Frees a writer's name: processes that write under it are fenced, the segments forget what
    /// they know of it, and who opens the name afterwards begins anew, in either mode. The events
    /// that it wrote stay. Returns when that is done. Where somebody opens the name again before that
    /// is known, it fails as [`Fenced`](crate::ErrorKind::Fenced) and leaves the new one alone.
    pub async fn delete_writer(&self, stream: &ScopedStream, writer: &WriterName) -> Result<()> {
        let asked = v1::DescribeWriterRequest {
            stream: Some(stream_name(stream)),
            writer: writer.to_string(),
            page: Some(v1::Page { size: 1, token: String::new() }),
        };
        let seen = self.client.controller(|mut c| {
            let asked = asked.clone();
            async move { c.describe_writer(asked).await }
        });
        let seen = seen.await?.summary.ok_or_else(|| ClientError::protocol("no summary"))?;
        let request = v1::DeleteWriterRequest {
            stream: Some(stream_name(stream)),
            writer: writer.to_string(),
            epoch: seen.epoch,
        };
        let answer = self.client.controller_job(|mut c| {
            let request = request.clone();
            async move { c.delete_writer(request).await }
        });
        match answer.await {
            // An attempt whose answer was lost freed the name, or somebody else did.
            (Err(error), true) if error.reason() == Some(Reason::WriterNotFound) => Ok(()),
            (answer, _) => answer.map(drop),
        }
    }
}

/// What the segments have stored of a writer; those that have nothing are left out.
async fn stored(
    client: &Arc<Inner>,
    writer: WriterId,
    places: &[SegmentPlace],
) -> Result<Vec<StoredOfWriter>> {
    let mut by_endpoint: BTreeMap<&str, Vec<&SegmentPlace>> = BTreeMap::new();
    for place in places {
        by_endpoint.entry(client.endpoint_of(place)).or_default().push(place);
    }
    let mut found = Vec::new();
    for (endpoint, places) in by_endpoint {
        for places in places.chunks(PAGE_ITEMS_MAX) {
            let request = v1::GetWriterStatesRequest {
                writer: proto::convert::writer_bytes(writer),
                segments: places.iter().map(|place| segment_at(place)).collect(),
            };
            let answer = client.store(endpoint, |mut c| {
                let request = request.clone();
                async move { c.get_writer_states(request).await }
            });
            let states = answer.await?.states;
            if states.len() != places.len() {
                return Err(ClientError::protocol("writer states do not match the request"));
            }
            let stored = states.into_iter().zip(places).filter(|(state, _)| state.last_number > 0);
            found.extend(stored.map(|(state, place)| StoredOfWriter {
                segment: place.segment,
                last_number: EventNumber(state.last_number),
            }));
        }
    }
    found.sort_unstable_by_key(|stored| stored.segment);
    Ok(found)
}

fn summary(summary: v1::WriterSummary) -> Result<WriterSummary> {
    let name = summary.writer.parse();
    Ok(WriterSummary {
        name: name.map_err(|error: common::NameError| ClientError::protocol(error.to_string()))?,
        mode: match summary.mode() {
            v1::WriterMode::WriterReplay => WriterMode::Replay,
            v1::WriterMode::WriterContinue => WriterMode::Continue,
            v1::WriterMode::Unspecified => WriterMode::Unknown,
        },
        epoch: WriterEpoch(summary.epoch),
        registered_micros: summary.registered_micros,
        deleting: summary.deleting,
    })
}
