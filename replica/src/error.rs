//! Why a node does not start, and why it stops.

use common::{GroupId, LogIndex, Term};

use crate::kv::KvError;
use crate::machine::RestoreError;
use crate::restore::RestoreFailure;

/// Why a group, or with it the whole node, cannot start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Log(#[from] wal::OpenError),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("start thread `{thread}`")]
    Thread {
        thread: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the saved state of group {group} is missing, but its log begins at entry {first}: \
         earlier entries were dropped because they were saved; put the state directory back \
         beside the log, or restore both from a backup"
    )]
    StateMissing { group: GroupId, first: LogIndex },
    #[error(
        "the saved state of group {group} ends at entry {saved}, but its log begins at {first}: \
         the state directory is older than the log; put back the one that belongs to this log, or \
         restore both from a backup"
    )]
    StateBehind { group: GroupId, saved: LogIndex, first: LogIndex },
    #[error(
        "the saved state of group {group} includes entry {saved}, but its log ends at {last}: \
         acknowledged data is missing from the log; put back the log that belongs to this state, \
         or restore both from a backup"
    )]
    LogBehind { group: GroupId, saved: LogIndex, last: LogIndex },
    #[error(
        "the saved state of group {group} at entry {index} is of term {saved}, its log has term \
         {logged} there: they do not belong together; restore both from one backup"
    )]
    Mismatch { group: GroupId, index: LogIndex, saved: Term, logged: Term },
    #[error(
        "the log of group {group} ends at entry {last}, but {commit} were committed: acknowledged \
         data is missing; restore log and state from a backup"
    )]
    CommitMissing { group: GroupId, commit: LogIndex, last: LogIndex },
    #[error("restore the state of group {group}")]
    Restore {
        group: GroupId,
        #[source]
        source: RestoreError,
    },
    #[error("bring the state of group {group} back from long-term storage")]
    Archive {
        group: GroupId,
        #[source]
        source: RestoreFailure,
    },
    #[error("read the log of group {group}")]
    Read {
        group: GroupId,
        #[source]
        source: wal::ReadError,
    },
    #[error("write the first record of group {group} to the log")]
    Append {
        group: GroupId,
        #[source]
        source: wal::AppendError,
    },
    #[error("the membership record of group {0} cannot be read; run a newer build")]
    Membership(GroupId),
    #[error("group {group} cannot run on Raft: {detail}")]
    Raft { group: GroupId, detail: String },
}

impl StartError {
    /// Whether the group alone can be wrong, so that it is quarantined and the others start.
    ///
    /// It is so where its own bytes do not read, or do not add up, in a log and a state store that
    /// are whole: an entry that rots, a state that its machine does not take, rounds that replay to
    /// something else.
    ///
    /// It is not where log and state store do not fit together ([`StartError::LogBehind`],
    /// [`StartError::Mismatch`], [`StartError::StateBehind`], [`StartError::StateMissing`]).
    /// There is one of each for all groups, and one group is only who noticed:
    ///
    /// - A log that ends before what one group has saved lacks the end of *every* group. Those that
    ///   had not saved so far would start, give the lost indexes to new entries, and nobody would
    ///   ever know that acknowledged events are gone.
    /// - Of a state of another life of the node another group may fit by chance: terms are small
    ///   numbers.
    /// - The remedy is to put a folder back. Groups that ran meanwhile drop what that folder does
    ///   not have from the log, so that it would fit no more.
    ///
    /// Nor where a later start may well succeed: the bucket does not answer, the disk is full.
    pub(crate) fn is_of_one_group(&self) -> bool {
        match self {
            Self::CommitMissing { .. }
            | Self::Restore { .. }
            | Self::Read { .. }
            | Self::Membership(_)
            | Self::Raft { .. } => true,
            Self::Archive { source, .. } => matches!(source, RestoreFailure::Replay(_)),
            Self::Log(_)
            | Self::Kv(_)
            | Self::Thread { .. }
            | Self::StateMissing { .. }
            | Self::StateBehind { .. }
            | Self::LogBehind { .. }
            | Self::Mismatch { .. }
            | Self::Append { .. } => false,
        }
    }
}

/// The node cannot go on; only a restart of the process recovers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostFailure {
    #[error(transparent)]
    Log(#[from] wal::Stopped),
    #[error("{0}; the local checkpoint cannot be trusted any more, restart the process")]
    Kv(#[from] KvError),
    #[error("thread `{0}` panicked; this is a bug, restart the process")]
    Thread(&'static str),
}

/// What ends a group's step early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// This group stops until the process is restarted; the others go on.
    Quarantine(String),
    /// The process stops.
    Host(HostFailure),
}

impl From<raft::Error> for Failure {
    fn from(error: raft::Error) -> Self {
        Failure::Quarantine(format!("raft refused a step: {error}"))
    }
}
