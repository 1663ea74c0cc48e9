//! The controller's Raft group as the service and the jobs see it: propose an operation, look at
//! the state. The product reaches it through `replica`'s handle; tests apply in memory.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use replica::handle::Leadership;
use replica::{GroupHandle, Proposal, ProposeError};
use tokio::sync::watch;

use crate::machine::ControllerMachine;
use crate::operation::Operation;
use crate::outcome::Outcome;

/// Why the group did not answer. What it says about the operation stands at each variant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Not proposed.
    #[error("this node does not lead the controller group; ask {}", leader_text(*.hint))]
    NotLeader { hint: Option<u64> },
    /// Not proposed.
    #[error("the controller has too much to do; try again in {retry_after:?}")]
    Full { retry_after: Duration },
    /// Not proposed.
    #[error("the write-ahead log is full; free space (`braid stream truncate`) and try again")]
    LogFull,
    /// Not proposed.
    #[error("the request takes {bytes} bytes of an entry, at most {max} fit; send it in parts")]
    TooLarge { bytes: usize, max: usize },
    /// Not proposed, not answered.
    #[error(
        "the controller did not come to it within {} s; `braid status` shows what its group waits \
         for", .waited.as_secs()
    )]
    TimedOut { waited: Duration },
    /// Perhaps stored, perhaps not.
    #[error("the controller lost its leadership meanwhile; ask for the state before trying again")]
    Unknown,
    /// Not proposed.
    #[error("the node is stopping; try again shortly")]
    Stopping,
    /// Not proposed; a person must look.
    #[error("the controller group is out of order on this node: {0}")]
    Quarantined(String),
}

fn leader_text(hint: Option<u64>) -> String {
    hint.map_or_else(|| "again in a moment".to_owned(), |peer| format!("peer {peer}"))
}

/// A look at the state, run where it lives.
pub type View = Box<dyn FnOnce(&ControllerMachine) + Send>;

/// Laws: an outcome of `submit` is durable; `view` runs on a state that holds every operation
/// whose outcome was known to anyone when `view` was called (linearizable), or not at all.
pub trait Group: Send + Sync + 'static {
    fn submit(&self, operation: Operation) -> BoxFuture<'_, Result<Outcome, GroupError>>;

    fn view(&self, look: View) -> BoxFuture<'_, Result<(), GroupError>>;

    /// Who leads, as it changes.
    fn leadership(&self) -> watch::Receiver<Leadership>;
}

/// The controller's group on this node.
#[derive(Debug, Clone)]
pub struct ControllerGroup(pub GroupHandle<ControllerMachine>);

impl Group for ControllerGroup {
    fn submit(&self, operation: Operation) -> BoxFuture<'_, Result<Outcome, GroupError>> {
        let mut proposal = Proposal::new(operation.encode(), Bytes::new());
        // What ends something, or carries on what was begun, is let through a full log: it is what
        // frees it.
        proposal.exempt = match operation {
            Operation::CreateScope { .. }
            | Operation::CreateStream { .. }
            | Operation::RegisterWriter { .. }
            | Operation::DeleteWriter { .. } => false,
            Operation::Initialize { .. }
            | Operation::RegisterStore { .. }
            | Operation::DeleteScope { .. }
            | Operation::SealStream { .. }
            | Operation::TruncateStream { .. }
            | Operation::DeleteStream { .. }
            | Operation::DeleteStreamById { .. }
            | Operation::RaiseFence { .. }
            | Operation::Recover { .. }
            | Operation::AdoptStream { .. }
            | Operation::ReconcileStream { .. }
            | Operation::ReconcilePlaces { .. }
            | Operation::StepDone { .. }
            | Operation::StepFailed { .. } => true,
        };
        Box::pin(async move { Ok(self.0.submit_proposal(proposal).await?) })
    }

    fn view(&self, look: View) -> BoxFuture<'_, Result<(), GroupError>> {
        Box::pin(async move { Ok(self.0.query(look).await?) })
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership()
    }
}

impl From<ProposeError> for GroupError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { hint } => Self::NotLeader { hint },
            ProposeError::Full { retry_after } => Self::Full { retry_after },
            ProposeError::TimedOut { waited } => Self::TimedOut { waited },
            ProposeError::LogFull => Self::LogFull,
            ProposeError::TooLarge { bytes, max } => Self::TooLarge { bytes, max },
            ProposeError::Stopping => Self::Stopping,
            ProposeError::Quarantined(why) => Self::Quarantined(why),
            ProposeError::Unknown => Self::Unknown,
        }
    }
}

/// Asks the group's state a question.
pub async fn query<R: Send + 'static>(
    group: &dyn Group,
    question: impl FnOnce(&ControllerMachine) -> R + Send + 'static,
) -> Result<R, GroupError> {
    let answer = Arc::new(Mutex::new(None));
    let slot = answer.clone();
    group
        .view(Box::new(move |machine| {
            let found = question(machine);
            *slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(found);
        }))
        .await?;
    let taken = answer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    taken.ok_or(GroupError::Stopping)
}
