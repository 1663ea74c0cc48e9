//! The seam to the data plane: what the controller asks of segment stores.
//!
//! Laws that every implementation keeps:
//! - **Idempotent.** A command that was carried out already is carried out again without effect and
//!   with the same answer: a segment that exists is created, a sealed one is sealed and tells the
//!   same length, one truncated further is truncated, a deleted or never known one is deleted.
//! - **Durable.** An answer means that the effect survives every crash of the store.
//! - **Fenced.** A container keeps the highest [`Fence`] it has seen and refuses commands under a
//!   lower one with [`StoreError::StaleFence`], without effect.
//! - **All or error.** An error says nothing about which segments of the command were reached; the
//!   controller repeats the whole command.
//! - **One container a command**, so that one command is one entry of that container.

use std::fmt;

use common::{
    ContainerId, Fence, Incarnation, KeyRange, Offset, ScopedStream, SegmentId, WriterEpoch,
    WriterId,
};
use futures::future::BoxFuture;
use proto::convert::SegmentPlace;

/// A workflow in the controller's replicated state: incarnation (16 bits) and counter (48 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct JobId(pub u64);

impl JobId {
    pub fn new(incarnation: Incarnation, counter: u64) -> Self {
        assert!(counter < 1 << 48, "job counter {counter} exceeds 48 bits");
        Self(u64::from(incarnation.0) << 48 | counter)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0 >> 48, self.0 & ((1 << 48) - 1))
    }
}

/// One container's part of one step of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreCommand {
    pub container: ContainerId,
    pub job: JobId,
    pub step: u32,
    /// Of the leader that sends it.
    pub fence: Fence,
    pub action: StoreAction,
}

/// What to do to segments of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAction {
    Create(Vec<NewSegment>),
    /// No more appends. The answer tells the lengths.
    Seal(Vec<SegmentSeal>),
    /// Drop the bytes below each offset.
    Truncate(Vec<(SegmentId, Offset)>),
    /// Drop the segments; tombstones stay.
    Delete(Vec<SegmentId>),
    /// Drop the tombstones of deleted segments.
    Forget(Vec<SegmentId>),
    /// Forget what segments and tombstones know of a writer, and refuse what comes of it with an
    /// epoch below this one.
    DeleteWriter {
        writer: WriterId,
        epoch: WriterEpoch,
        segments: Vec<SegmentId>,
    },
}

/// A segment as it is made; everything that a store must know to describe it after a disaster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSegment {
    pub segment: SegmentId,
    pub stream: ScopedStream,
    pub range: KeyRange,
    pub predecessors: Vec<SegmentId>,
}

/// A segment to seal, and what follows it: nothing when its stream is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSeal {
    pub segment: SegmentId,
    pub successors: Vec<SegmentPlace>,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreAnswer {
    /// For a seal: the final length of each of its segments, in the command's order.
    pub lengths: Vec<(SegmentId, Offset)>,
}

/// Where a segment ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentLength {
    pub segment: SegmentId,
    pub length: Offset,
}

/// Why a store did not do what it was told. The variant says what the controller does about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The same command again later may succeed: a leader election, a full queue, a full log. Whether
    /// it was carried out is not known.
    #[error("segment store is not able to do this now: {0}")]
    Unavailable(String),
    /// The container does nothing until a person has done something, and can then.
    #[error("segment store has stopped: {0}")]
    Stopped(String),
    /// This controller has been replaced; it must stop commanding.
    #[error("a controller with the newer fence {current} commands container {container} now")]
    StaleFence { container: ContainerId, current: Fence },
    /// The command cannot be carried out, now or later: segment and offset do not fit the data.
    #[error("segment store refuses for good: {0}")]
    Refused(String),
}

/// The data plane as the controller sees it. See the module's documentation for the laws.
pub trait SegmentStores: Send + Sync + 'static {
    /// Carries out one command.
    fn perform(&self, command: StoreCommand) -> BoxFuture<'_, Result<StoreAnswer, StoreError>>;

    /// The highest fence that a container has seen; linearizable.
    fn fence(&self, container: ContainerId) -> BoxFuture<'_, Result<Fence, StoreError>>;

    /// The lengths of at most 1 000 segments, linearizable, in the order of the question.
    /// A segment that its container does not know is [`StoreError::Refused`].
    fn lengths(
        &self,
        segments: Vec<(SegmentId, ContainerId)>,
    ) -> BoxFuture<'_, Result<Vec<SegmentLength>, StoreError>>;
}
