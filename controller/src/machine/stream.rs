//! A stream: its epochs, the graph of its segments, its head, its named writers.
//!
//! Every epoch's segments tile the key space exactly. An epoch is recorded as what it changed: the
//! segments created in it (their ids carry the epoch) and those of the epoch before that it sealed.
//! Predecessors are recorded with each segment; successors, the newest epoch's set and the writers
//! by id are indexes over the records and are not saved.
//!
//! A wide stream is recorded in slices while it is made, and dropped in slices when it is deleted:
//! only in between do its segments tile the key space.

use std::collections::{BTreeMap, VecDeque};

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
    /// Of the request that created it; 0: it had none.
    pub token: u64,
    /// The workflow that runs on it; one at a time.
    pub job: Option<JobId>,
    /// Oldest first, never empty.
    pub epochs: Vec<Epoch>,
    pub segments: BTreeMap<SegmentKey, Segment>,
    /// The newest epoch's segments in the order of the key space. While the stream is being made,
    /// those that are recorded so far.
    pub current: Vec<SegmentKey>,
    /// The segments of the first epoch, truncated away or not, in the order of the key space. An
    /// index; none once the stream is being deleted.
    pub first: Vec<SegmentKey>,
    /// Where the stream begins: one offset per segment, covering the key space. Empty: at the
    /// start of its first epoch.
    pub head: BTreeMap<SegmentKey, Offset>,
    /// The segments of `head` in the order of the key space. An index, like `first`.
    pub head_in_order: Vec<SegmentKey>,
    /// The head has moved, and not everything before it is dropped yet.
    pub head_is_ahead: bool,
    /// While a truncation runs: the segments wholly before the head that are still to be deleted,
    /// in order. An index, found once.
    pub leaving: VecDeque<SegmentKey>,
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
    /// Raised at each registration, and once more when the name is deleted.
    pub epoch: WriterEpoch,
    pub mode: WriterMode,
    /// When it was registered last.
    pub registered: WallTime,
    /// The name is being deleted, or its deletion was given up and must be asked for again.
    pub deleting: bool,
}

/// What the event numbers of a named writer mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriterMode {
    /// The n-th event of its source is always the same event.
    Replay,
    /// Numbers go on behind the highest that is stored.
    Continue,
}

impl WriterMode {
    /// In saved records and in the log.
    pub(crate) const fn ordinal(self) -> u8 {
        match self {
            Self::Replay => 1,
            Self::Continue => 2,
        }
    }

    pub(crate) const fn of_ordinal(ordinal: u8) -> Option<Self> {
        match ordinal {
            1 => Some(Self::Replay),
            2 => Some(Self::Continue),
            _ => None,
        }
    }
}

impl std::fmt::Display for WriterMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Replay => "replay",
            Self::Continue => "continue",
        })
    }
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

    /// The segments at which reading from the head begins, in the order of the key space.
    pub fn head_segments(&self) -> &[SegmentKey] {
        if self.head.is_empty() { &self.first } else { &self.head_in_order }
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

    /// Whether it was created by the request that has this token, sent before.
    pub fn was_created_with(&self, token: u64) -> bool {
        token != 0 && self.token == token
    }

    /// How many segments take, or will take, the stream's events: also while they are being made.
    pub fn width(&self) -> usize {
        self.current.len() + self.unrecorded()
    }

    /// Segments that were asked for and are not recorded yet.
    pub(super) fn unrecorded(&self) -> usize {
        match self.state {
            StreamState::Creating => self.segments_configured as usize - self.current.len(),
            _ => 0,
        }
    }

    /// Whether nothing is left of the stream but its own record and its last epoch's.
    pub(super) fn is_bare(&self) -> bool {
        let segments = self.segments.is_empty() && self.removed.is_empty();
        segments && self.head.is_empty() && self.writers.is_empty() && self.epochs.len() <= 1
    }

    pub fn key_of(id: SegmentId) -> SegmentKey {
        (id.epoch, id.number)
    }

    pub(super) fn order_head(&mut self) {
        self.head_in_order = self.in_order(self.head.keys().copied().collect());
    }

    /// Segments in the order of the key space.
    pub fn in_order(&self, mut keys: Vec<SegmentKey>) -> Vec<SegmentKey> {
        keys.sort_by_cached_key(|key| (self.known_segment(*key).map(|s| s.range), *key));
        keys
    }

    /// Fills in what is not saved from what is.
    pub(super) fn index(&mut self) {
        let ended: std::collections::BTreeSet<_> =
            self.epochs.iter().flat_map(|epoch| &epoch.sealed).copied().collect();
        let current = self.segments.iter().filter(|(key, _)| !ended.contains(key));
        let mut current: Vec<_> = current.map(|(key, s)| (s.range, *key)).collect();
        current.sort_unstable();
        self.current = current.into_iter().map(|(_, key)| key).collect();
        if self.state != StreamState::Deleting {
            let known = self.removed.keys().chain(self.segments.keys());
            let first = known.filter(|key| key.0 == StreamEpoch(0)).copied().collect();
            self.first = self.in_order(first);
            self.order_head();
        }

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
