//! The vocabulary of Braid: names, ids, key ranges, stream cuts, limits, and the seams for time,
//! randomness and tasks.
//!
//! Every other crate may import this one; it imports none of them. Only what at least two crates
//! use belongs here.

pub mod clock;
pub mod cut;
pub mod file_system;
pub mod ids;
pub mod key_range;
pub mod limits;
pub mod names;
pub mod period;
pub mod planted;
pub mod pool;
pub mod rng;
pub mod routing;
pub mod size;
pub mod tasks;
pub mod threads;

pub use clock::{Clock, MonotonicTime, SystemClock, WallTime};
pub use cut::{CutCoverage, StreamCut};
pub use ids::{
    Attempt, ContainerId, EventNumber, Fence, GroupId, Incarnation, LogIndex, Offset, SegmentId,
    SegmentNumber, StreamEpoch, StreamId, Term, WriterEpoch, WriterId, WriterSession,
};
pub use key_range::{KeyPosition, KeyRange};
pub use names::{NameError, ScopeName, ScopedStream, StreamName, WriterName};
pub use period::Period;
pub use pool::ThreadPool;
pub use rng::Rng;
pub use size::ByteSize;
pub use tasks::Tasks;
pub use threads::Threads;
