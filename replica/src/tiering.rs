//! Work between a group and its bucket, as values: whoever has the time performs them.
//!
//! The worker decides ([`crate::group`]), a thread with patience performs ([`StorageJob::perform`]),
//! and the worker commits what came of it. Nothing here counts before an entry says so: a job that
//! is lost, or whose leader is deposed meanwhile, leaves objects that nobody refers to, and those
//! are collected.
//!
//! - *round*: archives the oldest entries that are not archived;
//! - *checkpoint*: copies the saved state;
//! - *compaction*: copies small pieces next to one another;
//! - *collection*: deletes what nobody refers to any more;
//! - *sweep*: deletes what nobody ever referred to;
//! - *install*: brings a state back.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{GroupId, Incarnation, Term};
use futures::future::BoxFuture;
use lts::{Bucket, ClusterMarker, ObjectName, Owner, Refused};
use tokio::sync::watch;
use wal::Log;

use crate::archive::{ObjectError, RoundError};
use crate::kv::{Kv, KvError};
use crate::worker::panic_text;

mod checkpoint;
mod collect;
mod compact;
mod held;
mod put;
mod round;
mod settings;
mod sweep;
#[cfg(test)]
mod tests;

pub(crate) use checkpoint::{CheckpointUpload, of_led_key};
pub use collect::adopted_path;
pub(crate) use collect::{Collected, Collection};
pub(crate) use compact::Compaction;
pub use held::Held;
pub(crate) use held::Holding;
pub(crate) use round::RoundUpload;
pub use settings::TieringSettings;
pub(crate) use sweep::{Sweep, SweepPage, Swept};

use crate::archive::{CheckpointError, CommittedCheckpoint, CommittedRound};
use crate::resting::Compacted;

/// Long-term storage as the groups of a node use it. Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    pub bucket: Arc<dyn Bucket>,
    pub waiter: Arc<dyn Waiter>,
    pub settings: TieringSettings,
    /// Whose the bucket is: what counts by being there is put, and anything is deleted, only after
    /// a look. `None` for a bucket without a marker, where nothing is put but in tests.
    pub owner: Option<Arc<Owner>>,
    /// Whether the bucket was looked at and is this cluster's. Nothing is put before.
    pub ready: watch::Receiver<bool>,
    /// Memory of the jobs under way.
    pub held: Held,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

/// Lets a thread that has the time wait for a future that runs elsewhere.
///
/// Laws: `wait` comes back when the future has completed, or soon after `stop`, having dropped it.
pub trait Waiter: Send + Sync {
    fn wait(&self, future: BoxFuture<'static, ()>);

    /// Nobody waits any more.
    fn stop(&self) {}
}

/// Polls on the spot: for buckets that are always ready, in tests and simulations.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inline;

impl Waiter for Inline {
    fn wait(&self, mut future: BoxFuture<'static, ()>) {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        while future.as_mut().poll(&mut context).is_pending() {
            std::thread::yield_now();
        }
    }
}

impl Storage {
    /// Runs a future where the bucket's connections live and waits for it.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StorageFailure> {
        let (done, mut result) = tokio::sync::oneshot::channel();
        self.waiter.wait(Box::pin(async move {
            // Whoever waits is this function.
            let _ = done.send(future.await);
        }));
        result.try_recv().map_err(|_| StorageFailure::Stopping)
    }

    /// Asks the bucket something, where its connections live, and waits for the answer.
    pub fn ask<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, lts::Error>> + Send + 'static,
    ) -> Result<T, StorageFailure> {
        Ok(self.run(future)??)
    }

    /// The marker of the cluster that the bucket belongs to.
    pub fn marker(&self) -> Option<ClusterMarker> {
        self.owner.as_ref().map(|owner| owner.marker())
    }

    fn check_ready(&self) -> Result<(), StorageFailure> {
        match *self.ready.borrow() {
            true => Ok(()),
            false => Err(StorageFailure::NotReady),
        }
    }
}

/// Where jobs find what they need.
#[derive(Debug, Clone)]
pub struct Workshop {
    pub storage: Storage,
    pub log: Log,
    pub kv: Arc<dyn Kv>,
}

/// Why a job did not do its work. It is tried again, after a while.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageFailure {
    #[error(transparent)]
    Bucket(#[from] lts::Error),
    #[error("read the log to archive it: {0}")]
    Log(Arc<wal::ReadError>),
    #[error("make a round: {0}")]
    Round(#[from] RoundError),
    #[error("make a checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("read the saved state: {0}")]
    Kv(#[from] KvError),
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error("{0}")]
    Damaged(String),
    #[error(transparent)]
    NotOurs(Refused),
    /// The group is quarantined: another attempt would come to the same.
    #[error("it panicked, which is a bug: {0}")]
    Panicked(String),
    #[error("the bucket was not looked at yet")]
    NotReady,
    #[error("the server is stopping")]
    Stopping,
}

impl From<Refused> for StorageFailure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Failed(error) => Self::Bucket(error),
            other => Self::NotOurs(other),
        }
    }
}

/// Names for the objects of one job: a run of sequences that is far longer than any job needs, so
/// that jobs side by side need not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameRange {
    pub(crate) incarnation: Incarnation,
    pub(crate) group: GroupId,
    pub(crate) term: Term,
    pub(crate) number: u64,
}

/// Sequences of one range.
const RANGE: u64 = 1 << 20;

impl NameRange {
    pub(crate) fn first(self) -> ObjectName {
        let Self { incarnation, group, term, number } = self;
        ObjectName { incarnation, group, term, sequence: number * RANGE }
    }

    /// The number of the range that a name is from.
    pub(crate) fn of(name: ObjectName) -> u64 {
        name.sequence / RANGE
    }
}

/// Which job it is, of all that its group ever began: what comes back late, from a term that was
/// lost, must not be taken for the one that is under way now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) term: u64,
    pub(crate) number: u64,
}

/// Whether what a group's jobs do is of no use any more. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub(crate) fn give_up(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_given_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A piece of work.
#[derive(Debug)]
pub struct StorageJob {
    pub group: GroupId,
    pub(crate) ticket: Ticket,
    pub(crate) work: Work,
    /// The group is quarantined: nothing of it changes any more.
    pub(crate) given_up: GivenUp,
}

pub(crate) enum Work {
    Round(RoundUpload),
    Checkpoint(CheckpointUpload),
    Compaction(Compaction),
    Collection(Collection),
    Sweep(Sweep),
    Install(Box<dyn Bring>),
}

/// Brings a group's state back from the bucket, for a machine that only the group knows.
pub(crate) trait Bring: Send {
    fn bring(self: Box<Self>, workshop: &Workshop) -> Result<Box<dyn Any + Send>, StorageFailure>;
}

/// Which of a group's jobs; one of each is under way at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobKind {
    Round,
    Checkpoint,
    Compaction,
    Collection,
    Sweep,
    Install,
}

impl JobKind {
    /// A word for messages and traces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Round => "round",
            Self::Checkpoint => "checkpoint",
            Self::Compaction => "compaction",
            Self::Collection => "collection",
            Self::Sweep => "sweep",
            Self::Install => "install",
        }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().as_str())
    }
}

impl Work {
    pub(crate) fn kind(&self) -> JobKind {
        match self {
            Self::Round(_) => JobKind::Round,
            Self::Checkpoint(_) => JobKind::Checkpoint,
            Self::Compaction(_) => JobKind::Compaction,
            Self::Collection(_) => JobKind::Collection,
            Self::Sweep(_) => JobKind::Sweep,
            Self::Install(_) => JobKind::Install,
        }
    }
}

impl Work {
    fn perform(self, workshop: &Workshop) -> Result<Done, StorageFailure> {
        workshop.storage.check_ready()?;
        match self {
            Self::Round(job) => job.perform(workshop),
            Self::Checkpoint(job) => job.perform(workshop).map(Done::Checkpoint),
            Self::Compaction(job) => job.perform(&workshop.storage).map(Done::Compaction),
            Self::Collection(job) => job.perform(&workshop.storage).map(Done::Collection),
            Self::Sweep(job) => job.perform(&workshop.storage).map(Done::Sweep),
            Self::Install(job) => job.bring(workshop).map(Done::Install),
        }
    }
}

/// What came of a job.
#[derive(Debug)]
pub struct StorageDone {
    pub group: GroupId,
    pub(crate) ticket: Ticket,
    pub kind: JobKind,
    pub(crate) result: Result<Done, StorageFailure>,
}

impl StorageDone {
    /// Why it failed, where it did.
    pub fn failure(&self) -> Option<&StorageFailure> {
        self.result.as_ref().err()
    }
}

#[derive(Debug)]
pub(crate) enum Done {
    Round {
        round: CommittedRound,
        log_bytes: u64,
    },
    Checkpoint(CommittedCheckpoint),
    Compaction(Compacted),
    Collection(Collected),
    Sweep(Swept),
    /// What [`Bring`] brought.
    Install(Box<dyn Any + Send>),
}

impl StorageJob {
    pub(crate) fn new(group: GroupId, ticket: Ticket, work: Work) -> Self {
        Self { group, ticket, work, given_up: GivenUp::default() }
    }

    pub fn kind(&self) -> JobKind {
        self.work.kind()
    }

    /// Does the work; blocks on log, state and bucket. A panic in it is what came of it.
    pub fn perform(self, workshop: &Workshop) -> StorageDone {
        let (group, ticket, kind) = (self.group, self.ticket, self.work.kind());
        let result = match self.given_up.is_given_up() {
            true => Err(StorageFailure::Stopping),
            false => catch_unwind(AssertUnwindSafe(|| self.work.perform(workshop)))
                .unwrap_or_else(|panic| Err(StorageFailure::Panicked(panic_text(&*panic)))),
        };
        StorageDone { group, ticket, kind, result }
    }
}
