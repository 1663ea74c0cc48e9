//! A job's plan: its phases, and the slice of a phase that is the next step.
//!
//! A job goes through the phases of its kind, and through the segments of a phase in slices, a step
//! each. Its record says in which phase it is and behind which segment the next slice begins, so
//! that finding the slice costs what the slice holds, however wide the stream is.

use std::collections::BTreeMap;
use std::ops::Bound;

use common::{StreamId, WallTime, WriterId};

use crate::machine::stream::{Segment, SegmentKey, Stream};

/// A running workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub stream: StreamId,
    pub kind: JobKind,
    /// Counts the job's steps: of the next one to carry out. Those before it are done for good.
    pub step: u32,
    /// What the next step is part of.
    pub phase: Phase,
    /// The last segment that the phase is done with; `None` at its beginning.
    pub after: Option<SegmentKey>,
    /// Segments per step, recorded so that another build derives the same steps.
    pub batch: u32,
    pub started: WallTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    Create,
    Seal,
    Truncate,
    Delete {
        seal_first: bool,
    },
    /// Of a named writer, whose record has the epoch that segments are told.
    DeleteWriter {
        writer: WriterId,
    },
}

/// What a step does to its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Make the newest epoch's segments. Each step's end records the segments of the next one.
    Create,
    /// Seal the newest epoch's segments.
    Seal,
    /// Truncate the segments of the head.
    Truncate,
    /// Delete the segments before the head. Each step's end takes its segments out of the stream.
    DeleteEarlier,
    /// Delete every segment of the stream.
    DeleteAll,
    /// Forget every segment that the stream ever had.
    Forget,
    /// Drop the stream's records: no store has to do with it.
    Drop,
    /// Have every segment that the stream ever had forget a writer.
    DeleteWriter,
}

impl JobKind {
    /// In order. Those that find nothing to do are passed over.
    pub(crate) const fn phases(self) -> &'static [Phase] {
        match self {
            Self::Create => &[Phase::Create],
            Self::DeleteWriter { .. } => &[Phase::DeleteWriter],
            Self::Seal => &[Phase::Seal],
            Self::Truncate => &[Phase::Truncate, Phase::DeleteEarlier],
            Self::Delete { seal_first: false } => &[Phase::DeleteAll, Phase::Forget, Phase::Drop],
            Self::Delete { seal_first: true } => {
                &[Phase::Seal, Phase::DeleteAll, Phase::Forget, Phase::Drop]
            }
        }
    }
}

impl Job {
    /// The segments of the next step.
    pub(crate) fn slice(&self, stream: &Stream) -> Vec<SegmentKey> {
        self.segments_left(stream).take(self.batch as usize).collect()
    }

    /// Whether nothing of the phase is left to do.
    pub(crate) fn phase_is_over(&self, stream: &Stream) -> bool {
        match self.phase {
            Phase::Drop => stream.is_bare(),
            _ => self.segments_left(stream).next().is_none(),
        }
    }

    /// The segments that the phase is not done with, in its order, found from where it stands.
    fn segments_left<'a>(&self, stream: &'a Stream) -> Box<dyn Iterator<Item = SegmentKey> + 'a> {
        let behind = (self.after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        match self.phase {
            Phase::Create | Phase::Seal => {
                let from = self.after.map_or(0, |after| stream.place_behind(after));
                Box::new(stream.current[from..].iter().copied())
            }
            Phase::Truncate => Box::new(stream.head.range(behind).map(|(key, _)| *key)),
            // They leave the stream with the step that deletes them.
            Phase::DeleteEarlier => Box::new(stream.leaving.iter().copied()),
            Phase::DeleteAll => Box::new(stream.segments.range(behind).map(|(key, _)| *key)),
            Phase::Forget | Phase::DeleteWriter => {
                Box::new(both(&stream.removed, &stream.segments, behind))
            }
            Phase::Drop => Box::new(std::iter::empty()),
        }
    }

    /// Goes to the first phase from `phase` on that has something to do. `false`: there is none.
    pub(crate) fn enter(&mut self, from: usize, stream: &Stream) -> bool {
        self.after = None;
        for phase in &self.kind.phases()[from..] {
            self.phase = *phase;
            if !self.phase_is_over(stream) {
                return true;
            }
        }
        false
    }

    /// The place of the job's phase among those of its kind.
    pub(crate) fn phase_number(&self) -> usize {
        let phases = self.kind.phases();
        phases
            .iter()
            .position(|phase| *phase == self.phase)
            .expect("a job is in a phase of its kind")
    }
}

impl Stream {
    /// The place in `current` of what follows `key` in the key space.
    fn place_behind(&self, key: SegmentKey) -> usize {
        let end = self.segments[&key].range.high();
        self.current.partition_point(|key| self.segments[key].range.low() <= end)
    }
}

/// The keys of two maps without a common one, in order.
pub(crate) fn both<'a>(
    one: &'a BTreeMap<SegmentKey, Segment>,
    other: &'a BTreeMap<SegmentKey, Segment>,
    range: (Bound<SegmentKey>, Bound<SegmentKey>),
) -> impl Iterator<Item = SegmentKey> + 'a {
    let mut one = one.range(range).map(|(key, _)| *key).peekable();
    let mut other = other.range(range).map(|(key, _)| *key).peekable();
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(a), Some(b)) if a < b => one.next(),
        (Some(_), None) => one.next(),
        _ => other.next(),
    })
}
