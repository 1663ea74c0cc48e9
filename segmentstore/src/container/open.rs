//! Open: raises a writer's session on a list of segments, in one entry.
//!
//! Every `Open` uses a new attempt, so that a session as high as the current one is fenced, too. A
//! writer that says it has sent to a segment before, and whose entry is gone, is told so: what it
//! has in flight there may be stored or not. Where only the session number is left it *expired*; where
//! nothing is, the segment cannot tell, and the writer is *absent*.
//!
//! The tombstone of a segment that was sealed with successors opens, too: its stream goes on, and
//! only here a writer learns what of it is stored, and where to go on. Where nothing will ever be
//! stored, in a tombstone or a sealed segment, a writer that it does not know leaves no trace.

use common::limits::WRITERS_PER_SEGMENT_MAX;

use super::close::forget;
use super::segment::Segment;
use super::writers::{Trace, Writer};
use super::{ContainerMachine, Marks};
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
        let known = segment.writers.trace(open.writer);
        if let Some(known) = known
            && open.session <= known.session()
        {
            return Err(Refusal::WriterFenced { current: known.session() });
        }
        let remembered = segment.writers.get(open.writer).copied();
        if asked.resuming {
            match known {
                None => return Err(Refusal::WriterAbsent),
                Some(Trace::Stub(stub)) if stub.stored => return Err(Refusal::WriterExpired),
                Some(_) => {}
            }
        }
        let mut entry = Writer::new(open.session, open.named, self.up_micros);
        if remembered.is_none() && segment.takes_no_more() {
            return Ok(opened(segment, &entry));
        }
        let marks = &mut self.marks;
        marks.changes(segment);
        match remembered {
            Some(remembered) => (entry.last, entry.sum) = (remembered.last, remembered.sum),
            None => make_room(segment, marks, self.up_micros)?,
        }
        marks.put_writer(segment, open.writer, entry);
        marks.reschedule(asked.segment, &mut segment.writers);
        Ok(opened(segment, &entry))
    }
}

/// At the limit the writer goes that was not used for longest. What named ones stored stays.
fn make_room(segment: &mut Segment, marks: &mut Marks, up_micros: u64) -> Result<(), Refusal> {
    let count = segment.writers.len();
    if count < WRITERS_PER_SEGMENT_MAX {
        return Ok(());
    }
    let unused = segment.writers.longest_unused().ok_or(Refusal::TooManyWriters { count })?;
    let session = segment.writers.get(unused).expect("a queued writer has an entry").session;
    forget(segment, marks, unused, session, up_micros);
    Ok(())
}

fn opened(segment: &Segment, entry: &Writer) -> Opened {
    Opened {
        last_number: entry.last,
        sum: entry.sum,
        length: segment.record.length,
        successors: segment.record.successors.clone(),
    }
}
