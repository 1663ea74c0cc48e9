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
    /// Segments that were truncated away and are not forgotten by their containers.
    pub removed: BTreeMap<SegmentKey, Removed>,
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    pub range: KeyRange,
    pub container: ContainerId,
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

        let edges = self.segments.iter().flat_map(|(key, s)| {
            s.predecessors.iter().map(|predecessor| (*predecessor, *key)).collect::<Vec<_>>()
        });
        for (predecessor, successor) in edges.collect::<Vec<_>>() {
            if let Some(segment) = self.segments.get_mut(&predecessor) {
                segment.successors.push(successor);
            }
        }
        let names = self.writers.iter().map(|(name, writer)| (writer.id, name.clone()));
        self.writer_names = names.collect();
    }
}
