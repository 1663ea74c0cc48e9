//! Blocks: framed events of one segment, and the buffers they are built in.

use bytes::{Bytes, BytesMut};
use common::limits::KIB;
use common::routing::{position_of_key, position_without_key};
use common::{EventNumber, KeyPosition};
use proto::framing::{self, EventRef};

use super::proof::{checksum_of, hash_of};
use crate::error::{ClientError, Result};

/// Event numbers in ascending order, as runs of neighbours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    runs: Vec<(u64, u32)>,
}

impl Numbers {
    #[inline]
    fn push(&mut self, number: u64) {
        if let Some((first, count)) = self.runs.last_mut() {
            debug_assert!(*first + u64::from(*count) <= number, "numbers ascend");
            if *first + u64::from(*count) == number && *count < u32::MAX {
                *count += 1;
                return;
            }
        }
        self.runs.push((number, 1));
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.runs.first().map(|(first, _)| *first)
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.runs.last().map(|(first, count)| first + u64::from(*count) - 1)
    }

    fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(|(first, count)| *first..first + u64::from(*count))
    }
}

/// A block whose edges are fixed.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) data: Bytes,
    pub(super) numbers: Numbers,
    pub(super) events: u32,
    pub(super) first: u64,
    pub(super) last: u64,
    /// Of a writer that replays: the sum of its events' hashes.
    pub(super) sum: u64,
    /// All or nothing: never cut.
    pub(super) atomic: bool,
    /// It was given out once, so that it may be stored.
    pub(super) sent: bool,
}

/// The smallest part of a block that can go to another segment.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) data: Bytes,
    pub(super) numbers: Numbers,
    pub(super) events: u32,
    pub(super) sum: u64,
    pub(super) position: KeyPosition,
    pub(super) atomic: bool,
}

impl Block {
    /// The block's parts in order: an atomic block is one, else each event.
    pub(super) fn into_pieces(self, routing: &[u8]) -> Result<Vec<Piece>> {
        if self.atomic {
            let position = position_of_first(&self.data, self.first, routing)?;
            let Block { data, numbers, events, sum, .. } = self;
            return Ok(vec![Piece { data, numbers, events, sum, position, atomic: true }]);
        }
        let mut rest = self.data;
        let mut pieces = Vec::with_capacity(self.events as usize);
        for number in self.numbers.iter() {
            let position = position_of_first(&rest, number, routing)?;
            let bytes = framing::frame_length(&rest).map_err(own_framing)?.unwrap_or(0);
            let mut numbers = Numbers::default();
            numbers.push(number);
            let data = rest.split_to(bytes);
            let sum = hash_of(number, checksum_of(&data));
            pieces.push(Piece { data, numbers, events: 1, sum, position, atomic: false });
        }
        assert!(rest.is_empty(), "a block holds exactly its events");
        Ok(pieces)
    }
}

fn own_framing(error: framing::FramingError) -> ClientError {
    ClientError::protocol(format!("a block in memory is damaged: {error}"))
}

fn position_of_first(data: &Bytes, number: u64, routing: &[u8]) -> Result<KeyPosition> {
    let event = framing::take_event(&mut data.clone()).map_err(own_framing)?;
    let event = event.ok_or_else(|| ClientError::protocol("a block in memory ends early"))?;
    Ok(match event.key_text() {
        Some(key) => position_of_key(key),
        None => position_without_key(routing, EventNumber(number)),
    })
}

/// The block that a segment's next events go to.
#[derive(Debug, Default)]
pub(super) struct OpenBlock {
    data: BytesMut,
    numbers: Numbers,
    events: u32,
    sum: u64,
}

impl OpenBlock {
    pub(super) fn is_empty(&self) -> bool {
        self.events == 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.data.len()
    }

    pub(super) fn first_number(&self) -> Option<u64> {
        self.numbers.first()
    }

    /// Takes a buffer of the size that the segment's blocks have been of late.
    pub(super) fn prepare(&mut self, pool: &mut Pool, likely_bytes: usize, event_bytes: usize) {
        if self.data.capacity() == 0 {
            self.data = pool.take(likely_bytes.max(event_bytes));
        }
    }

    /// With `sums`, the event's hash is added up.
    #[inline]
    pub(super) fn push(&mut self, event: &EventRef<'_>, number: u64, sums: bool) -> Result<usize> {
        let start = self.data.len();
        let bytes = event.frame_into(&mut self.data)?;
        if sums {
            let hash = hash_of(number, checksum_of(&self.data[start..]));
            self.sum = self.sum.wrapping_add(hash);
        }
        self.numbers.push(number);
        self.events += 1;
        Ok(bytes)
    }

    pub(super) fn push_piece(&mut self, piece: &Piece) {
        self.data.extend_from_slice(&piece.data);
        piece.numbers.iter().for_each(|number| self.numbers.push(number));
        self.events += piece.events;
        self.sum = self.sum.wrapping_add(piece.sum);
    }

    pub(super) fn close(&mut self, atomic: bool) -> Block {
        let OpenBlock { data, numbers, events, sum } = std::mem::take(self);
        let (first, last) = (numbers.first(), numbers.last());
        let first = first.expect("only a block with events is closed");
        let last = last.expect("only a block with events is closed");
        Block { data: data.freeze(), numbers, events, first, last, sum, atomic, sent: false }
    }
}

/// Buffers of acknowledged blocks, used again: fresh memory costs a page fault per page.
#[derive(Debug)]
pub(super) struct Pool {
    buffer_bytes: usize,
    buffers_max: usize,
    free: Vec<BytesMut>,
}

impl Pool {
    pub(super) fn new(buffer_bytes: usize, memory_bytes: usize) -> Self {
        Self { buffer_bytes, buffers_max: memory_bytes / buffer_bytes, free: Vec::new() }
    }

    fn take(&mut self, bytes: usize) -> BytesMut {
        if bytes > self.buffer_bytes / 2 && bytes <= self.buffer_bytes {
            return self.free.pop().unwrap_or_else(|| BytesMut::with_capacity(self.buffer_bytes));
        }
        BytesMut::with_capacity(bytes.max(KIB))
    }

    pub(super) fn give_back(&mut self, data: Bytes) {
        if self.free.len() >= self.buffers_max {
            return;
        }
        // A buffer that is still being sent is simply freed when that is done.
        if let Ok(mut buffer) = data.try_into_mut()
            && buffer.capacity() >= self.buffer_bytes
            && buffer.capacity() <= 2 * self.buffer_bytes
        {
            buffer.clear();
            self.free.push(buffer);
        }
    }
}
