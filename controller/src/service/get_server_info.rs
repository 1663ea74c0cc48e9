//! What a client wants to know of a server before anything else.

use proto::v1;

use crate::outcome::Refusal;
use crate::service::{ControllerService, ServiceError};

/// What the process knows about itself and the controller does not.
pub trait ServerStatus: Send + Sync + 'static {
    fn info(&self) -> ServerInfo;

    /// How the process is doing: all of the answer but what the controller counts.
    fn status(&self) -> v1::GetStatusResponse;

    /// Lets the groups look at once for work in long-term storage; how many do.
    fn look_after_storage(&self) -> u32;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    pub version: String,
    /// Whether it runs as `braid dev`.
    pub dev: bool,
    pub log_used_bytes: u64,
    pub log_budget_bytes: u64,
}

impl ControllerService {
    pub(super) async fn get_server_info(
        &self,
        _request: v1::GetServerInfoRequest,
    ) -> Result<v1::GetServerInfoResponse, ServiceError> {
        let cluster = self.query(|machine| machine.cluster().cloned()).await?;
        let cluster = cluster.ok_or(Refusal::NotInitialized)?;
        let info = self.server.info();
        Ok(v1::GetServerInfoResponse {
            version: info.version,
            cluster: format!("{:032x}", cluster.id),
            incarnation: cluster.incarnation.0.into(),
            protocol_min: proto::PROTOCOL_MIN,
            protocol_max: proto::PROTOCOL_MAX,
            log_used_bytes: info.log_used_bytes,
            log_budget_bytes: info.log_budget_bytes,
            dev: info.dev,
        })
    }
}
