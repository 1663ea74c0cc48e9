//! Create a stream: id, first epoch and placement are decided at once; a job makes the segments.

use std::collections::BTreeMap;

use common::limits::SEGMENTS_PER_STREAM_MAX;
use common::{KeyRange, ScopedStream, SegmentNumber, StreamEpoch, StreamId, WallTime};

use crate::machine::ControllerMachine;
use crate::machine::records::Key;
use crate::machine::steps::JobKind;
use crate::machine::stream::{Epoch, Segment, Stream, StreamState};
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::stores::JobId;

impl ControllerMachine {
    pub(super) fn create_stream(
        &mut self,
        name: &ScopedStream,
        segments: u32,
        create_scope: bool,
        now: WallTime,
    ) -> Outcome {
        self.initialized()?;
        match self.stream(name) {
            Ok(existing) => {
                let (stream, state, job) = (existing.id, existing.state, existing.job);
                return self.create_again(name, (stream, state, job), now);
            }
            Err(Refusal::ScopeNotFound(_)) if create_scope => {}
            Err(Refusal::StreamNotFound(_)) => {}
            Err(refusal) => return Err(refusal),
        }
        if segments == 0 || segments as usize > SEGMENTS_PER_STREAM_MAX {
            return Err(Refusal::SegmentCount(segments));
        }
        if self.state.containers.is_empty() {
            return Err(Refusal::NoContainers);
        }
        if !self.state.scopes.contains_key(&name.scope) {
            self.add_scope(&name.scope, now);
        }
        let id = self.counters().next_stream();
        let made = self.first_epoch(id, name, segments, now);
        self.dirty.insert(Key::Epoch(id, StreamEpoch(0)));
        self.dirty.extend(made.segments.keys().map(|key| Key::Segment(made.segment_id(*key))));
        self.state.streams.insert(id, made);
        let scope = self.state.scopes.get_mut(&name.scope).expect("it was added where missing");
        scope.streams.insert(name.stream.clone(), id);
        let job = self.start_job(id, JobKind::Create, now);
        Ok(Accepted::StreamCreated { stream: id, created: true, job: Some(job) })
    }

    fn first_epoch(
        &mut self,
        id: StreamId,
        name: &ScopedStream,
        segments: u32,
        now: WallTime,
    ) -> Stream {
        let containers = self.place_segments(segments);
        let made = KeyRange::tile(segments).into_iter().zip(containers).zip(0..);
        let made = made.map(|((range, container), number)| {
            let segment = Segment {
                range,
                container,
                predecessors: Vec::new(),
                sealed: None,
                successors: Vec::new(),
            };
            ((StreamEpoch(0), SegmentNumber(number)), segment)
        });
        let mut stream = Stream {
            id,
            name: name.clone(),
            state: StreamState::Creating,
            segments_configured: segments,
            created: now,
            job: None,
            epochs: vec![Epoch { number: StreamEpoch(0), created: now, sealed: Vec::new() }],
            segments: made.collect(),
            current: Vec::new(),
            head: BTreeMap::new(),
            head_is_ahead: false,
            removed: BTreeMap::new(),
            writers: BTreeMap::new(),
            writer_names: BTreeMap::new(),
        };
        stream.index();
        stream
    }

    fn create_again(
        &mut self,
        name: &ScopedStream,
        (stream, state, job): (StreamId, StreamState, Option<JobId>),
        now: WallTime,
    ) -> Outcome {
        let job = match (state, job) {
            // The name is taken until the old stream is gone.
            (StreamState::Deleting, Some(job)) => {
                return Err(Refusal::Busy { stream: name.clone(), job });
            }
            (StreamState::Creating, Some(job)) => Some(job),
            // It was given up and is begun again.
            (StreamState::Creating, None) => Some(self.start_job(stream, JobKind::Create, now)),
            _ => None,
        };
        Ok(Accepted::StreamCreated { stream, created: false, job })
    }
}
