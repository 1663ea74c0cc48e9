//! What of a stream a reader wants.

use std::collections::BTreeSet;

use common::{CutCoverage, KeyRange, Offset, SegmentId, StreamCut};

use super::builder::EventReaderBuilder;
use crate::streams::{PlacedCut, SegmentPlace};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Scope {
    /// None: all.
    chosen: BTreeSet<SegmentId>,
    range: KeyRange,
    until: Option<PlacedCut>,
}

impl Scope {
    /// `chosen` segments, or all where there are none, as far as they own keys of `range`, up to
    /// `until`.
    pub(super) fn new(
        chosen: BTreeSet<SegmentId>,
        range: KeyRange,
        until: Option<PlacedCut>,
    ) -> Self {
        Self { chosen, range, until }
    }

    /// The same for a reader that begins at `cut`: what that covers, where nothing was asked for.
    /// `None` where more was.
    pub(super) fn within(mut self, cut: &StreamCut) -> Option<Self> {
        let asks_for_all = self.chosen.is_empty() && self.range == KeyRange::ALL;
        match cut.covers {
            CutCoverage::Everything => {}
            CutCoverage::Keys(range) if asks_for_all => self.range = range,
            CutCoverage::Segments if asks_for_all => {
                self.chosen = cut.segments().map(|(segment, _)| segment).collect();
            }
            _ if !self.is_covered_by(cut) => return None,
            _ => {}
        }
        Some(self)
    }

    /// Whether the end says where to end for everything that is read.
    pub(super) fn is_covered_by_its_end(&self) -> bool {
        self.until.as_ref().is_none_or(|until| self.is_covered_by(&until.cut))
    }

    fn is_covered_by(&self, cut: &StreamCut) -> bool {
        let names = |segment: &SegmentId| cut.get(*segment).is_some();
        match cut.covers {
            CutCoverage::Everything => true,
            CutCoverage::Keys(range) => {
                range.low() <= self.range.low() && self.range.high() <= range.high()
                    || !self.chosen.is_empty() && self.chosen.iter().all(names)
            }
            CutCoverage::Segments => !self.chosen.is_empty() && self.chosen.iter().all(names),
        }
    }

    /// What a cut of the reader's position covers.
    pub(super) fn coverage(&self) -> CutCoverage {
        match (self.chosen.is_empty(), self.range) {
            (false, _) => CutCoverage::Segments,
            (true, KeyRange::ALL) => CutCoverage::Everything,
            (true, range) => CutCoverage::Keys(range),
        }
    }

    /// A plan that asks for what this one found to be wanted.
    pub(super) fn asked_of(&self, plan: EventReaderBuilder) -> EventReaderBuilder {
        plan.segments(self.chosen.iter().copied().collect()).key_range(self.range)
    }

    /// Where reading ends.
    pub(super) const fn until(&self) -> Option<&PlacedCut> {
        self.until.as_ref()
    }

    /// Whether anything of the segment is wanted.
    pub(super) fn takes(&self, place: &SegmentPlace) -> bool {
        let chosen = self.chosen.is_empty() || self.chosen.contains(&place.segment);
        chosen && place.range.overlaps(self.range) && !self.is_beyond(place)
    }

    /// Where the segment is to be read up to, if it ends inside it.
    pub(super) fn end_of(&self, segment: SegmentId) -> Option<Offset> {
        self.until.as_ref().and_then(|until| until.cut.get(segment))
    }

    /// Whether what comes behind a segment is wanted, too.
    pub(super) fn follows(&self, segment: SegmentId) -> bool {
        self.chosen.is_empty() && self.end_of(segment).is_none()
    }

    /// Keys have a linear history: a segment that shares keys with an older one in which the
    /// reader ends comes behind that end.
    fn is_beyond(&self, place: &SegmentPlace) -> bool {
        let Some(until) = &self.until else { return false };
        let behind = |end: &SegmentPlace| {
            end.range.overlaps(place.range) && end.segment.epoch < place.segment.epoch
        };
        until.cut.get(place.segment).is_none() && until.places.iter().any(behind)
    }
}
