//! Where a stream begins, and what lies before that.

use std::collections::{BTreeSet, VecDeque};

use common::{Offset, StreamEpoch};

use crate::machine::stream::{Segment, SegmentKey, Stream};

impl Stream {
    /// The segments at which reading from the head begins, with their first readable offsets.
    pub fn head_offsets(&self) -> Vec<(SegmentKey, Offset)> {
        if self.head.is_empty() {
            // Nothing was truncated: the first epoch is whole.
            let first = self.segments.keys().take_while(|key| key.0 == StreamEpoch(0));
            return first.map(|key| (*key, Offset::ZERO)).collect();
        }
        self.head.iter().map(|(key, offset)| (*key, *offset)).collect()
    }

    /// The segments that lie wholly before the head, in order.
    pub(super) fn before_head(&self) -> VecDeque<SegmentKey> {
        if self.epochs.len() == 1 {
            // Nothing precedes a segment of the first epoch.
            return VecDeque::new();
        }
        let mut found = BTreeSet::new();
        self.ancestors_of(self.head.keys().copied(), Stream::segment, &mut |ancestor| {
            found.insert(ancestor);
            true
        });
        found.into_iter().collect()
    }

    /// Walks everything that the segments of `start` took their keys from, near or far, each once,
    /// until `visit` answers false. `find` says whether what was truncated away is among them.
    pub(super) fn ancestors_of(
        &self,
        start: impl Iterator<Item = SegmentKey>,
        find: fn(&Stream, SegmentKey) -> Option<&Segment>,
        visit: &mut dyn FnMut(SegmentKey) -> bool,
    ) {
        let mut seen = BTreeSet::new();
        let mut open: Vec<SegmentKey> = start.collect();
        while let Some(key) = open.pop() {
            let Some(segment) = find(self, key) else { continue };
            for predecessor in &segment.predecessors {
                if find(self, *predecessor).is_none() || !seen.insert(*predecessor) {
                    continue;
                }
                if !visit(*predecessor) {
                    return;
                }
                open.push(*predecessor);
            }
        }
    }
}
