//! Expiry of writers, in two stages: first the last number is forgotten, an hour later the session
//! number, too.
//!
//! The leader says which entries to look at, apply decides by the entry's up-time: an entry that
//! was used meanwhile stays. Up-time passes only while the container has a leader, so that nobody
//! expires because nobody served.

use std::collections::BTreeSet;

use common::{EventNumber, SegmentId, WriterId};

use super::ContainerMachine;
use super::writers::{Writer, WriterState};
use crate::outcome::Expired;

impl ContainerMachine {
    /// The entries that may be due at `up_micros`, at most `count`.
    pub fn due_writers(&self, up_micros: u64, count: usize) -> Vec<(SegmentId, WriterId)> {
        let due = self.due.iter().take_while(|(due, ..)| *due <= up_micros);
        due.take(count).map(|(_, segment, writer)| (*segment, *writer)).collect()
    }

    /// Up-time of the newest applied entry.
    pub fn up_micros(&self) -> u64 {
        self.up_micros
    }

    pub(super) fn expire(&mut self, writers: &[(SegmentId, WriterId)]) -> Expired {
        let mut expired = Expired::default();
        for (segment, writer) in writers {
            self.expire_writer(*segment, *writer, &mut expired);
        }
        expired
    }

    fn expire_writer(&mut self, id: SegmentId, writer: WriterId, expired: &mut Expired) {
        let Some(segment) = self.segments.get_mut(&id) else { return };
        let Some(known) = segment.writers.get(writer).copied() else { return };
        let is_due = known.due_micros() <= self.up_micros;
        if !is_due {
            if let Some(entry) = segment.writers.get_mut(writer) {
                schedule(&mut self.due, id, writer, Some(known), entry);
            }
            return;
        }
        let marks = &mut self.marks;
        marks.changes(segment);
        if known.is_expired() {
            self.due.remove(&(known.queued_micros, id, writer));
            marks.remove_writer(segment, writer);
            expired.removed += 1;
        } else if let Some(entry) = marks.writer(segment, writer) {
            entry.state = WriterState::Expired;
            entry.last = EventNumber::NONE;
            entry.used_micros = self.up_micros;
            schedule(&mut self.due, id, writer, Some(known), entry);
            expired.forgotten += 1;
        }
    }
}

/// Gives an entry its place in the queue of expiries.
pub(super) fn schedule(
    due: &mut BTreeSet<(u64, SegmentId, WriterId)>,
    segment: SegmentId,
    writer: WriterId,
    before: Option<Writer>,
    entry: &mut Writer,
) {
    if let Some(before) = before {
        due.remove(&(before.queued_micros, segment, writer));
    }
    entry.queued_micros = entry.due_micros();
    due.insert((entry.queued_micros, segment, writer));
}
