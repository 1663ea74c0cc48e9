//! Long-term storage is looked after when its time comes, or when someone asks.

use proto::v1;

use crate::service::{ControllerService, ServiceError};

impl ControllerService {
    #[expect(clippy::unused_async, reason = "as all verbs of the service")]
    pub(super) async fn look_after_storage(
        &self,
        _request: v1::LookAfterStorageRequest,
    ) -> Result<v1::LookAfterStorageResponse, ServiceError> {
        Ok(v1::LookAfterStorageResponse { groups: self.server.look_after_storage() })
    }
}
