//! How the node is doing, for people: the process's own figures and the controller's counts.

use std::time::Duration;

use proto::v1;

use crate::service::{ControllerService, ServiceError};

/// How long the answer waits for the controller's counts: it is asked for most when something does
/// not work.
const COUNTS_WAIT: Duration = Duration::from_secs(1);

impl ControllerService {
    pub(super) async fn get_status(
        &self,
        _request: v1::GetStatusRequest,
    ) -> Result<v1::GetStatusResponse, ServiceError> {
        let counts = self.query(|machine| {
            let scopes = machine.scopes();
            let streams: usize = scopes.values().map(|scope| scope.streams.len()).sum();
            (scopes.len() as u64, streams as u64)
        });
        let counts = tokio::time::timeout(COUNTS_WAIT, counts).await.ok().and_then(Result::ok);
        Ok(v1::GetStatusResponse {
            scopes: counts.map(|(scopes, _)| scopes),
            streams: counts.map(|(_, streams)| streams),
            ..self.server.status()
        })
    }
}
