//! Truncate a stream to a cut and wait until the bytes before it are dropped. The cut is checked
//! before the operation is proposed: its segments' lengths only their stores know.

use proto::v1;

use crate::jobs::runner::WaitError;
use crate::operation::Operation;
use crate::service::check_cut::{Asked, Checked};
use crate::service::{ControllerService, ServiceError, fields};

impl ControllerService {
    pub(super) async fn truncate_stream(
        &self,
        request: v1::TruncateStreamRequest,
    ) -> Result<v1::TruncateStreamResponse, ServiceError> {
        let asked = Asked {
            stream: fields::stream(request.stream)?,
            cut: fields::cut(request.cut)?,
            covers: fields::coverage(request.covers)?,
            truncates: true,
        };
        let Checked { stream, cut, .. } = self.checked(&asked).await?;
        match self.carry_out(Operation::TruncateStream { stream, cut }).await {
            Err(ServiceError::Wait(WaitError::Failed { problem, .. })) => {
                Err(ServiceError::Truncation(problem))
            }
            answered => answered.map(|()| v1::TruncateStreamResponse {}),
        }
    }
}
