//! Delete a stream. A stream that still takes events is sealed by the same job first, so that no
//! event is acknowledged by one segment while another is gone already. The name is free when the
//! job is done; the id never comes back.

use common::{ScopedStream, SegmentId, StreamId, WallTime};

use crate::machine::ControllerMachine;
use crate::machine::job::JobKind;
use crate::machine::records::Key;
use crate::machine::stream::StreamState;
use crate::outcome::{Accepted, Outcome, Refusal};

impl ControllerMachine {
    pub(super) fn delete_stream(&mut self, name: &ScopedStream, now: WallTime) -> Outcome {
        self.delete_stream_by_id(self.stream(name)?.id, now)
    }

    /// One that is gone already was deleted by whoever asks again, or by somebody else.
    pub(super) fn delete_stream_by_id(&mut self, stream: StreamId, now: WallTime) -> Outcome {
        let found = match self.stream_by_id(stream) {
            Err(_) if self.knew_stream(stream) => {
                return Ok(Accepted::Started { stream, job: None });
            }
            found => found?,
        };
        let (state, job) = (found.state, found.job);
        match (state, job) {
            (StreamState::Deleting, job) => Ok(Accepted::Started { stream, job }),
            (_, Some(job)) => Err(Refusal::Busy { stream: found.name.clone(), job }),
            (state, None) => {
                self.begin_deletion(stream);
                let seal_first = state != StreamState::Sealed;
                let job = self.start_job(stream, JobKind::Delete { seal_first }, now);
                Ok(Accepted::Started { stream, job: Some(job) })
            }
        }
    }

    /// What was not recorded of its segments yet never will be.
    pub(super) fn begin_deletion(&mut self, id: StreamId) {
        let stream = self.stream_mut(id);
        let unrecorded = stream.unrecorded() as u64;
        stream.state = StreamState::Deleting;
        (stream.first, stream.head_in_order) = (Vec::new(), Vec::new());
        self.state.segments -= unrecorded;
    }

    /// Drops up to `count` of the records that a stream has beside its own and its last epoch's,
    /// the oldest segments first: what is left is as if it were all that there ever was.
    pub(super) fn drop_records(&mut self, id: StreamId, count: u32) {
        let mut left = count as usize;
        let stream = self.state.streams.get_mut(&id).expect("a job's stream exists");
        let id_of = |(epoch, number)| SegmentId { stream: id, epoch, number };
        let mut gone = Vec::new();
        while let Some((key, _)) = next(&mut left, || stream.removed.pop_first()) {
            self.dirty.insert(Key::Removed(id_of(key)));
            self.state.segments -= 1;
        }
        while let Some((key, segment)) = next(&mut left, || stream.segments.pop_first()) {
            self.dirty.insert(Key::Segment(id_of(key)));
            self.state.segments -= 1;
            gone.push((key, segment.container));
        }
        if let Some((last, _)) = gone.last() {
            stream.current.retain(|key| key > last);
        }
        while let Some((key, _)) = next(&mut left, || stream.head.pop_first()) {
            self.dirty.insert(Key::Head(id_of(key)));
        }
        while let Some((name, writer)) = next(&mut left, || stream.writers.pop_first()) {
            stream.writer_names.remove(&writer.id);
            self.dirty.insert(Key::Writer(id, name));
        }
        let epochs = left.min(stream.epochs.len() - 1);
        for epoch in stream.epochs.drain(..epochs) {
            self.dirty.insert(Key::Epoch(id, epoch.number));
        }
        gone.into_iter().for_each(|(_, container)| self.count_segment(container, -1));
    }

    /// The job's end: nothing of the stream is left.
    pub(super) fn remove_stream(&mut self, id: StreamId) {
        let stream = self.state.streams.remove(&id).expect("a job's stream exists");
        let scope = self.state.scopes.get_mut(&stream.name.scope);
        scope.expect("a stream's scope exists").streams.remove(&stream.name.stream);
        self.dirty.insert(Key::Stream(id));
        self.dirty.insert(Key::Epoch(id, stream.epoch()));
    }
}

/// One more of what `pop` gives, for as long as some are `left` to be taken.
fn next<T>(left: &mut usize, pop: impl FnOnce() -> Option<T>) -> Option<T> {
    *left = left.checked_sub(1)?;
    let popped = pop();
    *left += usize::from(popped.is_none());
    popped
}
