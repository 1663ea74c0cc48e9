//! Groups on their way into the worker: restored, replayed, running.
//!
//! Each step may be done anywhere, side by side with those of other groups. What stops a group here
//! stops that group alone wherever only it can be wrong ([`StartError::is_of_one_group`]).

use std::error::Error;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use common::{GroupId, LogIndex};
use wal::{LogEntry, ReadError};

use super::slot::{Slot, panic_text};
use crate::error::StartError;
use crate::group::{Opened, Replaying, Restored, Starting};
use crate::handle::Shared;
use crate::machine::StateMachine;

/// A group that is to be restored and replayed.
pub(crate) struct Opening<M: StateMachine> {
    starting: Starting,
    machine: M,
    shared: Arc<Shared<M>>,
}

/// One whose state is here, and whose log may be to be replayed.
pub(crate) struct RestoredGroup<M: StateMachine> {
    of: Of<M>,
    restored: Restored<M>,
}

/// One that runs from now on, or must not.
pub(crate) struct OpenedGroup<M: StateMachine> {
    slot: Slot,
    shared: Arc<Shared<M>>,
}

/// Whose start it is.
struct Of<M: StateMachine> {
    id: GroupId,
    shared: Arc<Shared<M>>,
    /// A recovery ends where anything is wrong.
    recovers: bool,
}

impl<M: StateMachine> Opening<M> {
    pub(super) fn new(starting: Starting, machine: M, shared: Arc<Shared<M>>) -> Self {
        Self { starting, machine, shared }
    }

    /// Restores, replays and starts it.
    pub(crate) fn open(self) -> Result<OpenedGroup<M>, StartError> {
        let mut restored = self.restore()?;
        if let Restored::Replaying(replaying) = &mut restored.restored {
            replaying.replay_alone();
        }
        restored.finish()
    }

    pub(crate) fn restore(self) -> Result<RestoredGroup<M>, StartError> {
        let Self { starting, machine, shared } = self;
        let (id, recovers) = (starting.spec.group, starting.spec.recover.is_some());
        let of = Of { id, shared, recovers };
        let shared = of.shared.clone();
        let restored = of.guard("restoring it", || starting.restore(machine, shared))?;
        Ok(match restored {
            Ok(restored) => RestoredGroup { of, restored },
            Err(quarantined) => RestoredGroup { of, restored: Restored::Opened(quarantined) },
        })
    }
}

impl<M: StateMachine> RestoredGroup<M> {
    pub(crate) fn id(&self) -> GroupId {
        self.of.id
    }

    /// The entries to be replayed.
    pub(crate) fn wanted(&self) -> Option<(GroupId, Range<LogIndex>)> {
        match &self.restored {
            Restored::Opened(_) => None,
            Restored::Replaying(replaying) => Some(replaying.wanted()),
        }
    }

    /// Applies the next of them, or notes why there are none.
    pub(crate) fn take(&mut self, entries: Result<Vec<LogEntry>, ReadError>) {
        if let Restored::Replaying(replaying) = &mut self.restored {
            replaying.take(entries);
        }
    }

    pub(crate) fn finish(self) -> Result<OpenedGroup<M>, StartError> {
        let Self { of, restored } = self;
        let opened = match restored {
            Restored::Opened(opened) => opened,
            Restored::Replaying(replaying) => {
                let started = of.guard("starting it", || Replaying::finish(*replaying))?;
                started.unwrap_or_else(|quarantined| quarantined)
            }
        };
        let member = match opened {
            Opened::Running(member) => Some(member),
            Opened::Quarantined => None,
        };
        Ok(OpenedGroup { slot: Slot::new(of.id, member), shared: of.shared })
    }
}

impl<M: StateMachine> OpenedGroup<M> {
    pub(super) fn into_parts(self) -> (Slot, Arc<Shared<M>>) {
        (self.slot, self.shared)
    }
}

impl<M: StateMachine> Of<M> {
    /// What comes of a part of the start, or the group quarantined where that part stops only it.
    fn guard<T>(
        &self,
        what: &str,
        part: impl FnOnce() -> Result<T, StartError>,
    ) -> Result<Result<T, Opened>, StartError> {
        let reason = match catch_unwind(AssertUnwindSafe(part)) {
            Ok(Ok(done)) => return Ok(Ok(done)),
            Ok(Err(error)) if self.recovers || !error.is_of_one_group() => return Err(error),
            Ok(Err(error)) => chain(&error),
            Err(panic) => {
                format!("{what} panicked, which is a bug: {}", panic_text(&*panic))
            }
        };
        Ok(Err(Opened::quarantined(&self.shared, reason)))
    }
}

/// An error with its sources, as one sentence.
fn chain(error: &dyn Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
