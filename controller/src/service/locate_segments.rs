//! Where segments are now, truncated away or not: for who knows them and finds that they moved.

use common::limits::PAGE_ITEMS_MAX;
use common::{SegmentId, StreamId, WriterEpoch, WriterId};
use proto::v1;

use crate::machine::{ControllerMachine, Stream, StreamState};
use crate::outcome::Refusal;
use crate::service::fields::invalid;
use crate::service::get_segments::place;
use crate::service::{ControllerService, ServiceError, fields};

/// Segments of one stream, and the named writer that asks for them.
struct Question {
    stream: StreamId,
    segments: Vec<SegmentId>,
    writer: Option<(WriterId, WriterEpoch)>,
}

impl ControllerService {
    pub(super) async fn locate_segments(
        &self,
        request: v1::LocateSegmentsRequest,
    ) -> Result<v1::LocateSegmentsResponse, ServiceError> {
        let segments: Vec<SegmentId> = request.segments.into_iter().map(Into::into).collect();
        let Some(stream) = segments.first().map(|first| first.stream) else {
            return Err(invalid("field `segments` is empty; give segments of one stream"));
        };
        if let Some(other) = segments.iter().find(|segment| segment.stream != stream) {
            return Err(invalid(format!(
                "field `segments` names {} and {other}, which are of two streams; ask for those of \
                 one stream at a time",
                segments[0]
            )));
        }
        if segments.len() > PAGE_ITEMS_MAX {
            return Err(invalid(format!(
                "field `segments` names {}; ask for at most {PAGE_ITEMS_MAX} at a time",
                segments.len()
            )));
        }
        let writer = fields::writer(&request.writer, request.writer_epoch)?;
        let question = Question { stream, segments, writer };
        self.query(move |machine| answer(machine, &question)).await?
    }
}

fn answer(
    machine: &ControllerMachine,
    question: &Question,
) -> Result<v1::LocateSegmentsResponse, ServiceError> {
    let stream = machine.stream_by_id(question.stream)?;
    if stream.state == StreamState::Deleting {
        return Err(Refusal::StreamIdNotFound(question.stream).into());
    }
    if let Some((writer, epoch)) = question.writer {
        stream.check_writer(writer, epoch)?;
    }
    let mut found = v1::LocateSegmentsResponse::default();
    for id in &question.segments {
        let key = Stream::key_of(*id);
        let Some(place) = place(machine, stream, key) else { continue };
        match stream.segment(key) {
            Some(_) => found.segments.push(place.into()),
            None => found.truncated.push(place.into()),
        }
    }
    Ok(found)
}
