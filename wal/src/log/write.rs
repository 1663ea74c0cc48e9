//! Writing: blocks are issued one at a time, each vouching for the one before it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::{GroupId, MonotonicTime};

use super::files::file_of;
use super::{Log, Outstanding, State};
use crate::block::{BlockWrite, commits_bytes};
use crate::format::{BLOCK_HEADER_BYTES, RecordHeader, RecordKind};
use crate::{AlignedBuf, BlockSeq, LogSettings, Stall, Stopped};

/// Buffers kept for reuse: of the open, a closed and the issued block.
const BUFFERS_KEPT: usize = 3;

const SHED_AFTER: Duration = Duration::from_secs(2);
const UNREADY_AFTER: Duration = Duration::from_secs(10);
const STOP_AFTER: Duration = Duration::from_secs(60);

impl Log {
    /// Closes the open block, or makes a sealing block when one is due; `None` while a write is
    /// outstanding, when there is nothing to write, and for ever once the log has stopped.
    pub fn begin_write(&self) -> Option<BlockWrite> {
        let now = self.shared.clock.monotonic();
        let due = |state: &State, log: &Log| log.seal_at(state).is_some_and(|at| at <= now);
        self.begin(due)
    }

    /// Like [`Log::begin_write`], with the sealing block due at once: for a clean stop.
    pub fn begin_seal(&self) -> Option<BlockWrite> {
        self.begin(|state, log| log.seal_at(state).is_some())
    }

    /// When [`Log::begin_write`] will have a sealing block to write, if nothing else comes.
    pub fn seal_due(&self) -> Option<MonotonicTime> {
        self.seal_at(&self.state())
    }

    fn seal_at(&self, state: &State) -> Option<MonotonicTime> {
        let idle = state.open.is_none() && state.closed.is_empty() && state.outstanding.is_none();
        (idle && !state.sealed && state.stopped.is_none())
            .then(|| state.last_block_at.plus(self.shared.settings.seal_after))
    }

    fn begin(&self, seal: impl FnOnce(&State, &Log) -> bool) -> Option<BlockWrite> {
        let mut state = self.state();
        if state.stopped.is_some() || state.outstanding.is_some() {
            return None;
        }
        if state.closed.is_empty() {
            if state.open.is_some() {
                state.close_open();
            } else if seal(&state, self) {
                state.close_seal(&self.shared.settings, self.shared.store_id);
            }
        }
        let closed = state.closed.pop_front()?;
        let write = closed.issue(self.shared.disk.clone(), state.durable);
        state.outstanding = Some(Outstanding {
            seq: write.seq,
            file: write.file.clone(),
            offset: write.offset,
            bytes: write.bytes,
            buffer: write.buffer.clone(),
            since: self.shared.clock.monotonic(),
        });
        Some(write)
    }

    /// Takes a performed write back: everything up to the returned block is durable. An error is
    /// final: what is on the disk is unknown until it is read again after a restart.
    pub fn finish_write(
        &self,
        write: BlockWrite,
        result: io::Result<()>,
    ) -> Result<BlockSeq, Stopped> {
        let mut state = self.state();
        let seq = write.seq;
        let issued = state.outstanding.take().map(|outstanding| outstanding.seq);
        assert_eq!(issued, Some(seq), "a block write is finished that was not issued");
        if let Err(error) = result {
            state.stop(&format!("block {} was not written: {error}", seq.0));
        }
        state.check_running()?;
        assert_eq!(seq, state.durable.next(), "blocks become durable in order");
        state.durable = seq;
        state.last_block_at = self.shared.clock.monotonic();
        state.recycle_buffer(write.buffer, &self.shared.settings);
        state.settle(&self.shared.settings);
        Ok(seq)
    }

    /// How long the outstanding write has been under way. A stall is not a failure.
    pub fn stall(&self) -> Stall {
        let since = self.state().outstanding.as_ref().map(|outstanding| outstanding.since);
        let age = since.map_or(Duration::ZERO, |since| self.shared.clock.monotonic().since(since));
        match age {
            age if age >= STOP_AFTER => Stall::Stop,
            age if age >= UNREADY_AFTER => Stall::Unready,
            age if age >= SHED_AFTER => Stall::Shed,
            _ => Stall::None,
        }
    }
}

impl State {
    /// Closes a block that holds nothing but each group's last record sequence.
    fn close_seal(&mut self, settings: &LogSettings, store_id: u128) {
        let room = self.active().size.saturating_sub(self.tail) as usize;
        let rolls = room < BLOCK_HEADER_BYTES + commits_bytes(self.groups.len());
        let previous = self.previous();
        if rolls {
            if self.available() == 0 {
                // No file to be had: the last block stays unproven until there is one.
                self.sealed = true;
                return;
            }
            self.roll(settings, store_id);
        }
        self.open_block(settings);
        if rolls {
            self.put_table(previous, |_| ());
        }
        let mut sequences = Vec::with_capacity(16 * self.groups.len());
        for (group, known) in &self.groups {
            sequences.extend_from_slice(&group.0.to_le_bytes());
            sequences.extend_from_slice(&known.sequence.to_le_bytes());
        }
        if let Some(block) = &mut self.open {
            block.push(RecordHeader::new(RecordKind::Seal, GroupId(0), 0), [&[], &sequences]);
            block.mark_sealing();
        }
        self.close_open();
        self.sealed = true;
    }

    fn recycle_buffer(&mut self, buffer: Arc<AlignedBuf>, settings: &LogSettings) {
        let usual = settings.block_size.as_usize().next_multiple_of(crate::SECTOR_BYTES);
        if let Ok(buffer) = Arc::try_unwrap(buffer)
            && buffer.len() == usual
            && self.buffers.len() < BUFFERS_KEPT
        {
            self.buffers.push(buffer);
        }
    }

    /// Lets entries leave their files where the block that says so is durable.
    fn settle(&mut self, settings: &LogSettings) {
        while let Some((seq, file, count)) = self.leaving.front().copied() {
            if seq > self.durable {
                break;
            }
            self.leaving.pop_front();
            let held = file_of(&self.files, file);
            held.expect("a file with entries is not released").drop_live(count);
        }
        self.release(settings);
    }
}
