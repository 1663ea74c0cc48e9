//! What of the state is not saved yet, and what of that is frozen.
//!
//! A freeze only sets aside the list of parts that changed. Their values are copied later, a slice
//! at a time, and entries are applied in between: what is about to change a part that still waits
//! copies it first. That costs nothing while nothing is frozen, and one comparison for a part that
//! changed before in the same time between two freezes.

use std::collections::{BTreeSet, VecDeque};

use common::{SegmentId, WriterId};
use replica::{Change, Slice};

/// A record that is copied as a whole: a segment's own with what is not full of its chunks, or one
/// of its writers.
pub(super) type Part = (SegmentId, Option<WriterId>);

/// The time between two freezes. Whatever carries the present one as its mark is listed.
pub(crate) type Generation = u64;

/// The mark of what has not changed since it was made or restored.
pub(crate) const UNCHANGED: Generation = 0;

#[derive(Debug)]
pub(super) struct Unsaved {
    generation: Generation,
    /// Parts that changed since the last freeze.
    parts: BTreeSet<Part>,
    /// Chunks that became final since the last freeze.
    changes: Vec<Change>,
    frozen: Frozen,
}

/// In the order in which it is copied.
#[derive(Debug, Default)]
struct Frozen {
    /// Copied already.
    changes: VecDeque<Change>,
    parts: BTreeSet<Part>,
}

impl Default for Unsaved {
    fn default() -> Self {
        Self {
            generation: UNCHANGED + 1,
            parts: BTreeSet::new(),
            changes: Vec::new(),
            frozen: Frozen::default(),
        }
    }
}

impl Unsaved {
    /// Whether `mark` says that its part is listed already.
    pub(super) fn is_listed(&self, mark: Generation) -> bool {
        mark == self.generation
    }

    /// Lists a part that is about to change and gives its new mark. Whether it must be copied
    /// before, see [`Self::thaw`].
    pub(super) fn list(&mut self, part: Part) -> Generation {
        self.parts.insert(part);
        self.generation
    }

    /// Takes a part out of the frozen set; `true` where it was there: it must be copied now.
    #[must_use]
    pub(super) fn thaw(&mut self, part: Part) -> bool {
        !self.frozen.parts.is_empty() && self.frozen.parts.remove(&part)
    }

    /// Keeps a copy that was made before its time.
    pub(super) fn keep(&mut self, change: Change) {
        self.frozen.changes.push_back(change);
    }

    /// A part of a segment that still waits to be copied.
    pub(super) fn frozen_part_of(&self, segment: SegmentId) -> Option<Part> {
        let all = (segment, None)..=(segment, Some(WriterId(u128::MAX)));
        self.frozen.parts.range(all).next().copied()
    }

    /// A chunk that will not change any more.
    pub(super) fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub(super) fn freeze(&mut self) {
        let frozen = &self.frozen;
        assert!(
            frozen.changes.is_empty() && frozen.parts.is_empty(),
            "the set before was not copied whole"
        );
        self.frozen = Frozen {
            changes: std::mem::take(&mut self.changes).into(),
            parts: std::mem::take(&mut self.parts),
        };
        self.generation += 1;
    }

    /// Copies what is ready into `slice`; then the next part that is not.
    pub(super) fn next_frozen(&mut self, slice: &mut Slice) -> Option<Part> {
        while slice.has_room() {
            match self.frozen.changes.pop_front() {
                Some(change) => slice.push(change),
                None => return self.frozen.parts.pop_first(),
            }
        }
        None
    }

    pub(super) fn is_copied(&self) -> bool {
        self.frozen.changes.is_empty() && self.frozen.parts.is_empty()
    }
}
