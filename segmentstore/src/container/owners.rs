//! Whose the payload of log entries is: asked on the worker, answered off it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use common::{LogIndex, Offset};
use replica::{OwnedRun, Owners};

use crate::shared::SegmentShared;

/// Extents that are copied under a segment's lock at a time: its appends and readers wait for no
/// more than that.
const EXTENTS_AT_A_TIME: usize = 1_024;

/// The segments that had bytes in the log when it was asked.
#[derive(Debug)]
pub(super) struct LogOwners {
    pub(super) segments: Vec<Arc<SegmentShared>>,
}

impl Owners for LogOwners {
    /// A run is an extent, whole: apply adds all that an entry brings to a segment at once. The
    /// entries were applied before this was taken, so that meanwhile their extents only go.
    fn owned(self: Box<Self>, range: RangeInclusive<LogIndex>) -> Vec<OwnedRun> {
        let mut runs = Vec::new();
        for shared in &self.segments {
            put_runs(shared, &range, &mut runs);
        }
        runs.sort_unstable();
        runs
    }
}

fn put_runs(shared: &SegmentShared, range: &RangeInclusive<LogIndex>, runs: &mut Vec<OwnedRun>) {
    let owner = u128::from_be_bytes(shared.segment.encode());
    let mut from = Offset(0);
    loop {
        let before = runs.len();
        let state = shared.lock();
        for extent in state.extents_of(range, from, EXTENTS_AT_A_TIME) {
            let (index, start, bytes) = (extent.index, extent.start, extent.bytes);
            runs.push(OwnedRun { index, start, bytes, owner });
            from = extent.end();
        }
        if runs.len() - before < EXTENTS_AT_A_TIME {
            return;
        }
    }
}
