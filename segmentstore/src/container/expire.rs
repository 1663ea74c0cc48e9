//! Expiry of writers, in two stages: first what was stored is forgotten, an hour later the session
//! number, too.
//!
//! The leader says which entries to look at, apply decides by the entry's up-time: an entry that
//! was used meanwhile stays. Up-time passes only while the container has a leader, so that nobody
//! expires because nobody served.

use common::{SegmentId, WriterId};

use super::ContainerMachine;
use super::close::forget;
use crate::outcome::Expired;

impl ContainerMachine {
    /// The writers of which something is to be forgotten at `up_micros`, at most `count`.
    pub fn due_writers(&self, up_micros: u64, count: usize) -> Vec<(SegmentId, WriterId)> {
        let due = self.marks.due.iter().take_while(|(due, _)| *due <= up_micros);
        let segments = due.filter_map(|(_, id)| Some((*id, self.segments.get(id)?)));
        let writers = segments.flat_map(|(id, segment)| {
            segment.writers.due_at(up_micros).map(move |writer| (id, writer))
        });
        writers.take(count).collect()
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
        let up_micros = self.up_micros;
        let marks = &mut self.marks;
        if let Some(entry) = segment.writers.get(writer) {
            if !entry.is_due(up_micros) {
                return;
            }
            let session = entry.session;
            marks.changes(segment);
            forget(segment, marks, writer, session, up_micros);
            expired.forgotten += 1;
        } else if segment.writers.is_stub_due(writer, up_micros) {
            marks.changes(segment);
            marks.remove_writer(segment, writer);
            expired.removed += 1;
        }
        marks.reschedule(id, &mut segment.writers);
    }
}
