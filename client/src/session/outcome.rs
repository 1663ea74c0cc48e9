//! What becomes of single events: acknowledged, waited for, or of unknown outcome.
//!
//! A segment that acknowledges nothing for too long is given up alone: its events, and later ones
//! for its keys, are of unknown outcome, and other segments go on.

use std::task::{Poll, Waker};
use std::time::Duration;

use common::{EventNumber, KeyPosition, MonotonicTime, SegmentId};

use super::WriterCore;
use super::segment::State;
use crate::error::{ClientError, Result};

/// Where an event is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Awaited {
    /// The segment that has it, as far as that was known the last time.
    index: usize,
    number: u64,
    position: KeyPosition,
}

impl Awaited {
    pub(crate) fn number(self) -> EventNumber {
        EventNumber(self.number)
    }
}

impl WriterCore {
    /// The event `number`, which was just taken, under its routing key.
    pub(crate) fn awaited(&self, key: Option<&str>, number: EventNumber) -> Awaited {
        let position = self.position(key, number.0);
        Awaited { index: self.router.find(position), number: number.0, position }
    }

    /// The segment that has the event, as far as is known now.
    pub(crate) fn segment_of(&self, event: &mut Awaited) -> SegmentId {
        self.follow(event);
        self.segments[event.index].place.segment
    }

    /// What became of an event; pending as long as that is not known.
    pub(crate) fn outcome(&self, event: &mut Awaited) -> Poll<Result<()>> {
        self.follow(event);
        let segment = &self.segments[event.index];
        if event.number <= segment.durable {
            return Poll::Ready(Ok(()));
        }
        let failed = segment.failure.as_ref().map(|(_, error)| error).or(self.failed.as_ref());
        failed.map_or(Poll::Pending, |error| Poll::Ready(Err(error.clone())))
    }

    /// Wakes `waker` when the outcome of an event that is pending may be known, or has to be looked
    /// for elsewhere.
    pub(crate) fn wake_at_outcome(&mut self, event: Awaited, waker: &Waker) {
        self.segments[event.index].waiters.add(event.number, waker);
    }

    /// What a sealed segment did not store went to the successor that owns the key.
    fn follow(&self, event: &mut Awaited) {
        loop {
            let segment = &self.segments[event.index];
            if event.number <= segment.durable {
                return;
            }
            let owns = |index: &&usize| self.segments[**index].place.range.contains(event.position);
            match segment.successors.iter().find(owns) {
                Some(successor) => event.index = *successor,
                None => return,
            }
        }
    }

    /// Those who waited for something that is known now.
    pub(crate) fn take_woken(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.woken)
    }

    /// Gives up the segments that have acknowledged nothing for `patience` although they should.
    /// False: the writer itself comes to no beginning.
    pub(crate) fn check_deadline(&mut self, now: MonotonicTime, patience: Duration) -> bool {
        if !self.resume.is_done() {
            let answered = |state| matches!(state, State::Open(_) | State::Sealed);
            let answered = self.segments.iter().filter(|s| answered(s.state)).count();
            let (before, since) = *self.opening.get_or_insert((answered, now));
            if before != answered {
                self.opening = Some((answered, now));
            }
            return before != answered || now.since(since) < patience;
        }
        for index in 0..self.segments.len() {
            let segment = &mut self.segments[index];
            if !segment.has_data() || segment.unproven {
                segment.stalled = None;
                continue;
            }
            let (durable, since) = *segment.stalled.get_or_insert((segment.durable, now));
            if durable != segment.durable {
                segment.stalled = Some((segment.durable, now));
            } else if now.since(since) >= patience {
                let error = ClientError::Stalled {
                    segment: segment.place.segment,
                    acknowledged: EventNumber(segment.durable),
                    patience,
                    trouble: self.trouble.clone().unwrap_or_else(|| "it does not answer".into()),
                };
                self.fail_segment(index, error);
            }
        }
        true
    }

    /// Gives a segment up: what it holds is of unknown outcome, and it takes no more.
    pub(super) fn fail_segment(&mut self, index: usize, error: ClientError) {
        self.leave_session(index);
        let segment = &mut self.segments[index];
        segment.close_block(false);
        let first = segment.queue.front().map_or(self.next_number, |block| block.first);
        segment.queue.clear();
        self.memory_used -= std::mem::take(&mut segment.bytes);
        segment.state = State::Failed;
        segment.failure = Some((first, error));
        self.woken.extend(segment.waiters.take_all());
        self.note_front(index);
    }

    pub(super) fn segment_failure(&self, index: usize) -> ClientError {
        let failure = self.segments[index].failure.as_ref();
        failure.map(|(_, error)| error.clone()).expect("a segment fails with a reason")
    }

    /// The first event that will never be acknowledged because its segment was given up, and why.
    pub(crate) fn first_failure(&self) -> Option<(EventNumber, &ClientError)> {
        let failures = self.segments.iter().filter_map(|segment| segment.failure.as_ref());
        let first = failures.min_by_key(|(number, _)| *number)?;
        Some((EventNumber(first.0), &first.1))
    }
}
