//! Stream cuts: where the head, the tail and a moment of a stream are.

use std::collections::BTreeMap;

use common::limits::PAGE_ITEMS_MAX;
use common::{Offset, ScopedStream, SegmentId, StreamCut, StreamId, WallTime};
use proto::error::Reason;
use proto::v1;

use super::lists;
use super::{SegmentInfo, SegmentPlace, SegmentSet, StreamSegments, stream_name};
use crate::client::Inner;
use crate::error::{ClientError, Result};
use crate::succession::Succession;

/// A cut together with where its segments are found.
#[derive(Debug, Clone)]
pub(crate) struct PlacedCut {
    pub(crate) cut: StreamCut,
    pub(crate) places: Vec<SegmentPlace>,
}

impl PlacedCut {
    fn new(stream: StreamId) -> Self {
        Self { cut: StreamCut::new(stream), places: Vec::new() }
    }

    fn set(&mut self, place: SegmentPlace, offset: Offset) {
        self.cut.set(place.segment, offset);
        self.places.push(place);
    }
}

pub(super) async fn head(client: &Inner, stream: &ScopedStream) -> Result<StreamCut> {
    Ok(placed_head(client, stream).await?.cut)
}

pub(crate) async fn placed_head(client: &Inner, stream: &ScopedStream) -> Result<PlacedCut> {
    let (segments, infos) = listed(client, stream, SegmentSet::Head).await?;
    let mut cut = PlacedCut::new(segments.id);
    for (place, info) in segments.segments.into_iter().zip(infos) {
        cut.set(place, info.start_offset);
    }
    Ok(cut)
}

/// How often a list whose segments are truncated away before their stores are asked is made anew.
const LIST_ATTEMPTS: u32 = 5;

/// Segments with what their stores know about them.
async fn listed(
    client: &Inner,
    stream: &ScopedStream,
    set: SegmentSet,
) -> Result<(StreamSegments, Vec<SegmentInfo>)> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let segments = lists::segments(client, stream, set, None).await?;
        match infos(client, &segments.segments).await {
            // Truncated away since it was listed; of a stream that is gone, the list will tell.
            Err(error)
                if error.reason() == Some(Reason::SegmentNotFound) && attempts < LIST_ATTEMPTS => {}
            infos => return Ok((segments, infos?)),
        }
    }
}

/// As [`listed`], for segments that are known by id; those that the stream does not have any more
/// are left out.
pub(super) async fn located(
    client: &Inner,
    segments: &[SegmentId],
) -> Result<(Vec<SegmentPlace>, Vec<SegmentInfo>)> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let places = lists::locate(client, segments, None).await?.segments;
        match infos(client, &places).await {
            Err(error)
                if error.reason() == Some(Reason::SegmentNotFound) && attempts < LIST_ATTEMPTS => {}
            infos => return Ok((places, infos?)),
        }
    }
}

/// Asks whether a cut is a place in the stream.
pub(crate) async fn check_cut(
    client: &Inner,
    stream: &ScopedStream,
    cut: &StreamCut,
) -> Result<()> {
    let request = v1::CheckCutRequest {
        stream: Some(stream_name(stream)),
        cut: proto::convert::cut_offsets(cut),
        covers: Some(cut.covers.into()),
    };
    let answer = client.controller(|mut c| {
        let request = request.clone();
        async move { c.check_cut(request).await }
    });
    answer.await.map(drop)
}

pub(super) async fn tail(client: &Inner, stream: &ScopedStream) -> Result<StreamCut> {
    Ok(placed_tail(client, stream).await?.cut)
}

pub(crate) async fn placed_tail(client: &Inner, stream: &ScopedStream) -> Result<PlacedCut> {
    let (segments, infos) = listed(client, stream, SegmentSet::Tail).await?;
    let mut cut = PlacedCut::new(segments.id);
    for (place, info) in segments.segments.into_iter().zip(infos) {
        cut.set(place, info.length);
    }
    Ok(cut)
}

pub(crate) async fn infos(client: &Inner, places: &[SegmentPlace]) -> Result<Vec<SegmentInfo>> {
    let mut by_endpoint: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, place) in places.iter().enumerate() {
        by_endpoint.entry(client.endpoint_of(place)).or_default().push(i);
    }
    let mut found = vec![None; places.len()];
    for (endpoint, indexes) in by_endpoint {
        for indexes in indexes.chunks(PAGE_ITEMS_MAX) {
            let at = indexes.iter().map(|&i| segment_at(&places[i]));
            let request = v1::GetSegmentInfoRequest { segments: at.collect() };
            let answer = client.store(endpoint, |mut c| {
                let request = request.clone();
                async move { c.get_segment_info(request).await }
            });
            let answer = answer.await?;
            if answer.segments.len() != indexes.len() {
                return Err(ClientError::protocol("segment infos do not match the request"));
            }
            for (&i, info) in indexes.iter().zip(answer.segments) {
                found[i] = Some(segment_info(places[i].segment, &info)?);
            }
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// Refuses an offset behind a segment's end: nothing is there, and if something ever will be, it is
/// not what the offset was taken from.
pub(crate) fn check_within(
    infos: &[SegmentInfo],
    offset: impl Fn(SegmentId) -> Option<Offset>,
) -> Result<()> {
    let beyond = |info: &&SegmentInfo| offset(info.segment).is_some_and(|o| o > info.length);
    let Some(info) = infos.iter().find(beyond) else { return Ok(()) };
    let (segment, length) = (info.segment, info.length);
    let offset = offset(segment).unwrap_or_default();
    Err(ClientError::refused(
        Reason::OutOfRange,
        format!(
            "offset {offset} of segment {segment} is beyond its end, {length}; begin at a place \
             that it has, as `braid stream cut` prints one"
        ),
    ))
}

fn segment_info(segment: SegmentId, info: &v1::SegmentInfo) -> Result<SegmentInfo> {
    if !info.found {
        return Err(ClientError::refused(
            Reason::SegmentNotFound,
            format!("segment {segment} does not exist; its stream may have been deleted"),
        ));
    }
    Ok(SegmentInfo {
        segment,
        start_offset: Offset(info.start_offset),
        length: Offset(info.length),
        sealed: info.sealed,
        log_bytes: info.log_bytes,
        writers: info.writers,
        oldest_micros: info.oldest_micros,
        newest_micros: info.newest_micros,
    })
}

pub(super) fn segment_at(place: &SegmentPlace) -> v1::SegmentAt {
    v1::SegmentAt { segment: Some(place.segment.into()), container: place.container.0 }
}

async fn find_offset(client: &Inner, place: &SegmentPlace, time: WallTime) -> Result<Offset> {
    let request =
        v1::FindOffsetRequest { at: Some(segment_at(place)), time_micros: time.as_micros() };
    let answer = client
        .store(client.endpoint_of(place), |mut c| async move { c.find_offset(request).await });
    Ok(Offset(answer.await?.offset))
}

/// The cut behind which everything stored at or after `time` is: walks from the head over segments
/// that are entirely older.
pub(crate) async fn at_time(
    client: &Inner,
    stream: &ScopedStream,
    time: WallTime,
) -> Result<PlacedCut> {
    let head = lists::segments(client, stream, SegmentSet::Head, None).await?;
    let mut cut = PlacedCut::new(head.id);
    let mut walk = Succession::new();
    head.segments.iter().for_each(|place| walk.begin(place));
    let mut places: BTreeMap<SegmentId, SegmentPlace> = BTreeMap::new();
    let mut frontier = head.segments;
    while !frontier.is_empty() {
        let infos = infos(client, &frontier).await?;
        for (place, info) in std::mem::take(&mut frontier).into_iter().zip(infos) {
            let older = info.sealed && info.newest_micros < time.as_micros();
            let successors: Vec<_> =
                if older { lists::successors(client, place.segment).await? } else { Vec::new() };
            if successors.is_empty() {
                let offset =
                    if older { info.length } else { find_offset(client, &place, time).await? };
                cut.set(place, offset.max(info.start_offset));
            } else {
                frontier.extend(walk.finish(place.segment, info.length, successors));
                places.insert(place.segment, place);
            }
        }
    }
    // Passed segments with a successor that could not be entered stand in the cut with their end.
    for (segment, end) in walk.waiting() {
        if let Some(place) = places.remove(&segment) {
            cut.set(place, end);
        }
    }
    Ok(cut)
}
