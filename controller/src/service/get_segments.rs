//! The segments of a stream that take its events, begin it, or end it, with their places.

use common::{ScopedStream, WriterEpoch, WriterId};
use proto::convert::SegmentPlace;
use proto::v1;

use crate::machine::{ControllerMachine, SegmentKey, Stream, StreamState};
use crate::outcome::Refusal;
use crate::service::fields::invalid;
use crate::service::list_streams::state;
use crate::service::page::{PageRequest, key_token, segments_kind};
use crate::service::{ControllerService, ServiceError, fields};

/// A question for one page of segments.
#[derive(Debug, Clone)]
struct Question {
    stream: ScopedStream,
    set: v1::SegmentSet,
    writer: Option<(WriterId, WriterEpoch)>,
    page: PageRequest,
}

impl ControllerService {
    pub(super) async fn get_segments(
        &self,
        request: v1::GetSegmentsRequest,
    ) -> Result<v1::GetSegmentsResponse, ServiceError> {
        let set = v1::SegmentSet::try_from(request.set).unwrap_or_default();
        if set == v1::SegmentSet::Unspecified {
            let given = request.set;
            return Err(invalid(format!(
                "field `set` is {given}; ask for ACTIVE_SEGMENTS, HEAD_SEGMENTS, \
                 TAIL_SEGMENTS or FIRST_SEGMENTS"
            )));
        }
        let question = Question {
            stream: fields::stream(request.stream)?,
            set,
            writer: fields::writer(&request.writer, request.writer_epoch)?,
            page: PageRequest::new(request.page, common::limits::PAGE_ITEMS_MAX)?,
        };
        let deadline = self.jobs.deadline();
        loop {
            let asked = question.clone();
            match self.query(move |machine| answer(machine, &asked)).await? {
                // A stream that is being made is ready in a moment.
                Err(ServiceError::Refused(Refusal::Busy { job, .. })) => {
                    self.jobs.wait(job, deadline).await?;
                }
                answered => return answered,
            }
        }
    }
}

fn answer(
    machine: &ControllerMachine,
    question: &Question,
) -> Result<v1::GetSegmentsResponse, ServiceError> {
    let stream = machine.stream(&question.stream)?;
    match (stream.state, stream.job) {
        (StreamState::Deleting, _) => {
            return Err(Refusal::StreamNotFound(question.stream.clone()).into());
        }
        (StreamState::Creating, Some(job)) => {
            return Err(Refusal::Busy { stream: question.stream.clone(), job }.into());
        }
        // Nobody takes what is there of it for a stream that has ended.
        (StreamState::Creating, None) => {
            return Err(Refusal::NotMade(question.stream.clone()).into());
        }
        _ => {}
    }
    if let Some((writer, epoch)) = question.writer {
        stream.check_writer(writer, epoch)?;
    }
    let kind = segments_kind(stream.id, question.set);
    let from = question.page.start_key(&kind)?;
    let keys = match question.set {
        v1::SegmentSet::HeadSegments => stream.head_segments(),
        v1::SegmentSet::FirstSegments => &stream.first,
        v1::SegmentSet::ActiveSegments => stream.active(),
        _ => &stream.current[..],
    };
    let page = places(machine, stream, keys, from, &question.page)?;
    let page = question.page.cut(page, |_, next| key_token(&kind, next.range.low()));
    Ok(v1::GetSegmentsResponse {
        stream_id: stream.id.0,
        epoch: stream.epoch().0,
        state: state(stream.state).into(),
        segments: page.items.into_iter().map(Into::into).collect(),
        next_token: page.next_token,
    })
}

/// The places of a page and one more, from the segment that begins at `from`. Where none begins
/// there any more, the list changed under the pages.
pub(super) fn places(
    machine: &ControllerMachine,
    stream: &Stream,
    keys: &[SegmentKey],
    from: Option<u64>,
    page: &PageRequest,
) -> Result<Vec<SegmentPlace>, ServiceError> {
    let low = |key: &SegmentKey| stream.known_segment(*key).map(|segment| segment.range.low());
    let keys = match from {
        // An empty list, too: the stream was sealed since, and what was listed is only a part of
        // what there was.
        Some(from) => {
            let at = keys.partition_point(|key| low(key) < Some(from));
            let rest = &keys[at..];
            if rest.first().and_then(low) != Some(from) {
                return Err(ServiceError::PageGone);
            }
            rest
        }
        None => keys,
    };
    Ok(keys.iter().take(page.size + 1).filter_map(|key| place(machine, stream, *key)).collect())
}

/// Where a segment is, truncated away or not.
pub(super) fn place(
    machine: &ControllerMachine,
    stream: &Stream,
    key: SegmentKey,
) -> Option<SegmentPlace> {
    let segment = stream.known_segment(key)?;
    let predecessors = segment.predecessors.iter().map(|key| stream.segment_id(*key));
    Some(SegmentPlace {
        segment: stream.segment_id(key),
        range: segment.range,
        container: segment.container,
        endpoint: machine.endpoint_of(segment.container).to_owned(),
        predecessors: predecessors.collect(),
    })
}
