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
        let (create, source_fingerprint) = (request.create, request.source_fingerprint);
        let operation = Operation::RegisterWriter { stream, writer, create, source_fingerprint };
        match self.submit(operation).await? {
            Accepted::WriterRegistered { stream, writer, epoch, created, source_fingerprint } => {
                Ok(v1::RegisterWriterResponse {
                    writer: writer_bytes(writer),
                    epoch: epoch.0,
                    stream_id: stream.0,
                    created,
                    source_fingerprint,
                    may_be_stored: !created,
                })
            }
            other => Err(ServiceError::bug(&other)),
        }
    }
}
