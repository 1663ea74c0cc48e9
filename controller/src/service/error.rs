//! Everything that can keep the service from answering, and how it looks on the wire.

use std::time::Duration;

use proto::error::{Reason, status, status_with};
use tonic::Status;

use crate::group::GroupError;
use crate::jobs::runner::WaitError;
use crate::outcome::{Accepted, CutProblem, Refusal};
use crate::stores::StoreError;

/// When to come back after a wait that was too short, or a step of an election.
const RETRY_AFTER: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ServiceError {
    /// The request itself is wrong. The text names field, value, limit and what to do.
    #[error("{0}")]
    Invalid(String),
    /// A list changed so that the page that the token stands for does not exist any more.
    #[error("the segments changed since the first page; begin again with an empty `page.token`")]
    PageGone,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The head has moved, but a store does not have the bytes that the cut says it has.
    #[error(
        "the head was moved, but a segment could not be truncated: {0}; truncate again once the store is repaired"
    )]
    Truncation(String),
    #[error("lengths of the cut's segments could not be checked: {0}")]
    Store(#[from] StoreError),
    #[error("the state machine gave an answer that does not fit the question: {0}; report this")]
    Bug(String),
}

impl ServiceError {
    pub(super) fn bug(answer: &Accepted) -> Self {
        Self::Bug(format!("{answer:?}"))
    }

    fn reason(&self) -> Reason {
        match self {
            Self::Invalid(_) => Reason::InvalidArgument,
            Self::PageGone => Reason::OutOfRange,
            Self::Refused(refusal) => refusal.reason(),
            Self::Group(error) | Self::Wait(WaitError::Group(error)) => reason_of_group(error),
            Self::Wait(WaitError::Late { .. }) => Reason::Unavailable,
            Self::Truncation(_) => Reason::OutOfRange,
            Self::Wait(WaitError::Failed { .. } | WaitError::Stopped { .. }) => Reason::Internal,
            // The records say that the segment is there, and its store says that it is not.
            Self::Store(StoreError::Refused(_)) => Reason::DataLost,
            Self::Store(StoreError::Stopped(_)) => Reason::Internal,
            Self::Store(_) => Reason::Unavailable,
            Self::Bug(_) => Reason::Internal,
        }
    }
}

fn reason_of_group(error: &GroupError) -> Reason {
    match error {
        GroupError::NotLeader { .. } => Reason::NotLeader,
        GroupError::Full { .. } | GroupError::LogFull => Reason::ResourceExhausted,
        GroupError::TooLarge { .. } => Reason::TooLarge,
        GroupError::Unknown | GroupError::Stopping | GroupError::TimedOut { .. } => {
            Reason::Unavailable
        }
        GroupError::Quarantined(_) => Reason::Internal,
    }
}

impl From<ServiceError> for Status {
    fn from(error: ServiceError) -> Self {
        let (reason, message) = (error.reason(), error.to_string());
        match &error {
            ServiceError::Bug(_) => tracing::error!(%error, "controller answers with a bug"),
            ServiceError::Refused(Refusal::WriterFenced { current, .. }) => {
                return status_with(
                    reason,
                    message,
                    [("current_epoch", current.to_string())],
                    None,
                );
            }
            ServiceError::Refused(Refusal::CutDoesNotFit {
                problem: CutProblem::BeyondLength { segment, length, .. },
                ..
            }) => {
                let facts = [("segment", segment.local_name()), ("length", length.to_string())];
                return status_with(reason, message, facts, None);
            }
            // A client that sees the step move on goes on waiting.
            ServiceError::Wait(WaitError::Late { job, step, .. }) => {
                let facts = [("job", job.to_string()), ("step", step.to_string())];
                return status_with(reason, message, facts, Some(RETRY_AFTER));
            }
            ServiceError::Refused(Refusal::Busy { job, .. }) => {
                let facts = [("job", job.to_string())];
                return status_with(reason, message, facts, Some(RETRY_AFTER));
            }
            ServiceError::Group(GroupError::Full { retry_after }) => {
                return status_with(reason, message, [], Some(*retry_after));
            }
            _ => {}
        }
        match reason {
            Reason::Unavailable | Reason::NotLeader | Reason::ResourceExhausted => {
                status_with(reason, message, [], Some(RETRY_AFTER))
            }
            _ => status(reason, message),
        }
    }
}
