//! Whether the node should be sent work.

use replica::HostFailure;
use tokio::sync::watch;
use wal::{Log, Stall};

use super::Groups;
use crate::http::Readiness;

/// Looks at the log and the groups when it is asked.
#[derive(Debug)]
pub(super) struct Watch {
    log: Log,
    groups: Groups,
    failure: watch::Receiver<Option<HostFailure>>,
}

impl Watch {
    pub(super) fn new(
        log: Log,
        groups: Groups,
        failure: watch::Receiver<Option<HostFailure>>,
    ) -> Self {
        Self { log, groups, failure }
    }
}

impl Readiness for Watch {
    fn reasons_not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(failure) = self.failure.borrow().as_ref() {
            reasons.push(format!("the node has failed: {failure}"));
        }
        if self.log.stall() >= Stall::Unready {
            reasons.push("the log's disk has not answered for more than 10 s".to_owned());
        }
        for (group, status) in self.groups.statuses() {
            match &status.quarantined {
                Some(reason) => reasons.push(format!("group {group} is quarantined: {reason}")),
                None if !status.serving => reasons.push(format!("group {group} has no leader")),
                None => {}
            }
        }
        reasons
    }
}
