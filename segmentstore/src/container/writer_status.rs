//! What a segment knows of one writer, for who only asks.

use common::{EventNumber, SegmentId, WriterId, WriterSession};

use super::ContainerMachine;
use crate::operation::EventSum;

/// What a segment, or the tombstone of one, has stored of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterStatus {
    pub session: WriterSession,
    /// The last stored number.
    pub last_number: EventNumber,
    /// As the block that brought `last_number` had it.
    pub sum: EventSum,
}

impl ContainerMachine {
    /// `None` where the segment has no entry of the writer.
    pub fn writer_status(&self, segment: SegmentId, writer: WriterId) -> Option<WriterStatus> {
        let entry = self.segments.get(&segment)?.writers.get(writer)?;
        let (session, last_number, sum) = (entry.session, entry.last, entry.sum);
        Some(WriterStatus { session, last_number, sum })
    }
}
