//! Delete a stream and wait until nothing of it is left and its name is free.

use common::StreamId;
use proto::v1;

use crate::operation::Operation;
use crate::service::{ControllerService, ServiceError, fields};

impl ControllerService {
    pub(super) async fn delete_stream(
        &self,
        request: v1::DeleteStreamRequest,
    ) -> Result<v1::DeleteStreamResponse, ServiceError> {
        let stream = fields::stream(request.stream)?;
        let operation = match request.stream_id {
            0 => Operation::DeleteStream { stream },
            id => Operation::DeleteStreamById { stream: StreamId(id) },
        };
        self.carry_out(operation).await?;
        Ok(v1::DeleteStreamResponse {})
    }
}
