//! Going from sealed segments to their successors without ever overtaking.
//!
//! Every position of the key space has a linear history of segments. Whoever walks it (a writer, a
//! reader, a search for a moment) must be done with all segments that a successor took keys from
//! before it touches the successor. Two segments that share a key are ancestor and descendant, so
//! the rule needs no graph: a successor may start when nothing overlaps it that is still current,
//! or that waits itself and was created in an older epoch.

use std::collections::{BTreeMap, BTreeSet};

use common::{KeyRange, Offset, SegmentId};
use proto::convert::SegmentPlace;

/// Which segments are current, and which wait for others to finish.
#[derive(Debug, Clone, Default)]
pub(crate) struct Succession {
    current: BTreeMap<SegmentId, KeyRange>,
    held: BTreeMap<SegmentId, SegmentPlace>,
    /// Finished segments with a successor that is still held.
    waiting: BTreeMap<SegmentId, (KeyRange, Offset)>,
    seen: BTreeSet<SegmentId>,
}

impl Succession {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Makes `place` current without waiting for anything: where the walk begins.
    pub(crate) fn begin(&mut self, place: &SegmentPlace) {
        if self.seen.insert(place.segment) {
            self.current.insert(place.segment, place.range);
        }
    }

    /// `segment` is done with at `end`; gives the successors that may start now, which are current
    /// from here on.
    pub(crate) fn finish(
        &mut self,
        segment: SegmentId,
        end: Offset,
        successors: Vec<SegmentPlace>,
    ) -> Vec<SegmentPlace> {
        if let Some(range) = self.current.remove(&segment) {
            self.waiting.insert(segment, (range, end));
        }
        // One may be known to be finished before its turn: its successors wait in its place.
        self.held.remove(&segment);
        for successor in successors {
            if self.seen.insert(successor.segment) {
                self.held.insert(successor.segment, successor);
            }
        }
        let mut started = Vec::new();
        // In the order of ids, that is, of creation epochs within the stream.
        for (id, place) in std::mem::take(&mut self.held) {
            let mut older =
                self.current.values().copied().chain(self.held.values().map(|h| h.range));
            if older.any(|range| range.overlaps(place.range)) {
                self.held.insert(id, place);
            } else {
                self.current.insert(id, place.range);
                started.push(place);
            }
        }
        let held = &self.held;
        self.waiting.retain(|_, (range, _)| held.values().any(|h| h.range.overlaps(*range)));
        started
    }

    /// Finished segments that still stand for their keys, with their ends.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (SegmentId, Offset)> + '_ {
        self.waiting.iter().map(|(segment, (_, end))| (*segment, *end))
    }

    /// Whether a held segment waits for `segment`, which is current.
    pub(crate) fn is_blocking(&self, segment: SegmentId) -> bool {
        !self.held.is_empty() && self.blocking().any(|blocking| blocking == segment)
    }

    /// Segments that are current and overlap a held one: what the held ones wait for.
    pub(crate) fn blocking(&self) -> impl Iterator<Item = SegmentId> + '_ {
        let held = &self.held;
        let blocks = move |range: KeyRange| held.values().any(|h| h.range.overlaps(range));
        self.current.iter().filter(move |(_, range)| blocks(**range)).map(|(segment, _)| *segment)
    }
}

#[cfg(test)]
mod tests {
    use common::{ContainerId, SegmentNumber, StreamEpoch, StreamId};

    use super::*;

    fn place(epoch: u32, number: u32, low: u64, high: u64) -> SegmentPlace {
        SegmentPlace {
            segment: SegmentId {
                stream: StreamId(1),
                epoch: StreamEpoch(epoch),
                number: SegmentNumber(number),
            },
            range: KeyRange::new(low, high).unwrap(),
            container: ContainerId(2),
            endpoint: String::new(),
            predecessors: Vec::new(),
        }
    }

    #[test]
    fn the_successors_of_a_split_start_at_once() {
        let (old, a, b) = (place(0, 0, 0, 99), place(1, 1, 0, 49), place(1, 2, 50, 99));
        let mut walk = Succession::new();
        walk.begin(&old);
        let started = walk.finish(old.segment, Offset(7), vec![a.clone(), b.clone()]);
        assert_eq!(started, [a, b]);
        assert_eq!(walk.waiting().count(), 0);
    }

    #[test]
    fn the_successor_of_a_merge_waits_for_the_last_predecessor() {
        let (a, b, merged) = (place(0, 0, 0, 49), place(0, 1, 50, 99), place(1, 2, 0, 99));
        let mut walk = Succession::new();
        [&a, &b].into_iter().for_each(|place| walk.begin(place));
        assert_eq!(walk.finish(a.segment, Offset(7), vec![merged.clone()]), []);
        assert_eq!(walk.waiting().collect::<Vec<_>>(), [(a.segment, Offset(7))]);
        assert_eq!(walk.blocking().collect::<Vec<_>>(), [b.segment]);
        assert_eq!(walk.finish(b.segment, Offset(9), vec![merged.clone()]), [merged]);
        assert_eq!(walk.waiting().count(), 0);
    }

    #[test]
    fn a_successor_waits_behind_an_older_one_that_waits_itself() {
        let (a, b, c) = (place(0, 0, 0, 9), place(0, 1, 10, 19), place(0, 2, 20, 29));
        let (first, second) = (place(1, 3, 0, 19), place(2, 4, 10, 29));
        let mut walk = Succession::new();
        [&a, &b, &c].into_iter().for_each(|place| walk.begin(place));
        assert_eq!(walk.finish(b.segment, Offset(1), vec![first.clone()]), []);
        assert_eq!(walk.finish(c.segment, Offset(1), vec![second.clone()]), []);
        let started = walk.finish(a.segment, Offset(1), vec![first.clone()]);
        assert_eq!(started.iter().map(|place| place.segment).collect::<Vec<_>>(), [first.segment]);
        assert_eq!(walk.finish(first.segment, Offset(1), vec![second.clone()]), [second]);
    }

    #[test]
    fn a_merge_waits_for_predecessors_that_are_not_known_yet() {
        let (left, right) = (place(0, 0, 0, 49), place(0, 1, 50, 99));
        let (right_low, right_high) = (place(1, 2, 50, 74), place(1, 3, 75, 99));
        let merged = place(2, 4, 0, 74);
        let mut walk = Succession::new();
        [&left, &right].into_iter().for_each(|place| walk.begin(place));
        assert_eq!(walk.finish(left.segment, Offset(1), vec![merged.clone()]), []);
        let started =
            walk.finish(right.segment, Offset(2), vec![right_low.clone(), right_high.clone()]);
        assert_eq!(started, [right_low.clone(), right_high]);
        assert_eq!(walk.finish(right_low.segment, Offset(3), vec![merged.clone()]), [merged]);
    }
}
