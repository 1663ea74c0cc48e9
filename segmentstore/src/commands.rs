//! The controller's commands to containers, in process.
//!
//! Each carries the fence of the controller that gives it and the job and step it is of; giving it
//! again, by the same controller or by its successor, is answered the same. Commands are let
//! through when the log is full: truncation and deletion are what frees it.

use common::{ContainerId, Fence, Offset, SegmentId, WriterEpoch, WriterId};
use proto::v1::Reason;
use replica::{Proposal, ProposeError};

use crate::container::ContainerMachine;
use crate::handle::{ContainerError, Containers};
use crate::identity::{AttributeUpdate, CommandId, SegmentIdentity, Successor};
use crate::limits::{ATTRIBUTE_VALUE_BYTES_MAX, ATTRIBUTES_MAX, NEIGHBOURS_MAX};
use crate::operation::{Command, Operation};
use crate::outcome::{Done, Outcome, Refusal};

/// Gives commands to the containers of this store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoreCommands {
    containers: Containers,
}

/// What the controller wants to know of a segment; linearizable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentStatus {
    pub start_offset: Offset,
    pub length: Offset,
    pub sealed: bool,
    /// Bytes that only the log holds.
    pub log_bytes: u64,
    /// Writers with an entry in the writer table.
    pub writers: u64,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Another controller leads: this one must stop giving commands.
    #[error("a newer controller, {newest}, gives commands; stop")]
    StaleFence { newest: Fence },
    #[error(transparent)]
    Refused(Refusal),
    /// Carried out or not; give the command again.
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error("{what}: {count} given, at most {max} are allowed")]
    TooMany { what: &'static str, count: usize, max: usize },
}

/// Whether giving a command again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prospect {
    /// Its turn comes, by itself.
    Soon,
    /// Once a person has looked after the container.
    AfterRepair,
    /// The command is what is wrong.
    Never,
}

impl CommandError {
    /// The stable reason on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            CommandError::StaleFence { .. } => Reason::StaleFence,
            CommandError::Refused(refusal) => refusal.reason(),
            CommandError::Container(error) => error.reason(),
            CommandError::TooMany { .. } => Reason::InvalidArgument,
        }
    }

    /// What whoever gave the command can expect of giving it again.
    pub fn prospect(&self) -> Prospect {
        match self {
            CommandError::Container(ContainerError::Propose(error)) => match error {
                ProposeError::TooLarge { .. } => Prospect::Never,
                ProposeError::Quarantined(_) => Prospect::AfterRepair,
                _ => Prospect::Soon,
            },
            _ => Prospect::Never,
        }
    }
}

impl StoreCommands {
    pub fn new(containers: Containers) -> Self {
        Self { containers }
    }

    /// Creates a segment; one that exists with the same identity is as good.
    pub async fn create(
        &self,
        container: ContainerId,
        id: CommandId,
        identity: SegmentIdentity,
    ) -> Result<(), CommandError> {
        at_most("predecessors", identity.predecessors.len(), NEIGHBOURS_MAX)?;
        self.give(container, id, Command::Create(Box::new(identity))).await.map(drop)
    }

    /// Ends a segment for ever and tells its length.
    pub async fn seal(
        &self,
        container: ContainerId,
        id: CommandId,
        segment: SegmentId,
        successors: Vec<Successor>,
    ) -> Result<Offset, CommandError> {
        at_most("successors", successors.len(), NEIGHBOURS_MAX)?;
        for successor in &successors {
            at_most("predecessors", successor.predecessors.len(), NEIGHBOURS_MAX)?;
        }
        match self.give(container, id, Command::Seal { segment, successors }).await? {
            Done::Sealed { length } => Ok(length),
            other => unreachable!("a seal was answered with {other:?}"),
        }
    }

    /// Drops the bytes below `offset` and tells the start offset, which may be higher.
    pub async fn truncate(
        &self,
        container: ContainerId,
        id: CommandId,
        segment: SegmentId,
        offset: Offset,
    ) -> Result<Offset, CommandError> {
        match self.give(container, id, Command::Truncate { segment, offset }).await? {
            Done::Truncated { start_offset } => Ok(start_offset),
            other => unreachable!("a truncation was answered with {other:?}"),
        }
    }

    /// Deletes a segment and leaves a tombstone.
    pub async fn delete(
        &self,
        container: ContainerId,
        id: CommandId,
        segment: SegmentId,
    ) -> Result<(), CommandError> {
        self.give(container, id, Command::Delete { segment }).await.map(drop)
    }

    /// Removes the tombstone of a deleted segment.
    pub async fn forget(
        &self,
        container: ContainerId,
        id: CommandId,
        segment: SegmentId,
    ) -> Result<(), CommandError> {
        self.give(container, id, Command::Forget { segment }).await.map(drop)
    }

    /// Has a segment, or the tombstone of one, forget a writer and refuse its epochs below `epoch`.
    pub async fn delete_writer(
        &self,
        container: ContainerId,
        id: CommandId,
        segment: SegmentId,
        writer: WriterId,
        epoch: WriterEpoch,
    ) -> Result<(), CommandError> {
        self.give(container, id, Command::DeleteWriter { segment, writer, epoch }).await.map(drop)
    }

    /// Changes attributes of a segment, all or none.
    pub async fn update_attributes(
        &self,
        container: ContainerId,
        id: CommandId,
        segment: SegmentId,
        updates: Vec<AttributeUpdate>,
    ) -> Result<(), CommandError> {
        at_most("attributes", updates.len(), ATTRIBUTES_MAX)?;
        for update in &updates {
            check_update(update)?;
        }
        self.give(container, id, Command::UpdateAttributes { segment, updates }).await.map(drop)
    }

    /// The highest fence under which a container was given a command.
    pub async fn fence(&self, container: ContainerId) -> Result<Fence, CommandError> {
        Ok(self.containers.ask(container, ContainerMachine::fence).await?)
    }

    /// What is known of segments now, in their order; `None` for those that are not (any more).
    pub async fn info(
        &self,
        container: ContainerId,
        segments: Vec<SegmentId>,
    ) -> Result<Vec<Option<SegmentStatus>>, CommandError> {
        let statuses = self.containers.ask(container, move |machine| {
            segments.iter().map(|segment| machine.view(*segment)).map(status).collect()
        });
        Ok(statuses.await?)
    }

    async fn give(
        &self,
        container: ContainerId,
        id: CommandId,
        command: Command,
    ) -> Result<Done, CommandError> {
        let header = Operation::Command(id, command).encode();
        let proposal = Proposal::new(header, bytes::Bytes::new()).exempt();
        match self.containers.submit(container, proposal).await? {
            Outcome::Done(done) => Ok(done),
            Outcome::Refused(refusal) => Err(match *refusal {
                Refusal::StaleFence { newest } => CommandError::StaleFence { newest },
                other => CommandError::Refused(other),
            }),
            other => unreachable!("a command was answered with {other:?}"),
        }
    }
}

fn status(view: Option<crate::SegmentView>) -> Option<SegmentStatus> {
    let view = view?;
    Some(SegmentStatus {
        start_offset: view.bounds.start,
        length: view.bounds.length,
        sealed: view.bounds.sealed,
        log_bytes: view.log_bytes,
        writers: view.writers as u64,
    })
}

fn check_update(update: &AttributeUpdate) -> Result<(), CommandError> {
    at_most("bytes of an attribute name", update.name.len(), common::limits::NAME_BYTES_MAX)?;
    let expected = match &update.expected {
        crate::Expected::Value(value) => value.len(),
        _ => 0,
    };
    let value = update.value.as_ref().map_or(0, bytes::Bytes::len);
    at_most("bytes of an attribute value", value.max(expected), ATTRIBUTE_VALUE_BYTES_MAX)
}

fn at_most(what: &'static str, count: usize, max: usize) -> Result<(), CommandError> {
    if count > max {
        return Err(CommandError::TooMany { what, count, max });
    }
    Ok(())
}
