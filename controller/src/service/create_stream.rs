//! Create a stream and wait until it takes events. One of that name that exists is no error.

use common::ScopedStream;
use proto::v1;

use crate::machine::StreamState;
use crate::operation::Operation;
use crate::outcome::Accepted;
use crate::service::{ControllerService, ServiceError, fields};

impl ControllerService {
    pub(super) async fn create_stream(
        &self,
        request: v1::CreateStreamRequest,
    ) -> Result<v1::CreateStreamResponse, ServiceError> {
        let name = fields::stream(request.stream)?;
        let segments = fields::segments(request.config, self.settings.default_segments)?;
        let (create_scope, token) = (request.create_scope, request.token);
        if let Some(found) = self.ready_stream(&name, token).await? {
            return Ok(found);
        }
        let operation = Operation::CreateStream { stream: name, segments, create_scope, token };
        match self.submit(operation).await? {
            Accepted::StreamCreated { stream, created, job } => {
                self.finished(job).await?;
                Ok(v1::CreateStreamResponse { stream_id: stream.0, created })
            }
            other => Err(ServiceError::bug(&other)),
        }
    }

    /// Creating what is there costs a read, not an entry: clients do it before each append.
    async fn ready_stream(
        &self,
        name: &ScopedStream,
        token: u64,
    ) -> Result<Option<v1::CreateStreamResponse>, ServiceError> {
        let name = name.clone();
        let found = self.query(move |machine| {
            let ready = |state| !matches!(state, StreamState::Creating | StreamState::Deleting);
            let found = machine.stream(&name).ok().filter(|stream| ready(stream.state));
            found.map(|stream| v1::CreateStreamResponse {
                stream_id: stream.id.0,
                created: stream.was_created_with(token),
            })
        });
        Ok(found.await?)
    }
}
