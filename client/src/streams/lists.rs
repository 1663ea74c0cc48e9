//! Everything that comes in pages.

use std::future::Future;
use std::sync::Arc;

use common::limits::PAGE_ITEMS_MAX;
use common::{ScopeName, ScopedStream, SegmentId, StreamEpoch, StreamId, WriterEpoch, WriterId};
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use proto::error::Reason;
use proto::v1;

use super::{
    Located, SegmentPlace, SegmentSet, StreamSegments, StreamState, StreamSummary, stream_name,
};
use crate::client::Inner;
use crate::error::{ClientError, Result};

/// Items of all pages; `fetch` gets the token of the page before and gives items and next token.
pub(super) fn paged<T, F>(
    fetch: impl Fn(v1::Page) -> F + Send + 'static,
) -> BoxStream<'static, Result<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<(Vec<T>, String)>> + Send + 'static,
{
    let pages = stream::try_unfold((fetch, Some(String::new())), |(fetch, token)| async move {
        let Some(token) = token else { return Ok(None) };
        let (items, next) = fetch(v1::Page { size: 0, token }).await?;
        let items = stream::iter(items.into_iter().map(Ok::<T, ClientError>));
        Ok::<_, ClientError>(Some((items, (fetch, (!next.is_empty()).then_some(next)))))
    });
    pages.try_flatten().boxed()
}

pub(super) fn scopes(client: Arc<Inner>) -> impl Stream<Item = Result<ScopeName>> + Send + Unpin {
    paged(move |page| {
        let client = client.clone();
        async move {
            let request = v1::ListScopesRequest { page: Some(page) };
            let answer = client.controller(|mut c| {
                let request = request.clone();
                async move { c.list_scopes(request).await }
            });
            let answer = answer.await?;
            let scopes: Result<_> = answer.scopes.iter().map(|name| read_name(name)).collect();
            Ok((scopes?, answer.next_token))
        }
    })
}

pub(super) fn streams(
    client: Arc<Inner>,
    scope: ScopeName,
) -> impl Stream<Item = Result<StreamSummary>> + Send + Unpin {
    paged(move |page| {
        let (client, scope) = (client.clone(), scope.to_string());
        async move {
            let request = v1::ListStreamsRequest { scope, page: Some(page) };
            let answer = client.controller(|mut c| {
                let request = request.clone();
                async move { c.list_streams(request).await }
            });
            let answer = answer.await?;
            let streams: Result<_> = answer.streams.into_iter().map(summary).collect();
            Ok((streams?, answer.next_token))
        }
    })
}

fn read_name(name: &str) -> Result<ScopeName> {
    ScopeName::new(name).map_err(|error| ClientError::protocol(error.to_string()))
}

pub(super) fn summary(summary: v1::StreamSummary) -> Result<StreamSummary> {
    let name = summary.stream.ok_or_else(|| ClientError::protocol("a stream without a name"))?;
    let stream = ScopedStream::new(&name.scope, &name.stream)
        .map_err(|error| ClientError::protocol(error.to_string()))?;
    Ok(StreamSummary {
        stream,
        id: StreamId(summary.stream_id),
        state: StreamState::from_wire(summary.state),
        segments: summary.segments,
        created_micros: summary.created_micros,
    })
}

pub(super) fn places(places: Vec<v1::SegmentPlace>) -> Result<Vec<SegmentPlace>> {
    places.into_iter().map(|place| Ok(SegmentPlace::try_from(place)?)).collect()
}

/// The segments of a stream at one moment: where they change between two pages, the list starts
/// over.
pub(crate) async fn segments(
    client: &Inner,
    stream: &ScopedStream,
    set: SegmentSet,
    writer: Option<(WriterId, WriterEpoch)>,
) -> Result<StreamSegments> {
    let wire_set = match set {
        SegmentSet::Active => v1::SegmentSet::ActiveSegments,
        SegmentSet::Head => v1::SegmentSet::HeadSegments,
        SegmentSet::Tail => v1::SegmentSet::TailSegments,
        SegmentSet::First => v1::SegmentSet::FirstSegments,
    };
    let request = |page| v1::GetSegmentsRequest {
        stream: Some(stream_name(stream)),
        set: wire_set as i32,
        page,
        writer: writer.map(|(id, _)| proto::convert::writer_bytes(id)).unwrap_or_default(),
        writer_epoch: writer.map_or(0, |(_, epoch)| epoch.0),
    };
    let mut found: Option<StreamSegments> = None;
    let mut page = None;
    loop {
        let is_later = page.is_some();
        let request = request(page.take());
        let answer = client.controller(|mut c| {
            let request = request.clone();
            async move { c.get_segments(request).await }
        });
        let answer = match answer.await {
            Err(error) if is_later && is_gone(&error) => {
                found = None;
                continue;
            }
            answer => answer?,
        };
        let (id, epoch) = (StreamId(answer.stream_id), StreamEpoch(answer.epoch));
        let state = StreamState::from_wire(answer.state);
        let part =
            found.get_or_insert_with(|| StreamSegments { id, epoch, state, segments: Vec::new() });
        if (part.id, part.epoch, part.state) != (id, epoch, state) {
            // The stream was scaled, sealed or made anew between two pages.
            found = None;
            continue;
        }
        part.segments.extend(places(answer.segments)?);
        match found.take_if(|_| answer.next_token.is_empty()) {
            Some(whole) => return Ok(whole),
            None => page = Some(v1::Page { size: 0, token: answer.next_token }),
        }
    }
}

/// Whether the page that was asked for does not exist any more: the list changed, or the stream is
/// another one by now.
fn is_gone(error: &ClientError) -> bool {
    matches!(error.reason(), Some(Reason::OutOfRange | Reason::InvalidArgument))
}

/// Where segments of one stream are now; those that it never had are left out.
pub(crate) async fn locate(
    client: &Inner,
    segments: &[SegmentId],
    writer: Option<(WriterId, WriterEpoch)>,
) -> Result<Located> {
    let mut found = Located::default();
    for segments in segments.chunks(PAGE_ITEMS_MAX) {
        let request = v1::LocateSegmentsRequest {
            segments: segments.iter().map(|segment| (*segment).into()).collect(),
            writer: writer.map(|(id, _)| proto::convert::writer_bytes(id)).unwrap_or_default(),
            writer_epoch: writer.map_or(0, |(_, epoch)| epoch.0),
        };
        let answer = client.controller(|mut c| {
            let request = request.clone();
            async move { c.locate_segments(request).await }
        });
        let answer = answer.await?;
        found.segments.extend(places(answer.segments)?);
        found.truncated.extend(places(answer.truncated)?);
    }
    Ok(found)
}

/// Where a segment of a stream is now, asked once; `None` where the stream does not have it.
pub(crate) async fn locate_once(
    client: &Inner,
    segment: SegmentId,
) -> Result<Option<SegmentPlace>> {
    let request =
        v1::LocateSegmentsRequest { segments: vec![segment.into()], ..Default::default() };
    let answer = client.controller_once(|mut c| async move { c.locate_segments(request).await });
    Ok(places(answer.await?.segments)?.pop())
}

/// What follows a sealed segment, all of it.
pub(crate) async fn successors(client: &Inner, segment: SegmentId) -> Result<Vec<SegmentPlace>> {
    let mut found = Vec::new();
    let mut page = None;
    loop {
        let is_later = page.is_some();
        let request = v1::GetSuccessorsRequest { segment: Some(segment.into()), page: page.take() };
        let answer = client.controller(|mut c| {
            let request = request.clone();
            async move { c.get_successors(request).await }
        });
        let answer = match answer.await {
            Err(error) if is_later && is_gone(&error) => {
                found.clear();
                continue;
            }
            answer => answer?,
        };
        found.extend(places(answer.successors)?);
        if answer.next_token.is_empty() {
            return Ok(found);
        }
        page = Some(v1::Page { size: 0, token: answer.next_token });
    }
}
