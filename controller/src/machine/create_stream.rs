//! Create a stream: id and first epoch are decided at once; a job makes the segments.
//!
//! The segments of a step are placed and recorded by the entry that makes it the next one, so that
//! no entry costs more than a step's segments, however many the stream has.

use std::collections::{BTreeMap, VecDeque};

use common::limits::SEGMENTS_PER_STREAM_MAX;
use common::{KeyRange, ScopedStream, SegmentNumber, StreamEpoch, StreamId, WallTime};

use crate::machine::ControllerMachine;
use crate::machine::job::JobKind;
use crate::machine::records::Key;
use crate::machine::stream::{Epoch, Segment, Stream, StreamState};
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::settings::SEGMENTS_PER_STEP;
use crate::stores::JobId;

impl ControllerMachine {
    pub(super) fn create_stream(
        &mut self,
        name: &ScopedStream,
        segments: u32,
        create_scope: bool,
        token: u64,
        now: WallTime,
    ) -> Outcome {
        self.initialized()?;
        match self.stream(name) {
            Ok(existing) => {
                let (stream, state, job) = (existing.id, existing.state, existing.job);
                let created = existing.was_created_with(token);
                return self.create_again(name, (stream, state, job), created, now);
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
        self.state.check_room(segments)?;
        if !self.state.scopes.contains_key(&name.scope) {
            self.add_scope(&name.scope, now);
        }
        let id = self.counters().next_stream();
        let stream = Stream { token, ..without_segments(id, name, segments, now) };
        self.state.streams.insert(id, stream);
        self.state.segments += u64::from(segments);
        let scope = self.state.scopes.get_mut(&name.scope).expect("it was added where missing");
        scope.streams.insert(name.stream.clone(), id);
        self.dirty.insert(Key::Stream(id));
        self.dirty.insert(Key::Epoch(id, StreamEpoch(0)));
        self.record_segments(id, SEGMENTS_PER_STEP);
        let job = self.start_job(id, JobKind::Create, now);
        Ok(Accepted::StreamCreated { stream: id, created: true, job: Some(job) })
    }

    /// Places and records up to `count` of the segments that the stream is to have and has not yet.
    pub(super) fn record_segments(&mut self, id: StreamId, count: u32) {
        let stream = &self.state.streams[&id];
        let (all, first) = (stream.segments_configured, stream.current.len() as u32);
        let count = count.min(stream.unrecorded() as u32);
        for (number, container) in (first..).zip(self.place_segments(count)) {
            let range = KeyRange::nth_tile(all, number);
            let (predecessors, successors) = (Vec::new(), Vec::new());
            let segment = Segment { range, container, predecessors, sealed: None, successors };
            let key = (StreamEpoch(0), SegmentNumber(number));
            let stream = self.state.streams.get_mut(&id).expect("it was looked up before");
            stream.segments.insert(key, segment);
            stream.current.push(key);
            stream.first.push(key);
            self.dirty.insert(Key::Segment(stream.segment_id(key)));
        }
    }

    fn create_again(
        &mut self,
        name: &ScopedStream,
        (stream, state, job): (StreamId, StreamState, Option<JobId>),
        created: bool,
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
        Ok(Accepted::StreamCreated { stream, created, job })
    }
}

fn without_segments(id: StreamId, name: &ScopedStream, segments: u32, now: WallTime) -> Stream {
    Stream {
        id,
        name: name.clone(),
        state: StreamState::Creating,
        segments_configured: segments,
        created: now,
        token: 0,
        job: None,
        epochs: vec![Epoch { number: StreamEpoch(0), created: now, sealed: Vec::new() }],
        segments: BTreeMap::new(),
        current: Vec::new(),
        first: Vec::new(),
        head_in_order: Vec::new(),
        head: BTreeMap::new(),
        head_is_ahead: false,
        leaving: VecDeque::new(),
        removed: BTreeMap::new(),
        writers: BTreeMap::new(),
        writer_names: BTreeMap::new(),
    }
}
