//! The log's handle.

use std::io;
use std::sync::Arc;

use common::{Clock, GroupId, LogIndex, MonotonicTime, Rng, Term};

use crate::{
    AppendError, Batch, BlockSeq, Disk, GroupState, LogEntry, LogSettings, LogUsage, OpenError,
    ReadError, Recovered, Stall, Stopped,
};

/// The shared log of one directory. Cloning shares it. Every method is short but
/// [`Log::open`], [`Log::read`] and [`Log::prepare_files`], which do I/O without holding it up.
#[derive(Debug, Clone)]
pub struct Log {}

/// Whether [`Log::prepare_files`] has more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// Call again soon.
    More,
    /// Nothing to do until the log has rolled or truncated.
    Idle,
}

/// One block on its way to the disk. Perform it, then hand it to [`Log::finish_write`].
#[derive(Debug)]
pub struct BlockWrite {}

impl BlockWrite {
    /// Bytes to be written.
    #[expect(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> usize {
        unimplemented!("next landing")
    }

    pub fn seq(&self) -> BlockSeq {
        unimplemented!("next landing")
    }

    /// The only I/O of the append path. An error is final for the log.
    pub fn perform(&mut self) -> io::Result<()> {
        unimplemented!("next landing")
    }
}

impl Log {
    /// Recovers the log of a directory, or makes a new one, and locks it.
    pub fn open(
        _disk: Arc<dyn Disk>,
        _settings: LogSettings,
        _clock: Arc<dyn Clock>,
        _rng: Rng,
    ) -> Result<(Log, Recovered), OpenError> {
        unimplemented!("next landing")
    }

    /// Whether the leader may propose `bytes` more for `group`: asked before, so that `append`
    /// of what was proposed does not meet a full log.
    pub fn admit(&self, _group: GroupId, _bytes: usize) -> Result<(), AppendError> {
        unimplemented!("next landing")
    }

    /// Copies a batch into the open block and returns the block that must be durable for all of
    /// it to be.
    pub fn append(&self, _batch: &Batch<'_>) -> Result<BlockSeq, AppendError> {
        unimplemented!("next landing")
    }

    /// Notes a group's newest commit index; it rides in the next block that touches the group.
    pub fn note_commit(&self, _group: GroupId, _commit: LogIndex) {
        unimplemented!("next landing")
    }

    /// Whether the open block can take another entry of the target size now.
    pub fn room(&self) -> bool {
        unimplemented!("next landing")
    }

    /// Closes the open block, or makes a sealing block when one is due; `None` while a write is
    /// outstanding, when there is nothing to write, and for ever once the log has stopped.
    pub fn begin_write(&self) -> Option<BlockWrite> {
        unimplemented!("next landing")
    }

    /// Like [`Log::begin_write`], with the sealing block due at once: for a clean stop.
    pub fn begin_seal(&self) -> Option<BlockWrite> {
        unimplemented!("next landing")
    }

    /// When [`Log::begin_write`] will have a sealing block to write, if nothing else comes.
    pub fn seal_due(&self) -> Option<MonotonicTime> {
        unimplemented!("next landing")
    }

    /// Takes a performed write back: everything up to the returned block is durable. An error is
    /// final.
    pub fn finish_write(
        &self,
        _write: BlockWrite,
        _result: io::Result<()>,
    ) -> Result<BlockSeq, Stopped> {
        unimplemented!("next landing")
    }

    /// The newest durable block.
    pub fn durable(&self) -> BlockSeq {
        unimplemented!("next landing")
    }

    /// How long the outstanding write has been under way.
    pub fn stall(&self) -> Stall {
        unimplemented!("next landing")
    }

    /// Does one step of making files ahead and recycling free ones; at most a few megabytes of
    /// I/O. Not on the worker's thread.
    pub fn prepare_files(&self) -> Result<Prepared, Stopped> {
        unimplemented!("next landing")
    }

    /// Reads entries `low..high`, at least one and then as many as fit `max_bytes` of context and
    /// data. Checks every byte.
    pub fn read(
        &self,
        _group: GroupId,
        _low: LogIndex,
        _high: LogIndex,
        _max_bytes: usize,
    ) -> Result<Vec<LogEntry>, ReadError> {
        unimplemented!("next landing")
    }

    /// The term of an entry, or of the truncated one just before the first.
    pub fn term(&self, _group: GroupId, _index: LogIndex) -> Result<Term, ReadError> {
        unimplemented!("next landing")
    }

    /// The first index that can be read, one above the last when there is none; 1 for a group the
    /// log does not know.
    pub fn first_index(&self, _group: GroupId) -> LogIndex {
        unimplemented!("next landing")
    }

    /// The last index, appended if not yet durable; 0 for a group the log does not know.
    pub fn last_index(&self, _group: GroupId) -> LogIndex {
        unimplemented!("next landing")
    }

    /// What the log knows of a group.
    pub fn group(&self, _group: GroupId) -> Option<GroupState> {
        unimplemented!("next landing")
    }

    pub fn usage(&self) -> LogUsage {
        unimplemented!("next landing")
    }

    /// Stops the log for ever, for example after a stall of 60 s.
    pub fn stop(&self, _reason: &str) {
        unimplemented!("next landing")
    }
}
