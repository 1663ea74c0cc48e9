//! Compaction: many small extents of a segment become one.
//!
//! What a round brings to a slow segment is a few bytes in an object that it shares with others:
//! over a day that is thousands of extents, which cost memory here and a request each to read. A
//! plan takes segments that have too many of them, side by side as they lie in shared objects, and
//! of each a run of its newest ones (see [`ReadState::scattered_run`]). What comes of it is taken
//! over only where everything is still as the plan found it.

use std::ops::Bound;

use common::{Offset, SegmentId};
use replica::{Compacted, CompactionPlan, Moved, Piece};

use super::segment::Segment;
use super::{ContainerMachine, Marks};
use crate::extent::ObjectExtent;

/// Pieces of a plan at most: a few megabytes of memory for whoever carries it out.
const PIECES_MAX: usize = 64 * 1024;

const _: () = assert!(ObjectExtent::BYTES_MAX as usize <= CompactionPlan::BYTES_MAX);

impl ContainerMachine {
    /// The plan after the last one: a segment that cannot be compacted, because an object is
    /// damaged, say, does not keep those behind it waiting.
    pub(super) fn plan(&self) -> Option<CompactionPlan> {
        let behind = match self.planned.get() {
            Some(last) => self.gather((Bound::Excluded(last), Bound::Unbounded)),
            None => None,
        };
        behind.or_else(|| self.gather((Bound::Unbounded, Bound::Unbounded)))
    }

    fn gather(&self, segments: (Bound<SegmentId>, Bound<SegmentId>)) -> Option<CompactionPlan> {
        let (mut plan, mut bytes) = (CompactionPlan::default(), 0);
        for id in self.marks.scattered.range(segments) {
            let room = PIECES_MAX - plan.pieces.len();
            let Some(segment) = self.segments.get(id).filter(|_| room > 1) else { break };
            let state = segment.shared.lock();
            let Some(run) = state.scattered_run(room) else { continue };
            let run = state.objects.items().range(run);
            let more: usize = run.clone().map(|extent| extent.bytes as usize).sum();
            if bytes + more > CompactionPlan::BYTES_MAX {
                break;
            }
            bytes += more;
            let owner = u128::from_be_bytes(id.encode());
            plan.pieces.extend(run.map(|extent| Piece {
                owner,
                position: extent.offset.0,
                rested: extent.rested,
                bytes: extent.bytes,
            }));
            self.planned.set(Some(*id));
        }
        (!plan.pieces.is_empty()).then_some(plan)
    }

    pub(super) fn compact(&mut self, compacted: &Compacted) {
        for moved in &compacted.moved {
            let id = SegmentId::decode(moved.owner.to_be_bytes());
            if let Some(segment) = self.segments.get_mut(&id) {
                take_over(segment, moved, &mut self.marks);
            }
        }
        self.marks.objects.all_taken(&compacted.objects);
    }
}

fn take_over(segment: &mut Segment, moved: &Moved, marks: &mut Marks) {
    marks.changes(segment);
    let id = segment.identity.segment;
    let shared = segment.shared.clone();
    let mut state = shared.lock();
    let Moved { position, bytes, rested, .. } = *moved;
    let whole = ObjectExtent { offset: Offset(position), bytes, rested };
    if state.put_together(whole, moved.pieces, |effect| marks.extents(id, effect)) {
        marks.has_other_objects(id, &state);
    }
}
