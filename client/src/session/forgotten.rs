//! A segment knows nothing of the writer (any more): as good as never having written there, or a
//! loss of what it acknowledged.
//!
//! Where the segment still has the writer's entry, an `Open` tells what is stored, and less than was
//! acknowledged is a loss, whatever else was appended since. Without an entry there is no number to
//! compare, and a segment that others have appended to is as long as it was. What tells then:
//!
//! - A trace of a writer is kept for ten seconds at least: to be without one sooner is a loss.
//! - What a named writer stored is forgotten with its name alone. The controller says whether the
//!   name is still this process's; if so, it is a loss, however much later.
//! - An anonymous writer that was away for longer may have been forgotten rightly, to make room for
//!   others. Only a segment that is shorter than it was gives a loss away; one that has grown again
//!   does not. To know it, the store would have to remember whom it has forgotten, which is what
//!   it has no room for.

use std::time::Duration;

use common::{EventNumber, MonotonicTime};

use super::WriterCore;
use super::segment::Sum;
use crate::error::ClientError;

/// A store keeps a trace of every writer for at least so long, whatever happens: one that has none
/// sooner has lost what it stored.
pub(crate) const TRACE_KEPT: Duration = Duration::from_secs(10);

/// Whether a segment lacks a named writer that it should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    None,
    /// It does. Answers of the controller that are on their way may be older than a deletion of the
    /// name.
    Noticed,
    /// The controller has been asked since then.
    AskedAbout,
}

impl Absence {
    pub(super) fn is_asked_about(&mut self) {
        if *self == Self::Noticed {
            *self = Self::AskedAbout;
        }
    }
}

impl WriterCore {
    /// The segment forgot the writer; `in_doubt`: with blocks of which it is not known whether they
    /// are stored.
    pub(super) fn on_forgotten(
        &mut self,
        index: usize,
        in_doubt: bool,
        without_a_trace: bool,
        now: MonotonicTime,
    ) {
        let is_named = self.identity.is_named();
        let segment = &mut self.segments[index];
        let acknowledged = EventNumber(segment.acknowledged);
        if without_a_trace && acknowledged > EventNumber::NONE {
            if self.boot_time.since(segment.last_used) < TRACE_KEPT {
                self.fail_lost(index, 0);
                return;
            }
            if is_named {
                if segment.absence == Absence::None {
                    segment.absence = Absence::Noticed;
                }
                self.relocate = true;
                self.pause(index, Duration::ZERO, now);
                return;
            }
        }
        if in_doubt {
            let error = ClientError::WriterExpired { segment: segment.place.segment, acknowledged };
            self.fail_segment(index, error);
            return;
        }
        segment.resuming = false;
        segment.acknowledged = 0;
        segment.acknowledged_sum = Sum::default();
        segment.must_be_long = without_a_trace;
        self.want_open(index);
    }

    pub(super) fn fail_lost(&mut self, index: usize, stored: u64) {
        let segment = &self.segments[index];
        self.fail(ClientError::DataLost {
            segment: segment.place.segment,
            acknowledged: EventNumber(segment.durable),
            stored: EventNumber(stored),
        });
    }
}
