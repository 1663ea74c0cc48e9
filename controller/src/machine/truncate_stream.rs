//! Truncate a stream to a cut. The head moves at once, so that readers begin at the right place
//! from then on; a job drops the bytes. Where that job was given up, asking again begins another
//! one, although the head is there already. A sealed stream can be truncated, too.

use std::collections::BTreeMap;

use common::{CutCoverage, Offset, StreamId, WallTime};

use crate::machine::ControllerMachine;
use crate::machine::job::JobKind;
use crate::machine::records::Key;
use crate::machine::stream::{SegmentKey, Stream, StreamState};
use crate::operation::CutOffsets;
use crate::outcome::{Accepted, Outcome, Refusal};

impl Stream {
    /// Refuses a stream that is on its way out, and one that was not made to the end.
    pub fn has_bytes(&self) -> Result<(), Refusal> {
        match (self.state, self.job) {
            (StreamState::Deleting, _) => Err(Refusal::StreamNotFound(self.name.clone())),
            (StreamState::Creating, None) => Err(Refusal::NotMade(self.name.clone())),
            _ => Ok(()),
        }
    }
}

impl ControllerMachine {
    pub(super) fn truncate_stream(
        &mut self,
        stream: StreamId,
        cut: &CutOffsets,
        now: WallTime,
    ) -> Outcome {
        let found = self.stream_by_id(stream)?;
        found.has_bytes()?;
        if let Some(job) = found.job {
            return Err(Refusal::Busy { stream: found.name.clone(), job });
        }
        let fits = found.check_truncation(cut, CutCoverage::Everything);
        fits.map_err(|problem| Refusal::CutDoesNotFit { stream: found.name.clone(), problem })?;
        let head = found.head_after(cut);
        let old: BTreeMap<_, _> = found.head_offsets().into_iter().collect();
        if head == old && !found.head_is_ahead {
            return Ok(Accepted::Started { stream, job: None });
        }
        self.set_head(stream, head);
        let job = self.start_job(stream, JobKind::Truncate, now);
        Ok(Accepted::Started { stream, job: Some(job) })
    }

    fn set_head(&mut self, id: StreamId, head: BTreeMap<SegmentKey, Offset>) {
        let stream = self.stream_mut(id);
        let old = std::mem::replace(&mut stream.head, head);
        stream.head_is_ahead = true;
        stream.order_head();
        let touched: Vec<_> = old.keys().chain(stream.head.keys()).copied().collect();
        let keys = touched
            .into_iter()
            .map(|(epoch, number)| Key::Head(common::SegmentId { stream: id, epoch, number }));
        self.dirty.extend(keys);
    }
}
