//! Commands of the controller: fenced, and carried out at most once per job and step.
//!
//! The container keeps the highest fence it has seen; a command under an older one is of a
//! controller that was replaced and is refused. A command that was carried out is answered from the
//! present state when it comes again.

use std::sync::Arc;

use common::{Attempt, Offset, WriterId, WriterSession};

use super::close::leave;
use super::segment::{Record, Segment};
use super::unsaved::UNCHANGED;
use super::{ContainerMachine, Marks, Oldest};
use crate::container::writers::{Stub, WriterTable};
use crate::identity::{AttributeUpdate, CommandId, Expected, SegmentIdentity, Successor};
use crate::limits::ATTRIBUTES_MAX;
use crate::operation::Command;
use crate::outcome::{Done, Refusal};
use crate::shared::{ReadState, SegmentShared};

impl ContainerMachine {
    pub(super) fn command(&mut self, id: CommandId, command: Command) -> Result<Done, Refusal> {
        if id.fence < self.fence {
            return Err(Refusal::StaleFence { newest: self.fence });
        }
        if id.fence > self.fence {
            self.fence = id.fence;
            self.fence_changed = true;
        }
        let target = command.segment();
        let done = match command {
            Command::Create(identity) => self.create(id, *identity),
            Command::Forget { segment } => return self.forget(segment),
            other => self.change(id, other),
        }?;
        if let Some(segment) = self.segments.get_mut(&target)
            && segment.record.command != Some(id)
        {
            let marks = &mut self.marks;
            marks.changes(segment);
            segment.record.command = Some(id);
        }
        Ok(done)
    }

    fn create(&mut self, id: CommandId, identity: SegmentIdentity) -> Result<Done, Refusal> {
        if let Some(existing) = self.segments.get(&identity.segment) {
            let again = id.is_retry_of(existing.record.command);
            if existing.identity == identity && (!existing.record.deleted || again) {
                return Ok(Done::Created);
            }
            // A tombstone: a segment is never created twice.
            let segment = identity.segment;
            return Err(match existing.record.deleted {
                true => Refusal::SegmentNotFound { segment },
                false => Refusal::SegmentExists { segment },
            });
        }
        let segment = self.new_segment(identity, Record::default(), ReadState::default());
        self.insert(segment);
        Ok(Done::Created)
    }

    pub(super) fn new_segment(
        &self,
        identity: SegmentIdentity,
        record: Record,
        state: ReadState,
    ) -> Segment {
        let counters = self.memory.metrics.stream(&identity.stream);
        let group = self.container.group();
        let shared = SegmentShared::new(identity.segment, group, counters, state);
        Segment {
            identity,
            record,
            writers: WriterTable::new(self.memory.metrics.clone()),
            shared,
            mark: UNCHANGED,
            to_wake: false,
        }
    }

    fn insert(&mut self, mut segment: Segment) {
        let id = segment.identity.segment;
        // One of that name may have been forgotten since the freeze.
        self.copy_all_of(id);
        segment.mark = self.marks.unsaved.list((id, None));
        self.segments.insert(id, segment);
    }

    /// Commands to a segment that exists.
    fn change(&mut self, id: CommandId, command: Command) -> Result<Done, Refusal> {
        let target = command.segment();
        let not_found = Refusal::SegmentNotFound { segment: target };
        let Some(segment) = self.segments.get_mut(&target) else {
            // Deleted and forgotten: whoever asks again was answered before.
            return match command {
                Command::Delete { .. } => Ok(Done::Deleted),
                Command::DeleteWriter { .. } => Ok(Done::WriterDeleted),
                _ => Err(not_found),
            };
        };
        let marks = &mut self.marks;
        let again = id.is_retry_of(segment.record.command);
        let to_tombstones =
            matches!(command, Command::Delete { .. } | Command::DeleteWriter { .. });
        if segment.record.deleted && !to_tombstones {
            return Err(not_found);
        }
        marks.changes(segment);
        match command {
            Command::Seal { successors, .. } => seal(segment, successors, marks),
            Command::Truncate { offset, .. } => {
                truncate(segment, offset, marks)?;
                self.oldest_live.set(Oldest::Stale);
                let start_offset = self.segments[&target].record.start;
                Ok(Done::Truncated { start_offset })
            }
            Command::Delete { .. } => {
                delete(segment, marks);
                self.oldest_live.set(Oldest::Stale);
                Ok(Done::Deleted)
            }
            Command::UpdateAttributes { updates, .. } => {
                if !again {
                    update_attributes(segment, updates)?;
                }
                Ok(Done::AttributesUpdated)
            }
            Command::DeleteWriter { writer, epoch, .. } => {
                let session = WriterSession { epoch, attempt: Attempt::default() };
                delete_writer(segment, marks, writer, session, self.up_micros);
                Ok(Done::WriterDeleted)
            }
            Command::Create(_) | Command::Forget { .. } => {
                unreachable!("create and forget have their own ways")
            }
        }
    }

    /// Removes a tombstone. From here on nothing says that the segment ever was.
    fn forget(&mut self, segment: common::SegmentId) -> Result<Done, Refusal> {
        let Some(tombstone) = self.segments.get(&segment) else { return Ok(Done::Forgotten) };
        if !tombstone.record.deleted {
            return Err(Refusal::NotDeleted { segment });
        }
        self.copy_all_of(segment);
        let tombstone = self.segments.remove(&segment).expect("it was found just now");
        self.marks.unsaved.list((segment, None));
        if let Some(due) = tombstone.writers.due {
            self.marks.due.remove(&(due, segment));
        }
        for writer in tombstone.writers.ids() {
            self.marks.unsaved.list((segment, Some(writer)));
        }
        Ok(Done::Forgotten)
    }
}

fn seal(
    segment: &mut Segment,
    successors: Vec<Successor>,
    marks: &mut Marks,
) -> Result<Done, Refusal> {
    let length = segment.record.length;
    match &segment.record.successors {
        Some(earlier) if **earlier == *successors => return Ok(Done::Sealed { length }),
        Some(_) => return Err(Refusal::SealedOtherwise { segment: segment.identity.segment }),
        None => {}
    }
    segment.record.successors = Some(Arc::from(successors));
    segment.shared.lock().sealed = true;
    marks.wake(segment);
    Ok(Done::Sealed { length })
}

/// Drops the bytes below `offset`.
fn truncate(segment: &mut Segment, offset: Offset, marks: &mut Marks) -> Result<(), Refusal> {
    let (start, length) = (segment.record.start, segment.record.length);
    if offset > length {
        return Err(Refusal::OutOfRange { offset, length });
    }
    if offset <= start {
        return Ok(());
    }
    let id = segment.identity.segment;
    segment.record.start = offset;
    let mut state = segment.shared.lock();
    state.truncate(offset, |effect| marks.extents(id, effect));
    state.times.truncate(offset, |level, chunk| marks.times(id, level, chunk));
    drop(state);
    marks.has_other_extents(&segment.shared);
    marks.wake(segment);
    Ok(())
}

/// Leaves a tombstone: the identity, and the writers until they expire.
fn delete(segment: &mut Segment, marks: &mut Marks) {
    let id = segment.identity.segment;
    if segment.record.deleted {
        return;
    }
    segment.record.deleted = true;
    segment.record.start = segment.record.length;
    segment.record.attributes.clear();
    let mut state = segment.shared.lock();
    state.delete(|effect| marks.extents(id, effect));
    state.times.clear(|level, chunk| marks.times(id, level, chunk));
    drop(state);
    marks.has_other_extents(&segment.shared);
    marks.wake(segment);
}

/// Leaves a session number that refuses every process of the name that was. A segment that takes
/// no more appends gets none for a writer that it never knew.
fn delete_writer(
    segment: &mut Segment,
    marks: &mut Marks,
    writer: WriterId,
    session: WriterSession,
    up_micros: u64,
) {
    let known = segment.writers.trace(writer);
    if known.is_some_and(|known| known.session() >= session)
        || known.is_none() && segment.takes_no_more()
    {
        return;
    }
    leave(segment, marks, writer, Stub { session, since_micros: up_micros, stored: true });
    marks.reschedule(segment.identity.segment, &mut segment.writers);
}

/// All updates or none.
fn update_attributes(segment: &mut Segment, updates: Vec<AttributeUpdate>) -> Result<(), Refusal> {
    let mut attributes = segment.record.attributes.clone();
    for update in updates {
        let present = attributes.get(&update.name);
        let as_expected = match &update.expected {
            Expected::Anything => true,
            Expected::Absent => present.is_none(),
            Expected::Value(value) => present == Some(value),
        };
        if !as_expected {
            let name = String::from_utf8_lossy(&update.name).into_owned();
            return Err(Refusal::AttributeMismatch { name });
        }
        match update.value {
            Some(value) => attributes.insert(update.name, value),
            None => attributes.remove(&update.name),
        };
    }
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(Refusal::TooManyAttributes { max: ATTRIBUTES_MAX });
    }
    segment.record.attributes = attributes;
    Ok(())
}
