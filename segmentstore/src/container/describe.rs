//! What a container's segments say of themselves: for whoever makes a cluster whole again.

use std::ops::Bound;

use common::{SegmentId, WallTime};

use super::ContainerMachine;
use crate::identity::{SegmentIdentity, Successor};
use crate::shared::Bounds;

/// Everything that a segment, or its tombstone, knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentDescription {
    pub identity: SegmentIdentity,
    pub bounds: Bounds,
    /// Of a sealed segment.
    pub successors: Option<Vec<Successor>>,
    /// When its newest bytes were stored.
    pub newest: Option<WallTime>,
}

impl ContainerMachine {
    /// The segments and tombstones behind `after`, in order, at most `count`.
    pub fn describe_after(
        &self,
        after: Option<SegmentId>,
        count: usize,
    ) -> Vec<SegmentDescription> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let segments = self.segments.range((from, Bound::Unbounded)).take(count);
        let describe = |(_, segment): (_, &super::segment::Segment)| SegmentDescription {
            identity: segment.identity.clone(),
            bounds: segment.shared.bounds(),
            successors: segment.record.successors.as_ref().map(|all| all.to_vec()),
            newest: segment.shared.lock().times.newest(),
        };
        segments.map(describe).collect()
    }
}
