//! Truncation: which cuts fit, and where the head goes.

use common::{CutCoverage, KeyRange, Offset, SegmentNumber, StreamEpoch, StreamId};
use rstest::rstest;

use super::refused;
use crate::machine::{ControllerMachine, SegmentKey};
use crate::operation::Operation;
use crate::outcome::{Accepted, CutProblem, Refusal};
use crate::testing::{FakeStores, apply, created, cut, machine, name, run_jobs, scale};

type Places<'a> = &'a [(u32, u32, u64)];

/// A stream that was split and merged: each segment's epoch, number and range in quarters.
///
/// ```text
/// epoch 0:  0 [0,2)        1 [2,4)
/// epoch 1:  2 [0,1)  3 [1,2)
/// epoch 2:           4 [1,4)          (3 and 1 merged)
/// ```
struct Scaled {
    machine: ControllerMachine,
    stores: FakeStores,
    id: StreamId,
}

fn quarters(low: u64, high: u64) -> KeyRange {
    const QUARTER: u64 = 1 << 62;
    KeyRange::new(low * QUARTER, (high - 1) * QUARTER + (QUARTER - 1)).unwrap()
}

fn key(epoch: u32, number: u32) -> SegmentKey {
    (StreamEpoch(epoch), SegmentNumber(number))
}

impl Scaled {
    fn new() -> Self {
        let (mut machine, stores) = (machine(), FakeStores::default());
        let id = created(&mut machine, &stores, "demo/hello", 2);
        for number in [0, 1] {
            stores.grow(machine.stream_by_id(id).unwrap().segment_id(key(0, number)), 100);
        }
        let mut scaled = Self { machine, stores, id };
        scaled.scale(&[key(0, 0)], &[quarters(0, 1), quarters(1, 2)], 2);
        scaled.scale(&[key(1, 3), key(0, 1)], &[quarters(1, 4)], 4);
        scaled
    }

    fn scale(&mut self, sealed: &[SegmentKey], ranges: &[KeyRange], first_number: u32) {
        let stores = Some(&self.stores);
        let made = scale(&mut self.machine, stores, self.id, sealed, ranges, first_number);
        for key in made {
            self.stores.grow(self.machine.stream_by_id(self.id).unwrap().segment_id(key), 100);
        }
    }

    fn operation(&self, places: Places<'_>) -> Operation {
        Operation::TruncateStream { stream: self.id, cut: cut(places) }
    }

    /// Truncates to the end of the job; `false`: there was nothing to do.
    fn truncate(&mut self, places: Places<'_>) -> bool {
        let operation = self.operation(places);
        let outcome = apply(&mut self.machine, &operation).unwrap();
        run_jobs(&mut self.machine, &self.stores);
        matches!(outcome, Accepted::Started { job: Some(_), .. })
    }

    fn head(&self) -> Vec<(u32, u32, u64)> {
        let head = self.machine.stream_by_id(self.id).unwrap().head_offsets();
        head.into_iter().map(|((epoch, number), offset)| (epoch.0, number.0, offset.0)).collect()
    }

    fn problem(&mut self, places: Places<'_>) -> CutProblem {
        let operation = self.operation(places);
        match refused(&mut self.machine, &operation) {
            Refusal::CutDoesNotFit { problem, .. } => problem,
            other => panic!("{other}"),
        }
    }
}

#[test]
fn the_graph_of_a_scaled_stream_is_right_both_ways() {
    let scaled = Scaled::new();
    let stream = scaled.machine.stream_by_id(scaled.id).unwrap();
    assert_eq!(stream.epoch(), StreamEpoch(2));
    assert_eq!(stream.current, [key(1, 2), key(2, 4)]);
    assert_eq!(stream.segments[&key(0, 0)].successors, [key(1, 2), key(1, 3)]);
    assert_eq!(stream.segments[&key(2, 4)].predecessors, [key(1, 3), key(0, 1)]);
    assert_eq!(stream.head_offsets(), [(key(0, 0), Offset(0)), (key(0, 1), Offset(0))]);
}

#[rstest]
#[case::empty(&[], CutProblem::Empty)]
#[case::a_gap_at_the_end(&[(0, 0, 1)], CutProblem::NotCovering("a gap"))]
#[case::a_gap_at_the_start(&[(0, 1, 1)], CutProblem::NotCovering("a gap"))]
#[case::a_gap_inside(&[(1, 2, 1), (0, 1, 1)], CutProblem::NotCovering("a gap"))]
#[case::an_overlap(&[(0, 0, 1), (1, 3, 1), (0, 1, 1)], CutProblem::NotCovering("an overlap"))]
#[case::everything_twice(&[(0, 0, 1), (1, 2, 1), (2, 4, 1)], CutProblem::NotCovering("an overlap"))]
fn a_cut_that_does_not_cover_the_key_space_is_refused(
    #[case] places: Places<'_>,
    #[case] expected: CutProblem,
) {
    assert_eq!(Scaled::new().problem(places), expected);
}

/// Where the ranges of keys are in quarters.
#[rstest]
#[case::exactly(&[(1, 2, 1)], (0, 1), Ok(()))]
#[case::a_part_of_a_segment(&[(0, 1, 1)], (3, 4), Ok(()))]
#[case::over_segments_that_reach_beyond(&[(1, 3, 1), (0, 1, 1)], (1, 3), Ok(()))]
#[case::a_gap_at_the_start(&[(0, 1, 1)], (1, 4), Err(CutProblem::NotCovering("a gap")))]
#[case::a_gap_at_the_end(&[(1, 3, 1)], (1, 3), Err(CutProblem::NotCovering("a gap")))]
#[case::a_foreign_key(&[(1, 2, 1), (1, 3, 1)], (1, 2), Err(CutProblem::NotCovering("a foreign key")))]
#[case::one_too_many(&[(1, 2, 1), (1, 3, 1)], (0, 1), Err(CutProblem::NotCovering("an overlap")))]
fn a_cut_of_a_key_range_covers_that_and_nothing_else(
    #[case] places: Places<'_>,
    #[case] (low, high): (u64, u64),
    #[case] expected: Result<(), CutProblem>,
) {
    let scaled = Scaled::new();
    let stream = scaled.machine.stream_by_id(scaled.id).unwrap();
    let covers = CutCoverage::Keys(quarters(low, high));
    assert_eq!(stream.check_cut(&cut(places), covers), expected);
}

#[test]
fn a_cut_of_some_segments_needs_no_others_and_truncates_nothing() {
    let scaled = Scaled::new();
    let stream = scaled.machine.stream_by_id(scaled.id).unwrap();
    let check = |places: Places<'_>| stream.check_cut(&cut(places), CutCoverage::Segments);
    assert_eq!(check(&[(0, 1, 5)]), Ok(()));
    assert_eq!(check(&[(1, 2, 5), (0, 1, 5)]), Ok(()));
    assert_eq!(check(&[]), Err(CutProblem::Empty));
    let (earlier, later) = (stream.segment_id(key(0, 0)), stream.segment_id(key(1, 3)));
    assert_eq!(check(&[(0, 0, 5), (1, 3, 5)]), Err(CutProblem::Ordered { earlier, later }));
    for covers in [CutCoverage::Segments, CutCoverage::Keys(KeyRange::ALL)] {
        let whole = cut(&[(0, 0, 5), (0, 1, 5)]);
        assert_eq!(stream.check_truncation(&whole, covers), Err(CutProblem::OfPart));
        assert_eq!(stream.check_cut(&whole, covers), Ok(()));
    }
}

#[test]
fn segments_that_follow_each_other_are_refused_where_the_earlier_one_was_truncated_away() {
    let mut scaled = Scaled::new();
    scaled.scale(&[key(1, 2), key(2, 4)], &[KeyRange::ALL], 5);
    scaled.scale(&[key(3, 5)], &[quarters(0, 1), quarters(1, 4)], 6);
    assert!(scaled.truncate(&[(3, 5, 50)]));
    let stream = scaled.machine.stream_by_id(scaled.id).unwrap();
    assert!(stream.segment(key(2, 4)).is_none(), "it was truncated away");
    let ordered = stream.check_cut(&cut(&[(4, 6, 0), (2, 4, 0)]), CutCoverage::Everything);
    assert!(matches!(ordered, Err(CutProblem::Ordered { .. })), "{ordered:?}");
    // Such segments alone are a place of old, but a place.
    let old = stream.check_cut(&cut(&[(1, 2, 0), (2, 4, 0)]), CutCoverage::Everything);
    assert_eq!(old, Ok(()));
}

#[test]
fn a_cut_with_a_foreign_doubled_or_ordered_segment_or_beyond_a_sealed_length_is_refused() {
    let mut scaled = Scaled::new();
    let id = |epoch: u32, number: u32| common::SegmentId {
        stream: scaled.id,
        epoch: epoch.into(),
        number: number.into(),
    };
    let (unknown, twice, sealed) = (id(0, 9), id(0, 0), id(0, 1));
    assert_eq!(scaled.problem(&[(0, 9, 0)]), CutProblem::Unknown(unknown));
    let doubled = scaled.problem(&[(0, 0, 0), (0, 0, 1), (0, 1, 0)]);
    assert_eq!(doubled, CutProblem::Twice(twice));
    let beyond = scaled.problem(&[(0, 0, 100), (0, 1, 101)]);
    let (offset, length) = (Offset(101), Offset(100));
    assert_eq!(beyond, CutProblem::BeyondLength { segment: sealed, offset, length });
}

#[test]
fn a_cut_whose_segments_follow_each_other_is_refused() {
    let mut scaled = Scaled::new();
    // 5 over [0,1) follows 4 over [1,4) through a merge of everything and a split.
    scaled.scale(&[key(1, 2), key(2, 4)], &[KeyRange::ALL], 5);
    scaled.scale(&[key(3, 5)], &[quarters(0, 1), quarters(1, 4)], 6);
    let problem = scaled.problem(&[(4, 6, 0), (2, 4, 0)]);
    let stream = scaled.machine.stream_by_id(scaled.id).unwrap();
    let (earlier, later) = (stream.segment_id(key(2, 4)), stream.segment_id(key(4, 6)));
    assert_eq!(problem, CutProblem::Ordered { earlier, later });
    assert!(problem.to_string().contains("4.#2"), "{problem}");
}

#[test]
fn the_head_moves_forward_and_what_lies_before_it_is_dropped() {
    let mut scaled = Scaled::new();
    assert!(!scaled.truncate(&[(0, 0, 0), (0, 1, 0)]), "the head is there already");
    assert!(scaled.truncate(&[(0, 0, 30), (0, 1, 60)]));
    assert_eq!(scaled.head(), [(0, 0, 30), (0, 1, 60)]);
    let start = |scaled: &Scaled, k| {
        let id = scaled.machine.stream_by_id(scaled.id).unwrap().segment_id(k);
        scaled.stores.segment(id).unwrap().start
    };
    assert_eq!((start(&scaled, key(0, 0)), start(&scaled, key(0, 1))), (Offset(30), Offset(60)));

    // Past the split, but not past the merge: the segment that was split is gone.
    assert!(scaled.truncate(&[(1, 2, 10), (1, 3, 20), (0, 1, 60)]));
    assert_eq!(scaled.head(), [(0, 1, 60), (1, 2, 10), (1, 3, 20)]);
    let stream = scaled.machine.stream_by_id(scaled.id).unwrap();
    assert!(stream.segment(key(0, 0)).is_none() && stream.removed.contains_key(&key(0, 0)));
    assert!(scaled.stores.segment(stream.segment_id(key(0, 0))).unwrap().deleted);

    assert!(scaled.truncate(&[(1, 2, 10), (2, 4, 0)]));
    assert_eq!(scaled.head(), [(1, 2, 10), (2, 4, 0)]);
    let stream = scaled.machine.stream_by_id(scaled.id).unwrap();
    assert_eq!((stream.segments.len(), stream.removed.len()), (2, 3));
}

#[test]
fn a_cut_below_the_head_changes_nothing_and_a_mixed_one_moves_where_it_is_later() {
    let mut scaled = Scaled::new();
    assert!(scaled.truncate(&[(1, 2, 50), (1, 3, 50), (0, 1, 50)]));
    assert!(!scaled.truncate(&[(1, 2, 49), (1, 3, 0), (0, 1, 50)]));
    // The first segment was truncated away: still a cut of this stream, only an old one.
    assert!(!scaled.truncate(&[(0, 0, 100), (0, 1, 10)]));
    assert_eq!(scaled.head(), [(0, 1, 50), (1, 2, 50), (1, 3, 50)]);
    assert!(scaled.truncate(&[(0, 0, 100), (0, 1, 70)]));
    assert_eq!(scaled.head(), [(0, 1, 70), (1, 2, 50), (1, 3, 50)]);
    assert!(scaled.truncate(&[(1, 2, 20), (2, 4, 5)]));
    assert_eq!(scaled.head(), [(1, 2, 50), (2, 4, 5)]);
}

#[test]
fn a_sealed_stream_can_be_truncated_to_its_end() {
    let mut scaled = Scaled::new();
    apply(&mut scaled.machine, &Operation::SealStream { stream: name("demo/hello") }).unwrap();
    run_jobs(&mut scaled.machine, &scaled.stores);
    assert!(matches!(scaled.problem(&[(1, 2, 100), (2, 4, 101)]), CutProblem::BeyondLength { .. }));
    assert!(scaled.truncate(&[(1, 2, 100), (2, 4, 100)]));
    assert_eq!(scaled.head(), [(1, 2, 100), (2, 4, 100)]);
}

#[test]
fn a_stream_that_was_scaled_and_truncated_is_deleted_to_the_last_tombstone() {
    let mut scaled = Scaled::new();
    scaled.truncate(&[(1, 2, 10), (1, 3, 20), (0, 1, 60)]);
    apply(&mut scaled.machine, &Operation::DeleteStream { stream: name("demo/hello") }).unwrap();
    run_jobs(&mut scaled.machine, &scaled.stores);
    assert!(scaled.stores.inner().segments.is_empty());
    assert!(scaled.machine.containers().values().all(|container| container.segments == 0));
}
