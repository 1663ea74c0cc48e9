//! Register a named writer: its id, and an epoch that fences its earlier processes.

use proto::convert::writer_bytes;
use proto::v1;

use crate::operation::Operation;
use crate::outcome::Accepted;
use crate::service::{ControllerService, ServiceError, fields};

impl ControllerService {
    pub(super) async fn register_writer(
        &self,
        request: v1::RegisterWriterRequest,
    ) -> Result<v1::RegisterWriterResponse, ServiceError> {
        let stream = fields::stream(request.stream)?;
        let writer = fields::name("writer", &request.writer)?;
        let (create, mode) = (request.create, fields::writer_mode(request.mode)?);
        let operation = Operation::RegisterWriter { stream, writer, create, mode };
        match self.submit(operation).await? {
            Accepted::WriterRegistered { stream, writer, epoch, created, may_be_stored } => {
                Ok(v1::RegisterWriterResponse {
                    writer: writer_bytes(writer),
                    epoch: epoch.0,
                    stream_id: stream.0,
                    created,
                    may_be_stored,
                })
            }
            other => Err(ServiceError::bug(&other)),
        }
    }
}
