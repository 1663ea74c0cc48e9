//! Delete a writer's name and wait until no segment knows it any more and the name is free.

use common::WriterEpoch;
use proto::v1;

use crate::operation::Operation;
use crate::service::{ControllerService, ServiceError, fields};

impl ControllerService {
    pub(super) async fn delete_writer(
        &self,
        request: v1::DeleteWriterRequest,
    ) -> Result<v1::DeleteWriterResponse, ServiceError> {
        let stream = fields::stream(request.stream)?;
        let writer = fields::name("writer", &request.writer)?;
        let epoch = WriterEpoch(request.epoch);
        self.carry_out(Operation::DeleteWriter { stream, writer, epoch }).await?;
        Ok(v1::DeleteWriterResponse {})
    }
}
