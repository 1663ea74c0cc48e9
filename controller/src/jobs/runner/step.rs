//! A step under way: its commands side by side, then the entry that records it.

use std::sync::Arc;

use common::{ContainerId, Fence, Term};
use futures::future::BoxFuture;

use crate::group::{Group, GroupError, query};
use crate::jobs::Step;
use crate::operation::Operation;
use crate::outcome::Accepted;
use crate::stores::{JobId, SegmentStores, StoreAnswer, StoreError};

/// What ended, of a step that is under way.
pub(super) enum Ended {
    Command {
        job: JobId,
        at: usize,
        answer: Result<StoreAnswer, StoreError>,
    },
    Recorded {
        job: JobId,
        attempt: Attempt,
    },
    /// The highest fence that a container was found to obey.
    Asked {
        container: ContainerId,
        fence: Fence,
    },
    /// This controller's fence is above the one that a container obeys, or this is not known.
    Compared,
}

/// What came of trying to record something.
pub(super) enum Attempt {
    /// Recorded, by this attempt or another.
    Recorded,
    /// This node must not go on.
    Deposed,
    Again(String),
}

/// The commands of a step and the answers so far.
pub(super) struct Running {
    pub(super) step: Step,
    answers: Vec<Option<StoreAnswer>>,
    left: usize,
    /// Of those that were given instead of an answer, the one that decides what is done.
    error: Option<StoreError>,
}

impl Running {
    pub(super) fn new(step: Step) -> Self {
        let left = step.commands.len();
        Self { step, answers: vec![None; left], left, error: None }
    }

    pub(super) fn container(&self, at: usize) -> ContainerId {
        self.step.commands[at].container
    }

    pub(super) fn containers(&self) -> Vec<ContainerId> {
        self.step.containers()
    }

    /// `true`: that was the last one.
    pub(super) fn take(&mut self, at: usize, answer: Result<StoreAnswer, StoreError>) -> bool {
        self.left -= 1;
        match answer {
            Ok(answer) => self.answers[at] = Some(answer),
            Err(error) => {
                let graver = |known: &StoreError| gravity(known) < gravity(&error);
                if self.error.as_ref().is_none_or(graver) {
                    self.error = Some(error);
                }
            }
        }
        self.left == 0
    }

    /// What the answers, all of them, say is to be recorded.
    pub(super) fn outcome(&mut self) -> Result<Operation, StoreError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let answers: Vec<_> = self.answers.iter_mut().filter_map(Option::take).collect();
        self.step.done(&answers)
    }
}

/// A deposed controller stops, whatever else there is; what can be waited for is waited for before a
/// job is given up.
const fn gravity(error: &StoreError) -> u8 {
    match error {
        StoreError::Refused(_) => 0,
        StoreError::Unavailable(_) => 1,
        StoreError::Stopped(_) => 2,
        StoreError::StaleFence { .. } => 3,
    }
}

/// One command of a step.
pub(super) fn command(
    stores: &Arc<dyn SegmentStores>,
    step: &Step,
    at: usize,
) -> BoxFuture<'static, Ended> {
    let (stores, job, command) = (stores.clone(), step.job, step.commands[at].clone());
    Box::pin(async move {
        let answer = stores.perform(command).await;
        Ended::Command { job, at, answer }
    })
}

/// The entry that ends a step of `job`.
pub(super) fn record(
    group: &Arc<dyn Group>,
    job: JobId,
    operation: Operation,
) -> BoxFuture<'static, Ended> {
    let group = group.clone();
    Box::pin(async move {
        let gave_up = matches!(operation, Operation::StepFailed { .. });
        let attempt = match group.submit(operation).await {
            Ok(Ok(Accepted::StepPassed { .. })) if gave_up => {
                Attempt::Again("the segment store refuses, and this kind of job goes on".to_owned())
            }
            answered => attempt(answered),
        };
        Ended::Recorded { job, attempt }
    })
}

/// Goes above the fence that a container obeys, where it is above that of the leader of `term`.
///
/// Only a leader's proposal is accepted, and a higher fence of a later leader is known to containers
/// only after that one was elected: what is accepted here is above a history that is gone.
pub(super) fn go_above(
    group: &Arc<dyn Group>,
    term: Term,
    container: ContainerId,
    found: Fence,
) -> BoxFuture<'static, Ended> {
    let group = group.clone();
    Box::pin(async move {
        let own = query(&*group, move |machine| machine.cluster().map(|c| c.fence(term))).await;
        if let Ok(Some(own)) = own
            && found > own
            && let Ok(Ok(Accepted::FenceRaised { raised: true })) =
                group.submit(Operation::RaiseFence { above: found }).await
        {
            tracing::error!(
                %container, obeyed = %found, own = %own,
                "containers obey a controller that is ahead of this one: entries of the \
                 controller's log are lost (a repair that accepted a loss, or a data folder put \
                 back from an older copy). Its commands go on above them, and no id is given out \
                 again. Streams, truncations and writers of the lost entries are not known any \
                 more: compare `braid stream list` with what should be there; where something is \
                 missing and there is long-term storage, `braid recover` finds it again"
            );
        }
        Ended::Compared
    })
}

/// Asks containers which fence they obey and tells the highest. One that is
/// away tells with its first command.
pub(super) fn ask(
    stores: &Arc<dyn SegmentStores>,
    containers: Vec<ContainerId>,
) -> BoxFuture<'static, Ended> {
    let stores = stores.clone();
    Box::pin(async move {
        let asked = containers.into_iter().map(|container| {
            let stores = stores.clone();
            async move { Some((stores.fence(container).await.ok()?, container)) }
        });
        let fences = futures::future::join_all(asked).await;
        let (fence, container) = fences.into_iter().flatten().max().unwrap_or_default();
        Ended::Asked { container, fence }
    })
}

fn attempt(answered: Result<crate::outcome::Outcome, GroupError>) -> Attempt {
    match answered {
        Ok(Ok(_)) => Attempt::Recorded,
        Ok(Err(refusal)) => Attempt::Again(refusal.to_string()),
        Err(GroupError::NotLeader { .. } | GroupError::Stopping | GroupError::Quarantined(_)) => {
            Attempt::Deposed
        }
        Err(error) => Attempt::Again(error.to_string()),
    }
}
