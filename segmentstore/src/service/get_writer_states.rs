//! What segments know of one writer: a question, nothing is opened.

use std::collections::BTreeMap;

use common::limits::PAGE_ITEMS_MAX;
use common::{ContainerId, SegmentId};
use proto::convert::{segment_id, writer_id};
use proto::error::{Reason, status};
use proto::v1;
use tonic::Status;

use super::{SegmentStoreService, container_status, field_status};
use crate::container::{ContainerMachine, WriterStatus};

impl SegmentStoreService {
    pub(super) async fn writer_states(
        &self,
        request: v1::GetWriterStatesRequest,
    ) -> Result<v1::GetWriterStatesResponse, Status> {
        let writer = writer_id(&request.writer).map_err(|error| field_status(&error))?;
        let count = request.segments.len();
        if count > PAGE_ITEMS_MAX {
            let message =
                format!("`segments` has {count} items; ask for at most {PAGE_ITEMS_MAX} at a time");
            return Err(status(Reason::InvalidArgument, message));
        }
        let mut by_container: BTreeMap<ContainerId, Vec<(usize, SegmentId)>> = BTreeMap::new();
        for (at, asked) in request.segments.into_iter().enumerate() {
            let segment = segment_id(asked.segment).map_err(|error| field_status(&error))?;
            by_container.entry(ContainerId(asked.container)).or_default().push((at, segment));
        }
        let mut states = vec![v1::WriterState::default(); count];
        for (container, asked) in by_container {
            let ask = move |machine: &ContainerMachine| -> Vec<_> {
                let status = |(at, id)| (at, id, machine.writer_status(id, writer));
                asked.into_iter().map(status).collect()
            };
            let found = self.store.containers().ask(container, ask).await;
            let found =
                found.map_err(|error| self.refuse(error.reason(), container_status(&error)))?;
            for (at, segment, status) in found {
                states[at] = state(segment, status);
            }
        }
        Ok(v1::GetWriterStatesResponse { states })
    }
}

fn state(segment: SegmentId, status: Option<WriterStatus>) -> v1::WriterState {
    let segment = Some(segment.into());
    let Some(status) = status else {
        return v1::WriterState { segment, ..v1::WriterState::default() };
    };
    v1::WriterState {
        segment,
        known: true,
        last_number: status.last_number.0,
        session: Some(status.session.into()),
        sum: status.sum.sum,
        sum_after: status.sum.after.0,
    }
}
