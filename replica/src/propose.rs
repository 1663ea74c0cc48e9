//! Proposals: what goes into a group, and how its outcome comes back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

/// One operation to be replicated.
pub struct Proposal<O> {
    /// What apply decodes: small, already checked by the proposer.
    pub operation: Bytes,
    /// Bytes that apply never looks at. Large ones travel to the log without a copy.
    pub payload: Bytes,
    /// Proposals that carry a key may be moved next to others of the same key within an entry;
    /// the order of one key is kept, and nothing moves across a proposal without a key.
    pub order_key: Option<u128>,
    /// Control operations (truncate, delete, …) that are let through when the log is full: they
    /// are what frees it.
    pub exempt: bool,
    pub reply: Reply<O>,
}

/// Where the outcome of a proposal goes.
pub enum Reply<O> {
    None,
    Once(oneshot::Sender<Result<O, ProposeError>>),
    Sink { sink: Arc<dyn OutcomeSink<O>>, tag: u64 },
}

/// Takes outcomes on the worker thread.
///
/// Laws for implementers: never block, never propose from inside. The worker calls `deliver` once
/// per proposal taken, in the order of the log for those that succeed, and then `round_done` once
/// per sink and round, so that one message can carry a round's acknowledgements.
pub trait OutcomeSink<O>: Send + Sync {
    fn deliver(&self, tag: u64, outcome: Result<O, ProposeError>);
    fn round_done(&self);
}

/// Why a proposal was not taken, or has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not stored. Send it to the leader.
    #[error("this replica is not the group's leader; ask {}", leader_text(*.hint))]
    NotLeader { hint: Option<u64> },
    /// Not stored. The group's queue is full or its disk is slow.
    #[error("the group's queue is full; try again in {} ms", .retry_after.as_millis())]
    Full { retry_after: Duration },
    /// Not stored, not answered. The group did not come to it: its disk has no space or does not
    /// answer, or members that it needs are away.
    #[error(
        "the group did not move on for {} s; `braid status` shows what it waits for, try again when \
         that is mended", .waited.as_secs()
    )]
    TimedOut { waited: Duration },
    /// Not stored. The write-ahead log has reached its budget, or the group its share of it.
    #[error(
        "the log's budget, or this container's share of it, is used up: `braid status` shows what \
         keeps long-term storage from taking it over; or free space with `braid stream truncate` or \
         `braid stream delete`, or raise `log.budget`"
    )]
    LogFull,
    /// Not stored.
    #[error("the operation has {bytes} bytes, the most is {max}; send it in parts")]
    TooLarge { bytes: usize, max: usize },
    /// Not stored. The process is stopping.
    #[error("the server is stopping; connect again")]
    Stopping,
    /// Not stored now. The group stopped and needs a person.
    #[error("the group is quarantined until the server is restarted: {0}")]
    Quarantined(String),
    /// Stored or not: its leader lost the term, or the process stopped, before it was decided.
    #[error("the outcome is not known: the leader changed before the operation was decided")]
    Unknown,
}

fn leader_text(hint: Option<u64>) -> String {
    hint.map_or_else(|| "again in a moment".to_owned(), |peer| format!("peer {peer}"))
}

/// A proposal that was not taken, given back with the reason.
pub struct Refused<O> {
    pub proposal: Proposal<O>,
    pub error: ProposeError,
}

impl<O> Proposal<O> {
    /// A proposal without ordering key and without a wish for its outcome.
    pub fn new(operation: impl Into<Bytes>, payload: impl Into<Bytes>) -> Self {
        Self {
            operation: operation.into(),
            payload: payload.into(),
            order_key: None,
            exempt: false,
            reply: Reply::None,
        }
    }

    pub fn reply(mut self, reply: Reply<O>) -> Self {
        self.reply = reply;
        self
    }

    pub fn exempt(mut self) -> Self {
        self.exempt = true;
        self
    }

    /// What the proposal weighs in its group's queue.
    pub fn bytes(&self) -> usize {
        self.operation.len() + self.payload.len() + crate::envelope::OPERATION_BYTES
    }
}

impl<O> fmt::Debug for Proposal<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proposal")
            .field("operation", &self.operation.len())
            .field("payload", &self.payload.len())
            .field("order_key", &self.order_key)
            .field("exempt", &self.exempt)
            .field("reply", &self.reply)
            .finish()
    }
}

impl<O> fmt::Debug for Reply<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::None => f.write_str("None"),
            Reply::Once(_) => f.write_str("Once"),
            Reply::Sink { tag, .. } => write!(f, "Sink({tag})"),
        }
    }
}

impl<O> fmt::Debug for Refused<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("proposal", &self.proposal)
            .field("error", &self.error)
            .finish()
    }
}
