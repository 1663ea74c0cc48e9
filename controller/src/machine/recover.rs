//! After a disaster recovery: what the containers have is right, and the records are brought in line
//! with it.
//!
//! The groups of a cluster end at different moments when they are brought back from long-term
//! storage. Containers win on length and seal. A stream that the records know nothing of, and never
//! did, is made again from what its segments say of themselves; one that was deleted stays deleted,
//! which ids tell, since they are counted and never given twice.
//!
//! What a container knows of a stream's end and the records do not is carried on, never undone:
//! whoever met the sealed or deleted segment was told that it is for ever. A segment that is deleted
//! deletes its stream. One that is sealed seals it, whether that was for a seal or for a deletion
//! that came no further: the events are kept, and a deletion can be asked for again. A segment that
//! begins later moves the head. A workflow that is under way begins anew, since what its steps did
//! may be lost in one container and not in another.

use std::collections::{BTreeMap, VecDeque};

use common::{Incarnation, KeyRange, Offset, ScopedStream, StreamEpoch, StreamId, WallTime};

use crate::machine::ControllerMachine;
use crate::machine::cluster::Cluster;
use crate::machine::job::JobKind;
use crate::machine::records::Key;
use crate::machine::stream::{Epoch, Segment, SegmentKey, Stream, StreamState};
use crate::operation::{AdoptedSegment, FoundSegment};
use crate::outcome::{Accepted, Outcome, Refusal};

impl ControllerMachine {
    /// Whether an id was given to a stream, be it that the stream is gone by now.
    pub fn knew_stream(&self, id: StreamId) -> bool {
        let gave = |cluster: &Cluster| {
            let passed_over = |(first, last): &(u64, u64)| (*first..=*last).contains(&id.counter());
            id.counter() <= cluster.streams_made && !cluster.passed_over.iter().any(passed_over)
        };
        self.state.streams.contains_key(&id) || self.state.cluster.as_ref().is_some_and(gave)
    }

    /// All streams, by id.
    pub fn all_streams(&self) -> &BTreeMap<StreamId, Stream> {
        &self.state.streams
    }

    /// Raises the incarnation, which leads all ids and fences from now on, and the counters above
    /// everything that was met.
    pub(super) fn recover(&mut self, incarnation: Incarnation, streams_made: u64) -> Outcome {
        self.initialized()?;
        let cluster = self.counters();
        if incarnation > cluster.incarnation {
            cluster.incarnation = incarnation;
            cluster.era = 0;
        }
        cluster.streams_made = cluster.streams_made.max(streams_made);
        Ok(Accepted::Recovered)
    }

    /// Makes a stream again from its segments. Where its name is taken, it gets another one.
    pub(super) fn adopt_stream(
        &mut self,
        id: StreamId,
        name: &ScopedStream,
        segments: &[AdoptedSegment],
        now: WallTime,
    ) -> Outcome {
        self.initialized()?;
        if self.state.streams.contains_key(&id) {
            return Ok(Accepted::Adopted { stream: id });
        }
        if self.stream(name).is_ok() {
            return Err(Refusal::NameTaken(name.clone()));
        }
        let mut stream = adopted(id, name, segments, now);
        stream.index();
        let ranges: Vec<_> = stream.current.iter().map(|key| stream.segments[key].range).collect();
        let known = |segment: &Segment| self.state.containers.contains_key(&segment.container);
        if !KeyRange::tiles(KeyRange::ALL, &ranges) || !stream.segments.values().all(known) {
            return Err(Refusal::CannotAdopt(name.clone()));
        }
        let ended = |key: &SegmentKey| stream.segments[key].sealed.is_some();
        if stream.current.iter().all(ended) {
            stream.state = StreamState::Sealed;
        }
        for segment in stream.segments.values() {
            self.count_segment(segment.container, 1);
        }
        self.state.segments += stream.segments.len() as u64;
        if !self.state.scopes.contains_key(&name.scope) {
            self.add_scope(&name.scope, now);
        }
        self.dirty.insert(Key::Stream(id));
        self.dirty.extend(stream.epochs.iter().map(|epoch| Key::Epoch(id, epoch.number)));
        self.dirty.extend(stream.segments.keys().map(|key| Key::Segment(stream.segment_id(*key))));
        let made = self.counters().streams_made.max(id.counter());
        self.counters().streams_made = made;
        self.state.streams.insert(id, stream);
        let scope = self.state.scopes.get_mut(&name.scope).expect("it was added where missing");
        scope.streams.insert(name.stream.clone(), id);
        Ok(Accepted::Adopted { stream: id })
    }

    /// Brings a stream's records in line with its segments. Does one thing at a time: changes
    /// records, or starts a job whose end has to be waited for before this is decided again.
    pub(super) fn reconcile_stream(
        &mut self,
        id: StreamId,
        found: &[FoundSegment],
        now: WallTime,
    ) -> Outcome {
        if let Some(job) = self.stream_by_id(id)?.job {
            self.begin_again(job);
            let clamped = self.clamp_seals(id, found) + self.clamp_head(id, found);
            return Ok(Accepted::Reconciled { stream: id, clamped });
        }
        match self.reconcile_places(id, found, now)? {
            Accepted::Reconciled { clamped: 0, .. } if self.has_ended(id, found) => {
                self.stream_mut(id).state = StreamState::Sealing;
                let job = self.start_job(id, JobKind::Seal, now);
                Ok(Accepted::Started { stream: id, job: Some(job) })
            }
            reconciled => Ok(reconciled),
        }
    }

    /// Whether a stream that is to take events has a segment that takes none for ever.
    fn has_ended(&self, id: StreamId, found: &[FoundSegment]) -> bool {
        let stream = &self.state.streams[&id];
        let mut found = found.iter().filter(|segment| segment.sealed && !segment.deleted);
        matches!(stream.state, StreamState::Active | StreamState::Sealing)
            && found.any(|segment| stream.current.contains(&segment.key))
    }

    /// A stream that lost a segment of its newest epoch to a deletion that is not in the records is
    /// deleted as a whole; of others, lengths and head are set to what is there.
    pub(super) fn reconcile_places(
        &mut self,
        id: StreamId,
        found: &[FoundSegment],
        now: WallTime,
    ) -> Outcome {
        let stream = self.stream_by_id(id)?;
        let gone =
            |segment: &FoundSegment| segment.deleted && stream.current.contains(&segment.key);
        if found.iter().any(gone) && stream.job.is_none() && stream.state != StreamState::Deleting {
            self.begin_deletion(id);
            let job = self.start_job(id, JobKind::Delete { seal_first: false }, now);
            return Ok(Accepted::Started { stream: id, job: Some(job) });
        }
        let clamped = self.clamp_seals(id, found) + self.clamp_head(id, found);
        Ok(Accepted::Reconciled { stream: id, clamped })
    }

    fn clamp_seals(&mut self, id: StreamId, found: &[FoundSegment]) -> u32 {
        let mut clamped = 0;
        for segment in found.iter().filter(|segment| !segment.deleted) {
            let stream = self.state.streams.get_mut(&id).expect("it was looked up before");
            let Some(record) = stream.segments.get_mut(&segment.key) else { continue };
            if record.sealed.is_some_and(|length| length != segment.length) {
                record.sealed = Some(segment.length);
                self.dirty.insert(Key::Segment(stream.segment_id(segment.key)));
                clamped += 1;
            }
        }
        clamped
    }

    fn clamp_head(&mut self, id: StreamId, found: &[FoundSegment]) -> u32 {
        let bounds: BTreeMap<SegmentKey, (Offset, Offset)> =
            found.iter().map(|s| (s.key, (s.start, s.length))).collect();
        let stream = &self.state.streams[&id];
        let old = stream.head_offsets();
        let clamp = |(key, offset): &(SegmentKey, Offset)| {
            let (start, length) = bounds.get(key).copied().unwrap_or((*offset, *offset));
            (*key, (*offset).max(start).min(length))
        };
        let new: Vec<_> = old.iter().map(clamp).collect();
        let clamped = old.iter().zip(&new).filter(|(old, new)| old != new).count();
        if clamped > 0 {
            let stream = self.stream_mut(id);
            stream.head = new.iter().copied().collect();
            stream.order_head();
            let keys = new.iter().map(|((epoch, number), _)| {
                Key::Head(common::SegmentId { stream: id, epoch: *epoch, number: *number })
            });
            self.dirty.extend(keys.collect::<Vec<_>>());
        }
        clamped as u32
    }
}

fn adopted(
    id: StreamId,
    name: &ScopedStream,
    segments: &[AdoptedSegment],
    now: WallTime,
) -> Stream {
    let mut epochs: BTreeMap<StreamEpoch, Vec<SegmentKey>> = BTreeMap::new();
    epochs.insert(StreamEpoch(0), Vec::new());
    for segment in segments {
        epochs.entry(segment.key.0).or_default().extend(&segment.predecessors);
    }
    let epoch = |(number, mut sealed): (StreamEpoch, Vec<SegmentKey>)| {
        sealed.sort_unstable();
        sealed.dedup();
        Epoch { number, created: now, sealed }
    };
    let record = |segment: &AdoptedSegment| {
        let AdoptedSegment { key, range, container, predecessors, sealed } = segment;
        let (range, container, sealed) = (*range, *container, *sealed);
        let (predecessors, successors) = (predecessors.clone(), Vec::new());
        (*key, Segment { range, container, predecessors, sealed, successors })
    };
    Stream {
        id,
        name: name.clone(),
        state: StreamState::Active,
        segments_configured: segments.iter().filter(|s| s.key.0 == StreamEpoch(0)).count() as u32,
        created: now,
        token: 0,
        job: None,
        epochs: epochs.into_iter().map(epoch).collect(),
        segments: segments.iter().map(record).collect(),
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
