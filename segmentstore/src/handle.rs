//! The seam to a container's Raft group, narrow enough for tests and simulations to stand in.
//!
//! Laws: `propose` never blocks; a proposal that was taken is answered exactly once; outcomes of
//! those that succeed come in the order of the log. `query` sees everything that was acknowledged
//! before the call.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{ContainerId, SegmentId};
use futures::future::BoxFuture;
use proto::v1::Reason;
use replica::{GroupHandle, Proposal, ProposeError, Refused, Reply};
use tokio::sync::oneshot;

use crate::container::{ContainerMachine, SegmentView};
use crate::outcome::Outcome;

/// A question to a container's state.
pub type Query = Box<dyn FnOnce(&ContainerMachine) + Send>;

/// A container of this store.
pub trait ContainerHandle: Send + Sync + 'static {
    fn propose(&self, proposal: Proposal<Outcome>) -> Result<(), Box<Refused<Outcome>>>;
    fn query(&self, ask: Query) -> BoxFuture<'static, Result<(), ProposeError>>;
}

impl ContainerHandle for GroupHandle<ContainerMachine> {
    fn propose(&self, proposal: Proposal<Outcome>) -> Result<(), Box<Refused<Outcome>>> {
        GroupHandle::propose(self, proposal)
    }

    fn query(&self, ask: Query) -> BoxFuture<'static, Result<(), ProposeError>> {
        let handle = self.clone();
        Box::pin(async move { handle.query(move |machine| ask(machine)).await })
    }
}

/// The containers of this store.
#[derive(Clone, Default)]
pub struct Containers {
    handles: Arc<BTreeMap<ContainerId, Arc<dyn ContainerHandle>>>,
}

/// Why a container could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    #[error("container {0} is not on this store; ask the controller where the segment is")]
    Unknown(ContainerId),
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

impl ContainerError {
    /// The stable reason on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            ContainerError::Unknown(_) => Reason::NotLeader,
            ContainerError::Propose(error) => propose_reason(error),
        }
    }
}

/// The stable reason on the wire for a proposal that has no outcome.
pub(crate) fn propose_reason(error: &ProposeError) -> Reason {
    match error {
        ProposeError::NotLeader { .. } => Reason::NotLeader,
        ProposeError::Full { .. } | ProposeError::LogFull => Reason::ResourceExhausted,
        ProposeError::TooLarge { .. } => Reason::TooLarge,
        ProposeError::Stopping | ProposeError::TimedOut { .. } => Reason::Unavailable,
        ProposeError::Quarantined(_) => Reason::Unavailable,
        ProposeError::Unknown => Reason::SessionBroken,
    }
}

impl Containers {
    pub fn new(handles: impl IntoIterator<Item = (ContainerId, Arc<dyn ContainerHandle>)>) -> Self {
        Self { handles: Arc::new(handles.into_iter().collect()) }
    }

    pub fn get(&self, container: ContainerId) -> Result<&Arc<dyn ContainerHandle>, ContainerError> {
        self.handles.get(&container).ok_or(ContainerError::Unknown(container))
    }

    pub fn ids(&self) -> impl Iterator<Item = ContainerId> + '_ {
        self.handles.keys().copied()
    }

    /// Asks a container's state; the answer includes everything acknowledged before the call.
    pub async fn ask<R: Send + 'static>(
        &self,
        container: ContainerId,
        ask: impl FnOnce(&ContainerMachine) -> R + Send + 'static,
    ) -> Result<R, ContainerError> {
        let (reply, answer) = oneshot::channel();
        let question: Query = Box::new(move |machine| {
            // Whoever asked may have gone away.
            let _ = reply.send(ask(machine));
        });
        self.get(container)?.query(question).await?;
        answer.await.map_err(|_| ContainerError::Propose(ProposeError::Stopping))
    }

    /// What is known of a segment now.
    pub async fn view(
        &self,
        container: ContainerId,
        segment: SegmentId,
    ) -> Result<Option<SegmentView>, ContainerError> {
        self.ask(container, move |machine| machine.view(segment)).await
    }

    /// Proposes and waits for the outcome.
    pub async fn submit(
        &self,
        container: ContainerId,
        proposal: Proposal<Outcome>,
    ) -> Result<Outcome, ContainerError> {
        let (reply, outcome) = oneshot::channel();
        let proposal = proposal.reply(Reply::Once(reply));
        self.get(container)?.propose(proposal).map_err(|refused| refused.error)?;
        Ok(outcome.await.unwrap_or(Err(ProposeError::Unknown))?)
    }
}

impl std::fmt::Debug for Containers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.handles.keys()).finish()
    }
}
