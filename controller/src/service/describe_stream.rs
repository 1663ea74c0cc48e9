//! Describe a stream: what the controller knows about it beyond its segments.

use proto::v1;

use crate::machine::ControllerMachine;
use crate::service::list_streams::summary;
use crate::service::{ControllerService, ServiceError, fields};

impl ControllerService {
    pub(super) async fn describe_stream(
        &self,
        request: v1::DescribeStreamRequest,
    ) -> Result<v1::DescribeStreamResponse, ServiceError> {
        let name = fields::stream(request.stream)?;
        let described = self.query(move |machine: &ControllerMachine| {
            machine.stream(&name).map(|stream| v1::DescribeStreamResponse {
                summary: Some(summary(stream)),
                config: Some(v1::StreamConfig { segments: stream.segments_configured }),
                epoch: stream.epoch().0,
                writers: stream.writers.len() as u64,
            })
        });
        Ok(described.await??)
    }
}
