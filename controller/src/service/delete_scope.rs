//! Delete a scope that holds no stream any more.

use proto::v1;

use crate::operation::Operation;
use crate::service::{ControllerService, ServiceError, fields};

impl ControllerService {
    pub(super) async fn delete_scope(
        &self,
        request: v1::DeleteScopeRequest,
    ) -> Result<v1::DeleteScopeResponse, ServiceError> {
        let scope = fields::scope(&request.scope)?;
        self.submit(Operation::DeleteScope { scope }).await?;
        Ok(v1::DeleteScopeResponse {})
    }
}
