//! Seal a stream and wait until none of its segments takes an event.

use proto::v1;

use crate::operation::Operation;
use crate::service::{ControllerService, ServiceError, fields};

impl ControllerService {
    pub(super) async fn seal_stream(
        &self,
        request: v1::SealStreamRequest,
    ) -> Result<v1::SealStreamResponse, ServiceError> {
        let stream = fields::stream(request.stream)?;
        self.carry_out(Operation::SealStream { stream }).await?;
        Ok(v1::SealStreamResponse {})
    }
}
