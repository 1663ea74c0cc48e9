//! List the named writers of a stream, by name, in pages.

use std::ops::Bound;

use common::WriterName;
use proto::v1;

use crate::machine::{ControllerMachine, Stream, StreamState, Writer, WriterMode};
use crate::outcome::Refusal;
use crate::service::page::{PageRequest, name_token};
use crate::service::{ControllerService, ServiceError, fields};
use crate::settings::PAGE_ITEMS_DEFAULT;

impl ControllerService {
    pub(super) async fn list_writers(
        &self,
        request: v1::ListWritersRequest,
    ) -> Result<v1::ListWritersResponse, ServiceError> {
        let name = fields::stream(request.stream)?;
        let page = PageRequest::new(request.page, PAGE_ITEMS_DEFAULT)?;
        let kind = format!("writers:{name}");
        let after: Bound<WriterName> = page.after_name(&kind)?;
        let most = page.size + 1;
        let writers = self.query(move |machine: &ControllerMachine| {
            let found = living(machine.stream(&name)?)?;
            let writers = found.writers.range((after, Bound::Unbounded)).take(most);
            Ok(writers.map(|(name, writer)| summary(name, writer)).collect::<Vec<_>>())
        });
        let writers: Result<_, Refusal> = writers.await?;
        let page = page.cut(writers?, |last, _| name_token(&kind, &last.writer));
        Ok(v1::ListWritersResponse { writers: page.items, next_token: page.next_token })
    }
}

/// A stream that is not being deleted.
pub(super) fn living(stream: &Stream) -> Result<&Stream, Refusal> {
    match stream.state {
        StreamState::Deleting => Err(Refusal::StreamNotFound(stream.name.clone())),
        _ => Ok(stream),
    }
}

pub(super) fn summary(name: &WriterName, writer: &Writer) -> v1::WriterSummary {
    let mode = match writer.mode {
        WriterMode::Replay => v1::WriterMode::WriterReplay,
        WriterMode::Continue => v1::WriterMode::WriterContinue,
    };
    v1::WriterSummary {
        writer: name.to_string(),
        mode: mode.into(),
        epoch: writer.epoch.0,
        registered_micros: writer.registered.as_micros(),
        deleting: writer.deleting,
    }
}
