//! Delete a stream. A stream that still takes events is sealed by the same job first, so that no
//! event is acknowledged by one segment while another is gone already. The name is free when the
//! job is done; the id never comes back.

use common::{ScopedStream, StreamId, WallTime};

use crate::machine::ControllerMachine;
use crate::machine::records::Key;
use crate::machine::steps::JobKind;
use crate::machine::stream::StreamState;
use crate::outcome::{Accepted, Outcome, Refusal};

impl ControllerMachine {
    pub(super) fn delete_stream(&mut self, name: &ScopedStream, now: WallTime) -> Outcome {
        let found = self.stream(name)?;
        let (stream, state, job) = (found.id, found.state, found.job);
        match (state, job) {
            (StreamState::Deleting, job) => Ok(Accepted::Started { stream, job }),
            (_, Some(job)) => Err(Refusal::Busy { stream: name.clone(), job }),
            (state, None) => {
                self.stream_mut(stream).state = StreamState::Deleting;
                let seal_first = state != StreamState::Sealed;
                let job = self.start_job(stream, JobKind::Delete { seal_first }, now);
                Ok(Accepted::Started { stream, job: Some(job) })
            }
        }
    }

    /// The job's end: nothing of the stream is left.
    pub(super) fn remove_stream(&mut self, id: StreamId) {
        let stream = self.state.streams.remove(&id).expect("a job's stream exists");
        for segment in stream.segments.values() {
            self.count_segment(segment.container, -1);
        }
        let scope = self.state.scopes.get_mut(&stream.name.scope);
        scope.expect("a stream's scope exists").streams.remove(&stream.name.stream);
        let segment = |key: &_| stream.segment_id(*key);
        self.dirty.insert(Key::Stream(id));
        self.dirty.extend(stream.epochs.iter().map(|epoch| Key::Epoch(id, epoch.number)));
        self.dirty.extend(stream.segments.keys().map(|key| Key::Segment(segment(key))));
        self.dirty.extend(stream.head.keys().map(|key| Key::Head(segment(key))));
        self.dirty.extend(stream.removed.keys().map(|key| Key::Removed(segment(key))));
        self.dirty.extend(stream.writers.keys().map(|name| Key::Writer(id, name.clone())));
    }
}
