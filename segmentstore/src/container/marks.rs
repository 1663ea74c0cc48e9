//! What a change to a segment leaves to be done: saving it, waking its readers, and what the
//! container knows of its segments as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{SegmentId, WriterId};

use super::live_objects::LiveObjects;
use super::save;
use super::segment::Segment;
use super::unsaved::{Generation, Unsaved};
use super::writers::{Stub, Trace, Writer, WriterTable};
use crate::chunked::ChunkChange;
use crate::shared::{Effect, ReadState, SegmentShared};

#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) unsaved: Unsaved,
    /// Segments whose readers are to be woken at the end of the round.
    pub(super) to_wake: Vec<Arc<SegmentShared>>,
    /// The objects that segments refer to.
    pub(super) objects: LiveObjects,
    /// The segments of which only the log holds something: what is archived or truncated is found
    /// without a look at all the others.
    pub(super) in_log: BTreeMap<SegmentId, Arc<SegmentShared>>,
    /// The segments with too many small extents.
    pub(super) scattered: BTreeSet<SegmentId>,
    /// When something is to be forgotten of which segment's writers, at the earliest.
    pub(super) due: BTreeSet<(u64, SegmentId)>,
}

impl Marks {
    /// The segment's record, extents or time points are about to change.
    pub(super) fn changes(&mut self, segment: &mut Segment) {
        if self.unsaved.is_listed(segment.mark) {
            return;
        }
        let part = (segment.identity.segment, None);
        if self.unsaved.thaw(part) {
            save::copy_segment(segment, |change| self.unsaved.keep(change));
        }
        segment.mark = self.unsaved.list(part);
    }

    /// The entry of a writer, which is about to change.
    pub(super) fn writer<'s>(
        &mut self,
        segment: &'s mut Segment,
        writer: WriterId,
    ) -> Option<&'s mut Writer> {
        let part = (segment.identity.segment, Some(writer));
        let entry = segment.writers.get_mut(writer)?;
        if !self.unsaved.is_listed(entry.mark) {
            if self.unsaved.thaw(part) {
                let before = Some(Trace::Writer(*entry));
                self.unsaved.keep(save::writer_change(part.0, writer, before));
            }
            entry.mark = self.unsaved.list(part);
        }
        Some(entry)
    }

    pub(super) fn put_writer(
        &mut self,
        segment: &mut Segment,
        writer: WriterId,
        mut entry: Writer,
    ) {
        entry.mark = self.changes_writer(segment, writer);
        segment.writers.put(writer, Trace::Writer(entry));
    }

    pub(super) fn put_stub(&mut self, segment: &mut Segment, writer: WriterId, stub: Stub) {
        self.changes_writer(segment, writer);
        segment.writers.put(writer, Trace::Stub(stub));
    }

    pub(super) fn remove_writer(&mut self, segment: &mut Segment, writer: WriterId) {
        self.changes_writer(segment, writer);
        segment.writers.remove(writer);
    }

    fn changes_writer(&mut self, segment: &Segment, writer: WriterId) -> Generation {
        let part = (segment.identity.segment, Some(writer));
        if self.unsaved.thaw(part) {
            let before = segment.writers.trace(writer);
            self.unsaved.keep(save::writer_change(part.0, writer, before));
        }
        self.unsaved.list(part)
    }

    /// Gives a segment the place that it has now in the queue of those with writers that time takes
    /// something from.
    pub(super) fn reschedule(&mut self, segment: SegmentId, writers: &mut WriterTable) {
        let due = writers.due_micros();
        if due == writers.due {
            return;
        }
        if let Some(before) = writers.due {
            self.due.remove(&(before, segment));
        }
        if let Some(due) = due {
            self.due.insert((due, segment));
        }
        writers.due = due;
    }

    pub(super) fn wake(&mut self, segment: &mut Segment) {
        if !segment.to_wake {
            segment.to_wake = true;
            self.to_wake.push(segment.shared.clone());
        }
    }

    pub(super) fn extents(&mut self, segment: SegmentId, effect: Effect) {
        match effect {
            Effect::Log(chunk) => self.unsaved.push(save::extents_change(segment, chunk)),
            Effect::Objects(_) if common::planted::active("moved-extents-are-not-saved") => {}
            Effect::Objects(chunk) => self.unsaved.push(save::objects_change(segment, chunk)),
            Effect::Took(object, bytes) => self.objects.take(object, bytes),
            Effect::Released(object, bytes) => self.objects.release(object, bytes),
        }
    }

    pub(super) fn times(&mut self, segment: SegmentId, level: usize, chunk: ChunkChange) {
        self.unsaved.push(save::times_change(segment, level, chunk));
    }

    /// The segment has other extents now.
    pub(super) fn has_other_extents(&mut self, shared: &Arc<SegmentShared>) {
        let state = shared.lock();
        match state.extents.items().is_empty() {
            true => drop(self.in_log.remove(&shared.segment)),
            false => drop(self.in_log.insert(shared.segment, shared.clone())),
        }
        self.has_other_objects(shared.segment, &state);
    }

    /// The segment has other extents in objects now.
    pub(super) fn has_other_objects(&mut self, segment: SegmentId, state: &ReadState) {
        match state.is_scattered() {
            true => self.scattered.insert(segment),
            false => self.scattered.remove(&segment),
        };
    }
}
