//! Which container takes a new segment: the one with the fewest, the lowest number among equals.
//!
//! The choice is made once, in apply, and recorded with the segment: no hash of names, no number
//! of containers fixed for life.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use common::ContainerId;

use crate::machine::ControllerMachine;

impl ControllerMachine {
    /// Containers for `count` new segments in order. Counts them there at once.
    ///
    /// Panics when there is no container: the caller refuses the operation before.
    pub(super) fn place_segments(&mut self, count: u32) -> Vec<ContainerId> {
        let containers = &mut self.state.containers;
        let mut fewest: BinaryHeap<_> =
            containers.iter().map(|(id, c)| Reverse((c.segments, *id))).collect();
        let placed: Vec<_> = (0..count)
            .map(|_| {
                let mut top = fewest.peek_mut().expect("segments are placed in some container");
                let container = top.0.1;
                top.0.0 += 1;
                container
            })
            .collect();
        for container in &placed {
            self.count_segment(*container, 1);
        }
        placed
    }

    pub(super) fn count_segment(&mut self, container: ContainerId, change: i64) {
        let container = self.state.containers.get_mut(&container);
        let count = &mut container.expect("a segment's container is known").segments;
        *count =
            count.checked_add_signed(change).expect("no container holds fewer than 0 segments");
    }
}
