//! Append: exactly once is a chain, not a comparison.
//!
//! The order of the tests is part of the contract:
//!
//! 1. tombstone (or no such segment);
//! 2. session: a stale one is fenced, on a sealed segment, too, because successors are told only to
//!    the current session; one that was never opened is broken; a forgotten one is expired;
//! 3. duplicate: acknowledged, not stored;
//! 4. sealed;
//! 5. the block continues what is stored; otherwise this and everything after it is broken until
//!    the next `Open`;
//! 6. expected offset; a mismatch leaves the stored number, and what follows is broken.
//!
//! So a proposal lost between two pipelined blocks, a retry in other blocks or a block from an old
//! connection can neither lose nor double an event.

use common::{EventNumber, Offset};

use super::segment::Segment;
use super::writers::{Stub, WriterState};
use super::{At, ContainerMachine, Marks, Oldest};
use crate::operation::Append;
use crate::outcome::{Outcome, Refusal};
use crate::shared::Effect;

/// What is to be done with a block.
enum Verdict {
    Store,
    Duplicate,
    /// Refused without a trace.
    Refuse(Refusal),
    /// Refused, and nothing more is stored until the next `Open`.
    Break(Refusal),
}

impl ContainerMachine {
    pub(super) fn append(&mut self, append: &Append, at: At<'_>) -> Outcome {
        let Some(segment) = self.segments.get_mut(&append.segment) else {
            return Refusal::SegmentNotFound { segment: append.segment }.into();
        };
        let marks = &mut self.marks;
        // What comes from long-term storage was counted when it was appended, as was what comes
        // from the log of an earlier process.
        let counts = at.entry.payload.is_some() && at.entry.index > self.begun_after;
        let verdict = judge(segment, append);
        let used = at.entry.stamp.up_micros;
        match verdict {
            Verdict::Refuse(refusal) => refusal.into(),
            Verdict::Break(refusal) => {
                marks.changes(segment);
                let writer = marks.writer(segment, append.writer);
                writer.expect("a judged writer has an entry").state = WriterState::Broken;
                refusal.into()
            }
            Verdict::Duplicate => {
                marks.changes(segment);
                let writer = marks.writer(segment, append.writer);
                let writer = writer.expect("a judged writer has an entry");
                let moves = writer.touch(used);
                let last_number = writer.last;
                if moves {
                    segment.writers.queue(append.writer);
                    marks.reschedule(append.segment, &mut segment.writers);
                }
                if counts {
                    self.memory.metrics.duplicate_blocks.add(1);
                }
                Outcome::Duplicate { last_number, length: segment.record.length }
            }
            Verdict::Store => {
                let new_piece = store(segment, append, at, marks);
                if new_piece {
                    self.new_pieces.push(segment.shared.clone());
                }
                let bytes = at.payload_end - at.payload_start;
                if at.entry.payload.is_some() {
                    self.memory.tail.grow(bytes);
                }
                if counts {
                    let counters = &segment.shared.counters;
                    self.memory.metrics.count_append(counters, bytes as u64, append.events);
                }
                if self.oldest_live.get() == Oldest::Known(None) && bytes > 0 {
                    self.oldest_live.set(Oldest::Known(Some(at.entry.index)));
                }
                Outcome::Appended { last_number: append.last, length: segment.record.length }
            }
        }
    }
}

/// The tests, in their order. Nothing is changed here.
fn judge(segment: &Segment, append: &Append) -> Verdict {
    if segment.record.deleted {
        return Verdict::Refuse(Refusal::SegmentNotFound { segment: append.segment });
    }
    let length = segment.record.length;
    let Some(writer) = segment.writers.get(append.writer) else {
        return Verdict::Refuse(without_entry(append, segment.writers.stub(append.writer), length));
    };
    let last_number = writer.last;
    let broken = Refusal::SessionBroken { last_number, length };
    if append.session < writer.session {
        return Verdict::Refuse(Refusal::WriterFenced { current: writer.session });
    }
    if append.session > writer.session {
        return Verdict::Refuse(broken);
    }
    if append.last <= writer.last {
        return Verdict::Duplicate;
    }
    if let Some(successors) = &segment.record.successors
        && !common::planted::active("sealed-segment-accepts")
    {
        let successors = successors.clone();
        return Verdict::Refuse(Refusal::SegmentSealed { last_number, length, successors });
    }
    let continues = writer.state == WriterState::Open && append.previous == writer.last;
    if !continues && !common::planted::active("dedup-by-comparison") {
        return Verdict::Break(broken);
    }
    match append.expected_offset {
        Some(expected) if expected != length => {
            Verdict::Break(Refusal::OffsetMismatch { expected, length, last_number })
        }
        _ => Verdict::Store,
    }
}

/// What a block is told whose writer has no entry.
fn without_entry(append: &Append, stub: Option<&Stub>, length: Offset) -> Refusal {
    match stub {
        Some(stub) if append.session < stub.session => {
            Refusal::WriterFenced { current: stub.session }
        }
        Some(stub) if append.session == stub.session && stub.stored => Refusal::WriterExpired,
        _ => Refusal::SessionBroken { last_number: EventNumber::NONE, length },
    }
}

/// Adds the block's bytes to the segment; whether they began a new piece of its tail.
fn store(segment: &mut Segment, append: &Append, at: At<'_>, marks: &mut Marks) -> bool {
    let (id, offset, stamp) = (append.segment, segment.record.length, at.entry.stamp);
    marks.changes(segment);
    let writer = marks.writer(segment, append.writer).expect("a judged writer has an entry");
    writer.last = append.last;
    writer.sum = append.sum;
    if writer.touch(stamp.up_micros) {
        segment.writers.queue(append.writer);
        marks.reschedule(id, &mut segment.writers);
    }
    let bytes = (at.payload_end - at.payload_start) as u32;
    if bytes == 0 {
        return false;
    }
    let (index, start) = (at.entry.index, at.payload_start as u32);
    let mut state = segment.shared.lock();
    if state.extents.items().is_empty() {
        marks.in_log.insert(id, segment.shared.clone());
    }
    let (new_piece, extents) = state.append(index, start, bytes, at.entry.payload);
    state.times.note(offset, stamp.wall, |level, chunk| marks.times(id, level, chunk));
    drop(state);
    segment.record.length = Offset(offset.0 + u64::from(bytes));
    if let Some(chunk) = extents {
        marks.extents(id, Effect::Log(chunk));
    }
    marks.wake(segment);
    new_piece
}
