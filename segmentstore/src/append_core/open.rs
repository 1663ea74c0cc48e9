//! `Open`: one entry per container for all segments of a message.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::limits::OPEN_SEGMENTS_MAX;
use common::{ContainerId, SegmentId, WriterId, WriterSession};
use proto::convert::{FieldError, segment_id, writer_id};
use proto::error::{Reason, status};
use proto::v1;
use replica::{Proposal, ProposeError, Reply};
use tonic::Status;

use super::answers::{not_proposed, refused};
use super::slots::{Session, Tag};
use super::{AppendConnection, State};
use crate::handle::{ContainerError, ContainerHandle};
use crate::operation::{Open, OpenSegment, Operation};
use crate::outcome::{Outcome, Refusal};

/// The writer that a message opens sessions for.
struct Who {
    writer: WriterId,
    session: WriterSession,
    named: bool,
}

impl AppendConnection {
    pub(super) fn open(
        self: &Arc<Self>,
        state: &mut State,
        message: v1::OpenSessions,
    ) -> Result<(), Status> {
        let who = Who {
            writer: writer_id(&message.writer).map_err(|error| field(&error))?,
            session: message.session.ok_or_else(|| field(&FieldError::missing("session")))?.into(),
            named: message.named,
        };
        let count = message.segments.len();
        if count == 0 || count > OPEN_SEGMENTS_MAX {
            let message = format!(
                "`segments` of an open message has {count} items; send 1 to {OPEN_SEGMENTS_MAX}"
            );
            return Err(status(Reason::InvalidArgument, message));
        }
        let mut by_container: BTreeMap<ContainerId, Vec<(u32, OpenSegment)>> = BTreeMap::new();
        for open in message.segments {
            let segment = segment_id(open.segment).map_err(|error| field(&error))?;
            let container = ContainerId(open.container);
            self.add_slot(state, &who, open.slot, segment, container)?;
            let segment = OpenSegment { segment, resuming: open.resuming };
            by_container.entry(container).or_default().push((open.slot, segment));
        }
        for (container, segments) in by_container {
            self.open_in(state, &who, container, segments);
        }
        Ok(())
    }

    fn add_slot(
        &self,
        state: &mut State,
        who: &Who,
        slot: u32,
        segment: SegmentId,
        container: ContainerId,
    ) -> Result<(), Status> {
        let (writer, session) = (who.writer, who.session);
        let session = self.containers.get(container).ok().map(|container| Session {
            segment,
            writer,
            session,
            container: container.clone(),
        });
        state.slots.add(slot, session)
    }

    /// Proposes the `Open` for the segments of one container.
    fn open_in(
        self: &Arc<Self>,
        state: &mut State,
        who: &Who,
        container: ContainerId,
        segments: Vec<(u32, OpenSegment)>,
    ) {
        let (slots, segments): (Vec<u32>, Vec<OpenSegment>) = segments.into_iter().unzip();
        let refused = match self.containers.get(container) {
            Ok(handle) => {
                let &Who { writer, session, named } = who;
                let operation = Operation::Open(Open { writer, session, named, segments });
                self.propose_open(state, handle, operation, &slots)
            }
            Err(error) => Some(error),
        };
        if let Some(error) = refused {
            for slot in slots {
                self.end_session(state, slot, not_proposed(slot, &error));
            }
        }
    }

    pub(super) fn propose_open(
        self: &Arc<Self>,
        state: &mut State,
        handle: &Arc<dyn ContainerHandle>,
        operation: Operation,
        slots: &[u32],
    ) -> Option<ContainerError> {
        let open = state.slots.add_open(slots.to_vec());
        let reply = Reply::Sink { sink: self.clone(), tag: Tag::Open(open).number() };
        let proposal = Proposal::new(operation.encode(), bytes::Bytes::new()).reply(reply);
        let refused = handle.propose(proposal).err()?;
        state.slots.take_open(open);
        Some(refused.error.into())
    }

    /// The outcome of an `Open` or `Close` entry is known.
    pub(super) fn opened(
        &self,
        state: &mut State,
        open: u32,
        outcome: Result<Outcome, ProposeError>,
    ) {
        let Some(slots) = state.slots.take_open(open) else { return };
        let answers = match outcome {
            Ok(Outcome::Opened(answers)) => {
                assert_eq!(answers.len(), slots.len(), "an open answers for each of its segments");
                answers
            }
            Ok(Outcome::Closed) => return Self::closed(state, slots),
            Ok(other) => unreachable!("an open was answered with {other:?}"),
            Err(error) => {
                let error = ContainerError::Propose(error);
                for slot in slots {
                    self.end_session(state, slot, not_proposed(slot, &error));
                }
                return;
            }
        };
        for (slot, answer) in slots.into_iter().zip(answers) {
            match answer {
                Ok(opened) => state.answers.opened(slot, &opened),
                Err(refusal) => self.refuse(state, slot, &refusal),
            }
        }
    }

    pub(super) fn refuse(&self, state: &mut State, slot: u32, refusal: &Refusal) {
        self.end_session(state, slot, refused(slot, refusal));
    }

    /// Tells the client that a slot's session is over, once.
    pub(super) fn end_session(&self, state: &mut State, slot: u32, failure: v1::SessionFailure) {
        self.metrics.count_refused(failure.reason());
        if let Some(entry) = state.slots.get_mut(slot) {
            entry.session = None;
        }
        state.answers.fail(failure);
    }
}

fn field(error: &FieldError) -> Status {
    status(Reason::InvalidArgument, format!("open message: {error}"))
}
