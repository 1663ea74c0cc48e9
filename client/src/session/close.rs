//! The end of an anonymous writer: its sessions are closed, so that stores need not remember it.

use std::collections::BTreeMap;

use super::segment::State;
use super::{LinkId, WriterCore};

impl WriterCore {
    /// From now on takes no event: what is there is to become durable, and nothing to come behind it.
    pub(crate) fn take_no_more(&mut self) {
        self.ending = true;
    }

    /// The slots of the sessions to be closed, link by link; none of a named writer, which may be
    /// resumed. To be sent behind everything else, on the connections on which they are open.
    pub fn close_sessions(&mut self) -> BTreeMap<LinkId, Vec<u32>> {
        let mut slots: BTreeMap<LinkId, Vec<u32>> = BTreeMap::new();
        if self.identity.is_named() {
            return slots;
        }
        for segment in &self.segments {
            if let State::Open(slot) = segment.state {
                slots.entry(segment.link).or_default().push(slot);
                self.closing.insert((segment.link, slot));
            }
        }
        slots
    }

    /// Whether all sessions that were to be closed are, or their connections have ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closing.is_empty()
    }
}
