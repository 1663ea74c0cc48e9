//! What follows a segment, truncated away or not: nothing while it is not sealed, nor where its
//! stream ended with it.

use common::SegmentId;
use proto::v1;

use crate::machine::{ControllerMachine, Stream, StreamState};
use crate::outcome::Refusal;
use crate::service::get_segments::places;
use crate::service::page::{PageRequest, key_token, successors_kind};
use crate::service::{ControllerService, ServiceError, fields};

impl ControllerService {
    pub(super) async fn get_successors(
        &self,
        request: v1::GetSuccessorsRequest,
    ) -> Result<v1::GetSuccessorsResponse, ServiceError> {
        let segment = fields::segment(request.segment)?;
        let page = PageRequest::new(request.page, common::limits::PAGE_ITEMS_MAX)?;
        self.query(move |machine| answer(machine, segment, &page)).await?
    }
}

fn answer(
    machine: &ControllerMachine,
    id: SegmentId,
    page: &PageRequest,
) -> Result<v1::GetSuccessorsResponse, ServiceError> {
    let stream = machine.stream_by_id(id.stream)?;
    if stream.state == StreamState::Deleting {
        return Err(Refusal::StreamIdNotFound(id.stream).into());
    }
    let segment = stream.known_segment(Stream::key_of(id)).ok_or(Refusal::SegmentNotFound(id))?;
    let kind = successors_kind(id);
    let from = page.start_key(&kind)?;
    let keys = stream.in_order(segment.successors.clone());
    let found = places(machine, stream, &keys, from, page)?;
    let found = page.cut(found, |_, next| key_token(&kind, next.range.low()));
    Ok(v1::GetSuccessorsResponse {
        successors: found.items.into_iter().map(Into::into).collect(),
        next_token: found.next_token,
    })
}
