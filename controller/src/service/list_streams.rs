//! List the streams of a scope, by name, in pages.

use std::ops::Bound;

use common::StreamName;
use proto::v1;

use crate::machine::{ControllerMachine, Stream, StreamState};
use crate::service::page::{PageRequest, name_token};
use crate::service::{ControllerService, ServiceError, fields};
use crate::settings::PAGE_ITEMS_DEFAULT;

impl ControllerService {
    pub(super) async fn list_streams(
        &self,
        request: v1::ListStreamsRequest,
    ) -> Result<v1::ListStreamsResponse, ServiceError> {
        let scope = fields::scope(&request.scope)?;
        let page = PageRequest::new(request.page, PAGE_ITEMS_DEFAULT)?;
        let kind = format!("streams:{scope}");
        let after: Bound<StreamName> = page.after_name(&kind)?;
        let most = page.size + 1;
        let streams = self.query(move |machine: &ControllerMachine| {
            let streams = machine.streams_of(&scope)?.range((after, Bound::Unbounded)).take(most);
            streams.map(|(_, id)| machine.stream_by_id(*id).map(summary)).collect::<Result<_, _>>()
        });
        let streams: Vec<v1::StreamSummary> = streams.await??;
        let last_name = |last: &v1::StreamSummary| {
            last.stream.as_ref().map(|name| name.stream.clone()).unwrap_or_default()
        };
        let page = page.cut(streams, |last, _| name_token(&kind, &last_name(last)));
        Ok(v1::ListStreamsResponse { streams: page.items, next_token: page.next_token })
    }
}

pub(super) fn summary(stream: &Stream) -> v1::StreamSummary {
    v1::StreamSummary {
        stream: Some(v1::StreamName {
            scope: stream.name.scope.to_string(),
            stream: stream.name.stream.to_string(),
        }),
        stream_id: stream.id.0,
        state: state(stream.state).into(),
        segments: u32::try_from(stream.width()).unwrap_or(u32::MAX),
        created_micros: stream.created.as_micros(),
    }
}

pub(super) const fn state(state: StreamState) -> v1::StreamState {
    match state {
        StreamState::Creating => v1::StreamState::Creating,
        StreamState::Active => v1::StreamState::Active,
        StreamState::Sealing => v1::StreamState::Sealing,
        StreamState::Sealed => v1::StreamState::Sealed,
        StreamState::Deleting => v1::StreamState::Deleting,
    }
}
