//! `Close`: sessions that their writer needs no more, in one entry per writer and container.
//!
//! What was sent before on a slot is acknowledged first: the log keeps the order. A close that
//! cannot be proposed ends the session as any failure does; the writer's entry expires by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::limits::OPEN_SEGMENTS_MAX;
use common::{SegmentId, WriterId, WriterSession};
use proto::error::{Reason, status};
use proto::v1;
use tonic::Status;

use super::answers::not_proposed;
use super::{AppendConnection, State};
use crate::handle::ContainerHandle;
use crate::operation::{Close, Operation};

/// The slots of one writer in one container.
struct Closing {
    container: Arc<dyn ContainerHandle>,
    slots: Vec<u32>,
    segments: Vec<SegmentId>,
}

impl AppendConnection {
    pub(super) fn close(
        self: &Arc<Self>,
        state: &mut State,
        message: v1::CloseSessions,
    ) -> Result<(), Status> {
        let count = message.slots.len();
        if count == 0 || count > OPEN_SEGMENTS_MAX {
            let message = format!(
                "`slots` of a close message has {count} items; send 1 to {OPEN_SEGMENTS_MAX}"
            );
            return Err(status(Reason::InvalidArgument, message));
        }
        let mut closing: BTreeMap<(WriterId, WriterSession), Vec<Closing>> = BTreeMap::new();
        for slot in message.slots {
            let entry = state.slots.get_mut(slot);
            let Some((session, closing_before)) =
                entry.and_then(|entry| Some((entry.session.as_ref()?, &mut entry.closing)))
            else {
                state.answers.closed(slot);
                continue;
            };
            if std::mem::replace(closing_before, true) {
                continue;
            }
            let groups = closing.entry((session.writer, session.session)).or_default();
            let same = |group: &&mut Closing| Arc::ptr_eq(&group.container, &session.container);
            let group = match groups.iter_mut().find(same) {
                Some(group) => group,
                None => {
                    let container = session.container.clone();
                    let (slots, segments) = (Vec::new(), Vec::new());
                    groups.push(Closing { container, slots, segments });
                    groups.last_mut().expect("it was pushed just now")
                }
            };
            group.slots.push(slot);
            group.segments.push(session.segment);
        }
        for ((writer, session), groups) in closing {
            for Closing { container, slots, segments } in groups {
                let operation = Operation::Close(Close { writer, session, segments });
                if let Some(error) = self.propose_open(state, &container, operation, &slots) {
                    for slot in slots {
                        self.end_session(state, slot, not_proposed(slot, &error));
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn closed(state: &mut State, slots: Vec<u32>) {
        for slot in slots {
            if let Some(entry) = state.slots.get_mut(slot) {
                entry.session = None;
            }
            state.answers.closed(slot);
        }
    }
}
