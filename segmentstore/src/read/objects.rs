//! A reader's way through objects of long-term storage.
//!
//! What it needs next is one block, in whose bytes it stays until they end. Each new block doubles
//! the window in which it reads ahead, up to the reader's share of the budget; half of the window
//! is filled up at once, so that remote stores are asked for large pieces.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use common::Offset;
use futures::future::join;
use lts::ObjectName;

use super::gather;
use super::object_cache::{Block, LoadError, ObjectCache, ObjectIndex, Seat};
use crate::extent::ObjectExtent;
use crate::limits::{
    OBJECT_INDICES_AHEAD_MAX, OBJECT_WINDOW_BYTES_MIN, READ_GATHER_BELOW, READ_GATHER_BYTES,
};

/// What one message is to hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// The first byte, which lies in the first extent.
    pub(super) offset: Offset,
    pub(super) bytes_max: usize,
    /// Where the reader will end, if that is known.
    pub(super) end: Option<Offset>,
    /// Read this and nothing beside it: what lies beside may be the reason for a failure.
    pub(super) alone: bool,
}

#[derive(Debug)]
pub(super) struct ObjectCursor {
    cache: ObjectCache,
    /// Bytes to read ahead; none before the first block.
    window: usize,
    index: Option<Arc<ObjectIndex>>,
    block: Option<(u32, Block)>,
    /// The extent that was compared with its object last.
    checked: Option<ObjectExtent>,
    seat: Option<Seat>,
}

impl ObjectCursor {
    pub(super) fn new(cache: ObjectCache) -> Self {
        Self { cache, window: 0, index: None, block: None, checked: None, seat: None }
    }

    /// Bytes to read ahead, while the reader is in objects.
    pub(super) fn window(&self) -> Option<usize> {
        self.seat.as_ref().map(|_| self.window)
    }

    /// What was read last was not there, or not what it should be: nothing that is known of it is
    /// believed any more.
    pub(super) fn lost(&mut self, extents: &[ObjectExtent]) {
        if let Some(extent) = extents.first() {
            self.cache.forget(extent.rested.object);
        }
        self.leave();
    }

    /// The reader has left for the log or memory.
    pub(super) fn leave(&mut self) {
        (self.window, self.index, self.block) = (0, None, None);
        (self.checked, self.seat) = (None, None);
    }

    /// Bytes at an offset that `extents` hold.
    pub(super) async fn read(
        &mut self,
        extents: &[ObjectExtent],
        wanted: Wanted,
    ) -> Result<Bytes, LoadError> {
        let [extent, more @ ..] = extents else { return Ok(Bytes::new()) };
        if self.seat.is_none() {
            self.seat = Some(self.cache.join());
        }
        let index = self.index(extent.rested.object).await?;
        if self.checked != Some(*extent) {
            check(&index, extent)?;
            self.checked = Some(*extent);
        }
        let skip = wanted.offset.0 - extent.offset.0;
        let (begin, end) = (u64::from(extent.rested.offset) + skip, object_range(extent).end);
        let block = self.block(&index, begin, extents, wanted).await?;
        let end = end.min(begin + wanted.bytes_max as u64);
        let data = slice(&block, begin..end);
        if data.len() >= READ_GATHER_BELOW || (data.len() as u64) < end - begin {
            return Ok(data);
        }
        Ok(self.gather_ready(data, more, wanted.bytes_max))
    }

    async fn index(&mut self, object: ObjectName) -> Result<Arc<ObjectIndex>, LoadError> {
        if let Some(index) = self.index.as_ref().filter(|index| index.object() == object) {
            return Ok(index.clone());
        }
        // Let go of before the next is waited for: it is of no use to this reader any more.
        (self.index, self.block) = (None, None);
        let index = self.cache.index(object).await?;
        self.index = Some(index.clone());
        Ok(index)
    }

    /// The block with the byte `at` of the object. A new one lets the reader read further ahead.
    async fn block(
        &mut self,
        index: &Arc<ObjectIndex>,
        at: u64,
        extents: &[ObjectExtent],
        wanted: Wanted,
    ) -> Result<Block, LoadError> {
        let number = index.block_at(at).expect("an extent that was checked lies in blocks");
        if let Some((_, block)) = self.block.as_ref().filter(|(have, _)| *have == number) {
            return Ok(block.clone());
        }
        self.block = None;
        let share = self.cache.share();
        self.window = (2 * self.window).max(OBJECT_WINDOW_BYTES_MIN).min(share);
        let plan = match wanted.alone {
            true => Plan::default(),
            false => self.plan(index, number, extents, wanted),
        };
        // Asked for first, and what is ahead before it is waited for: the store works on both.
        let ahead = async {
            plan.unknown.iter().for_each(|object| self.cache.index_ahead(*object));
            let at_least = if plan.whole { self.window / 2 } else { 0 };
            self.cache.read_ahead(&plan.blocks, at_least);
        };
        let (block, ()) = join(self.cache.block(index, number), ahead).await;
        let block = block?;
        self.block = Some((number, block.clone()));
        Ok(block)
    }

    /// What is in the window behind block `number` of an object.
    fn plan(
        &self,
        index: &Arc<ObjectIndex>,
        number: u32,
        extents: &[ObjectExtent],
        Wanted { offset, end: last, .. }: Wanted,
    ) -> Plan {
        let mut plan = Plan { room: self.cache.share(), ..Plan::default() };
        plan.blocks.push((index.clone(), number + 1..number + 1));
        let window = offset.plus(self.window as u64);
        let end = last.map_or(window, |last| last.min(window));
        for extent in extents {
            if extent.offset >= end || plan.unknown.len() == OBJECT_INDICES_AHEAD_MAX {
                plan.whole = end == window;
                break;
            }
            let object = extent.rested.object;
            if plan.last_object() != Some(object) {
                let Some(index) = self.cache.ready_index(object) else {
                    plan.add_unknown(object);
                    continue;
                };
                plan.blocks.push((index, 0..0));
            }
            let begin = object_range(extent).start + offset.0.saturating_sub(extent.offset.0);
            let bytes = extent.end().min(end).0.saturating_sub(extent.offset.max(offset).0);
            if !plan.add(begin..begin + bytes) {
                plan.whole = true;
                break;
            }
            plan.whole = extent.end() >= window && end == window;
        }
        plan
    }

    /// Adds the small extents behind `first` whose blocks are in memory already.
    fn gather_ready(&self, first: Bytes, extents: &[ObjectExtent], bytes_max: usize) -> Bytes {
        let mut gathered = first.len();
        let mut pieces = vec![first];
        for extent in extents {
            let room = bytes_max.min(READ_GATHER_BYTES).saturating_sub(gathered);
            if room == 0 || extent.bytes as usize >= READ_GATHER_BELOW {
                break;
            }
            let Some(piece) = self.ready(extent, room) else { break };
            gathered += piece.len();
            let cut = piece.len() < extent.bytes as usize;
            pieces.push(piece);
            if cut {
                break;
            }
        }
        gather(pieces)
    }

    /// The first bytes of an extent, if they are in memory.
    fn ready(&self, extent: &ObjectExtent, room: usize) -> Option<Bytes> {
        let index = self.cache.ready_index(extent.rested.object)?;
        index.check(extent).ok()?;
        let range = object_range(extent);
        let number = index.block_at(range.start)?;
        let block = self.cache.ready_block(&index, number)?;
        Some(slice(&block, range.start..range.end.min(range.start + room as u64)))
    }
}

/// What to read ahead.
#[derive(Debug, Default)]
struct Plan {
    /// Blocks of objects, in the order in which they are needed.
    blocks: Vec<(Arc<ObjectIndex>, Range<u32>)>,
    /// Objects whose index is needed first.
    unknown: Vec<ObjectName>,
    /// Bytes that there is room for.
    room: usize,
    /// It ends with the window, not with what is known of the segment.
    whole: bool,
}

impl Plan {
    fn last_object(&self) -> Option<ObjectName> {
        self.blocks.last().map(|(index, _)| index.object())
    }

    fn add_unknown(&mut self, object: ObjectName) {
        if self.unknown.last() != Some(&object) {
            self.unknown.push(object);
        }
    }

    /// Adds the blocks of the last object with bytes of `range`; says whether there is room.
    fn add(&mut self, range: Range<u64>) -> bool {
        let Some((index, blocks)) = self.blocks.last() else { return false };
        let (index, known) = (index.clone(), blocks.clone());
        let first = index.block_at(range.start);
        let last = index.block_at(range.end.saturating_sub(1));
        // An index that does not know the place is found out when the reader comes to it.
        let Some((first, last)) = first.zip(last) else { return false };
        let mut blocks = known.end.max(first)..known.end.max(first);
        while blocks.end <= last
            && let Some(room) = self.room.checked_sub(index.bytes(blocks.end..blocks.end + 1))
        {
            self.room = room;
            blocks.end += 1;
        }
        let whole = blocks.end > last;
        match self.blocks.last_mut() {
            Some((_, known)) if known.end == blocks.start => known.end = blocks.end,
            _ => self.blocks.push((index, blocks)),
        }
        whole
    }
}

/// The extent is what its object holds there, or one of the two is damaged.
fn check(index: &ObjectIndex, extent: &ObjectExtent) -> Result<(), LoadError> {
    let object = extent.rested.object;
    index.check(extent).map_err(|mismatch| LoadError::Mismatch { object, mismatch })
}

/// Where an extent lies in its object.
fn object_range(extent: &ObjectExtent) -> Range<u64> {
    let begin = u64::from(extent.rested.offset);
    begin..begin + u64::from(extent.bytes)
}

/// As much of a range of an object as the block has that holds its beginning.
fn slice(block: &Block, range: Range<u64>) -> Bytes {
    let begin = (range.start - block.offset) as usize;
    let end = (range.end - block.offset).min(block.bytes.len() as u64) as usize;
    block.bytes.slice(begin..end)
}
