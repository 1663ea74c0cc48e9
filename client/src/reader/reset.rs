//! What a reader does where what it is to read next was truncated away.

use common::{Offset, SegmentId};

/// What to do where what is to be read next was truncated away: at the cut that reading begins at,
/// or while it is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnTruncated {
    /// Fail, with an error of kind [`ErrorKind::Conflict`](crate::ErrorKind::Conflict).
    #[default]
    Fail,
    /// Go on at the oldest event that is kept for the same keys, and tell what was skipped.
    Skip,
}

/// A part of a segment that a reader left out, because it was truncated away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The segment.
    pub segment: SegmentId,
    /// The first byte that was left out.
    pub from: Offset,
    /// Where reading went on; `None`: at the segments that follow this one.
    pub to: Option<Offset>,
}
