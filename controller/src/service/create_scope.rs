//! Create a scope. One that exists is no error: the answer says so.

use proto::v1;

use crate::operation::Operation;
use crate::outcome::Accepted;
use crate::service::{ControllerService, ServiceError, fields};

impl ControllerService {
    pub(super) async fn create_scope(
        &self,
        request: v1::CreateScopeRequest,
    ) -> Result<v1::CreateScopeResponse, ServiceError> {
        let scope = fields::scope(&request.scope)?;
        let wanted = scope.clone();
        if self.query(move |machine| machine.scopes().contains_key(&wanted)).await? {
            return Ok(v1::CreateScopeResponse { created: false });
        }
        match self.submit(Operation::CreateScope { scope }).await? {
            Accepted::ScopeCreated { created } => Ok(v1::CreateScopeResponse { created }),
            other => Err(ServiceError::bug(&other)),
        }
    }
}
