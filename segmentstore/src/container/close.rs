//! Close: an anonymous writer needs a segment no more.
//!
//! Its session number stays, so that an `Open` or a block of it that is still on its way is refused.
//! What a named writer stored stays, too: its next process asks for it.

use common::{WriterId, WriterSession};

use super::segment::Segment;
use super::writers::Stub;
use super::{ContainerMachine, Marks};
use crate::limits::SURPLUS_STUBS_PER_STUB;
use crate::operation::Close;
use crate::outcome::Outcome;

impl ContainerMachine {
    pub(super) fn close(&mut self, close: &Close) -> Outcome {
        for id in &close.segments {
            let Some(segment) = self.segments.get_mut(id) else { continue };
            let Some(entry) = segment.writers.get(close.writer) else { continue };
            // A later session is of a writer that goes on.
            if entry.named || entry.session > close.session {
                continue;
            }
            let marks = &mut self.marks;
            marks.changes(segment);
            forget(segment, marks, close.writer, close.session, self.up_micros);
            marks.reschedule(*id, &mut segment.writers);
        }
        Outcome::Closed
    }
}

/// Leaves of a writer's entry its session number alone.
pub(super) fn forget(
    segment: &mut Segment,
    marks: &mut Marks,
    writer: WriterId,
    session: WriterSession,
    up_micros: u64,
) {
    let stored = segment.writers.get(writer).is_some_and(|entry| entry.has_stored());
    leave(segment, marks, writer, Stub { session, since_micros: up_micros, stored });
}

/// Leaves a session number. The oldest ones make room, once nothing of them can be on its way.
pub(super) fn leave(segment: &mut Segment, marks: &mut Marks, writer: WriterId, stub: Stub) {
    let up_micros = stub.since_micros;
    marks.put_stub(segment, writer, stub);
    for _ in 0..SURPLUS_STUBS_PER_STUB {
        let Some(surplus) = segment.writers.surplus_stub(up_micros) else { break };
        marks.remove_writer(segment, surplus);
    }
}
