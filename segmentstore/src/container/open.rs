//! Open: raises a writer's session on a list of segments, in one entry.
//!
//! Every `Open` uses a new attempt, so that a session as high as the current one is fenced, too. A
//! writer that says it has sent to a segment before, and whose entry is gone, is told so: what it
//! has in flight there may be stored or not.
//!
//! The tombstone of a segment that was sealed with successors opens, too: its stream goes on, and
//! only here a writer learns what of it is stored, and where to go on. Nothing will ever be stored
//! there, so a writer that it does not know leaves no trace.

use common::limits::WRITERS_PER_SEGMENT_MAX;

use super::ContainerMachine;
use super::segment::Segment;
use super::writers::{Writer, WriterState};
use crate::operation::{Open, OpenSegment};
use crate::outcome::{Opened, Refusal};

impl ContainerMachine {
    pub(super) fn open(&mut self, open: &Open) -> Vec<Result<Opened, Refusal>> {
        open.segments.iter().map(|segment| self.open_segment(open, *segment)).collect()
    }

    fn open_segment(&mut self, open: &Open, asked: OpenSegment) -> Result<Opened, Refusal> {
        let not_found = Refusal::SegmentNotFound { segment: asked.segment };
        let segment = self.segments.get_mut(&asked.segment).ok_or_else(|| not_found.clone())?;
        let goes_on = segment.record.successors.as_ref().is_some_and(|s| !s.is_empty());
        if segment.record.deleted && !goes_on {
            return Err(not_found);
        }
        let known = segment.writers.get(open.writer).copied();
        if let Some(known) = known
            && open.session <= known.session
        {
            return Err(Refusal::WriterFenced { current: known.session });
        }
        let remembered = known.filter(|known| !known.is_expired());
        if remembered.is_none() && asked.resuming {
            return Err(Refusal::WriterExpired);
        }
        if segment.record.deleted && known.is_none() {
            let nothing = Writer::new(open.session, open.named, self.up_micros);
            return Ok(opened(segment, &nothing));
        }
        let count = segment.writers.len();
        if known.is_none() && count >= WRITERS_PER_SEGMENT_MAX {
            return Err(Refusal::TooManyWriters { count });
        }
        let mut entry = Writer::new(open.session, open.named, self.up_micros);
        if let Some(remembered) = remembered {
            entry.last = remembered.last;
            entry.state = WriterState::Open;
        }
        let marks = &mut self.marks;
        marks.changes(segment);
        super::expire::schedule(&mut self.due, asked.segment, open.writer, known, &mut entry);
        marks.put_writer(segment, open.writer, entry);
        Ok(opened(segment, &entry))
    }
}

fn opened(segment: &Segment, entry: &Writer) -> Opened {
    Opened {
        last_number: entry.last,
        length: segment.record.length,
        successors: segment.record.successors.clone(),
    }
}
