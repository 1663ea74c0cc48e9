//! A stream: its epochs, the graph of its segments, its head, its named writers.
//!
//! Every epoch's segments tile the key space exactly. An epoch is recorded as what it changed: the
//! segments created in it (their ids carry the epoch) and those of the epoch before that it sealed.
//! Predecessors are recorded with each segment; successors, the newest epoch's set and the writers
//! by id are indexes over the records and are not saved.

use std::collections::BTreeMap;

use common::{
    ContainerId, KeyRange, Offset, ScopedStream, SegmentId, SegmentNumber, StreamEpoch, StreamId,
    WallTime, WriterEpoch, WriterId, WriterName,
};

use crate::stores::JobId;

/// A segment within its stream.
pub type SegmentKey = (StreamEpoch, SegmentNumber);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamState {
    Creating,
    Active,
    Sealing,
    Sealed,
    Deleting,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub id: StreamId,
    pub name: ScopedStream,
    pub state: StreamState,
    /// Segments asked for at creation.
    pub segments_configured: u32,
    pub created: WallTime,
    /// The workflow that runs on it; one at a time.
    pub job: Option<JobId>,
    /// Oldest first, never empty.
    pub epochs: Vec<Epoch>,
    pub segments: BTreeMap<SegmentKey, Segment>,
    /// The newest epoch's segments in the order of the key space.
    pub current: Vec<SegmentKey>,
    /// Where the stream begins: one offset per segment, covering the key space. Empty: at the
    /// start of its first epoch.
    pub head: BTreeMap<SegmentKey, Offset>,
    /// The head has moved, and not everything before it is dropped yet.
    pub head_is_ahead: bool,
    /// Segments that were truncated away and are not forgotten by their containers, since their
    /// writers may ask for what they stored there.
    pub removed: BTreeMap<SegmentKey, Segment>,
    pub writers: BTreeMap<WriterName, Writer>,
    pub writer_names: BTreeMap<WriterId, WriterName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    pub number: StreamEpoch,
    pub created: WallTime,
    /// Segments of the epoch before that ended with this one; none in the first.
    pub sealed: Vec<SegmentKey>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub range: KeyRange,
    pub container: ContainerId,
    pub predecessors: Vec<SegmentKey>,
    /// The final length, once it is sealed.
    pub sealed: Option<Offset>,
    pub successors: Vec<SegmentKey>,
}

/// A writer that keeps its identity across process restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    pub id: WriterId,
    /// Raised at each registration.
    pub epoch: WriterEpoch,
    /// As first registered; 0: none was given then.
    pub source_fingerprint: u64,
    pub registered: WallTime,
}

impl Stream {
    pub fn segment_id(&self, (epoch, number): SegmentKey) -> SegmentId {
        SegmentId { stream: self.id, epoch, number }
    }

    pub fn segment(&self, key: SegmentKey) -> Option<&Segment> {
        self.segments.get(&key)
    }

    /// The segment, truncated away or not.
    pub fn known_segment(&self, key: SegmentKey) -> Option<&Segment> {
        self.segments.get(&key).or_else(|| self.removed.get(&key))
    }

    /// The segments of the first epoch, truncated away or not.
    pub fn first(&self) -> impl Iterator<Item = SegmentKey> + '_ {
        let known = self.removed.keys().chain(self.segments.keys());
        known.filter(|key| key.0 == StreamEpoch(0)).copied()
    }

    pub fn epoch(&self) -> StreamEpoch {
        self.epochs.last().expect("a stream has at least one epoch").number
    }

    /// The segments that take appends, in the order of the key space.
    pub fn active(&self) -> &[SegmentKey] {
        match self.state {
            StreamState::Active => &self.current,
            _ => &[],
        }
    }

    pub fn key_of(id: SegmentId) -> SegmentKey {
        (id.epoch, id.number)
    }

    /// Fills in what is not saved from what is.
    pub(super) fn index(&mut self) {
        let ended: std::collections::BTreeSet<_> =
            self.epochs.iter().flat_map(|epoch| &epoch.sealed).copied().collect();
        let current = self.segments.iter().filter(|(key, _)| !ended.contains(key));
        let mut current: Vec<_> = current.map(|(key, s)| (s.range, *key)).collect();
        current.sort_unstable();
        self.current = current.into_iter().map(|(_, key)| key).collect();

        let edges = self.removed.iter().chain(&self.segments).flat_map(|(key, s)| {
            s.predecessors.iter().map(|predecessor| (*predecessor, *key)).collect::<Vec<_>>()
        });
        for (predecessor, successor) in edges.collect::<Vec<_>>() {
            let live = self.segments.get_mut(&predecessor);
            if let Some(segment) = live.or_else(|| self.removed.get_mut(&predecessor)) {
                segment.successors.push(successor);
            }
        }
        let names = self.writers.iter().map(|(name, writer)| (writer.id, name.clone()));
        self.writer_names = names.collect();
    }
}
