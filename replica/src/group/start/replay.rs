//! A restored group whose log is replayed, and then runs.
//!
//! Entries come from outside, so that one pass over the log can serve many groups. Whatever is
//! wrong with them, be it a panic of the state machine, is remembered until the end: it stops this
//! group, and the others go on.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use common::{GroupId, Incarnation, LogIndex};
use wal::{GroupState, LogEntry, ReadError};

use super::{Opened, Starting};
use crate::archive::Housekeeping;
use crate::error::StartError;
use crate::group::Group;
use crate::group::apply::Applier;
use crate::handle::Shared;
use crate::machine::StateMachine;
use crate::storage::raft_entry;

/// What a restored group still is to become.
pub(crate) enum Restored<M: StateMachine> {
    /// Nothing: it is installed, or must not run.
    Opened(Opened),
    Replaying(Box<Replaying<M>>),
}

/// See the module.
pub(crate) struct Replaying<M: StateMachine> {
    starting: Starting,
    shared: Arc<Shared<M>>,
    applier: Applier<M>,
    found: GroupState,
    /// Up to where the log is known to be committed.
    commit: LogIndex,
    /// Up to where the state was saved.
    flushed: LogIndex,
    /// What a recovered group says first.
    recovered: Option<(Incarnation, Vec<Housekeeping>)>,
    failed: Option<Failed>,
}

/// Why a replay ended early.
enum Failed {
    /// The group must not run.
    Broken(String),
    Error(StartError),
}

impl Starting {
    /// Prepares the replay of a state that includes at least what the log has dropped.
    pub(super) fn replaying<M: StateMachine>(
        self,
        mut applier: Applier<M>,
        shared: Arc<Shared<M>>,
        found: GroupState,
        flushed: LogIndex,
    ) -> Result<Replaying<M>, StartError> {
        applier.machine.begin(found.last);
        let commit = found.hard_state.commit.max(applier.applied.index);
        if commit > found.last {
            let (group, last) = (self.spec.group, found.last);
            return Err(StartError::CommitMissing { group, commit, last });
        }
        let (starting, recovered, failed) = (self, None, None);
        Ok(Replaying { starting, shared, applier, found, commit, flushed, recovered, failed })
    }
}

impl<M: StateMachine> Replaying<M> {
    pub(super) fn says_first(mut self, incarnation: Incarnation, said: Vec<Housekeeping>) -> Self {
        self.recovered = Some((incarnation, said));
        self
    }

    /// The entries to be replayed.
    pub(crate) fn wanted(&self) -> (GroupId, Range<LogIndex>) {
        let next = LogIndex(self.applier.applied.index.0 + 1);
        (self.starting.spec.group, next..LogIndex(self.commit.0 + 1))
    }

    /// Applies the next of the entries, or notes why there are none.
    pub(crate) fn take(&mut self, entries: Result<Vec<LogEntry>, ReadError>) {
        if self.failed.is_some() {
            return;
        }
        let group = self.starting.spec.group;
        let now = self.starting.clock.monotonic();
        let applier = &mut self.applier;
        let mut replay = |entries: Vec<LogEntry>| {
            let apply = |entry| applier.apply(&raft_entry(entry), now);
            entries.into_iter().try_for_each(apply)?;
            applier.machine.round_done();
            Ok(())
        };
        self.failed = match entries {
            Err(source) => Some(Failed::Error(StartError::Read { group, source })),
            Ok(entries) => match catch_unwind(AssertUnwindSafe(|| replay(entries))) {
                Ok(replayed) => replayed.err().map(Failed::Broken),
                Err(panic) => {
                    let text = crate::worker::panic_text(&*panic);
                    Some(Failed::Broken(format!("replay panicked, which is a bug: {text}")))
                }
            },
        };
    }

    /// Replays without the company of others.
    pub(crate) fn replay_alone(&mut self) {
        let log = self.starting.log.clone();
        for (_, entries) in log.walk([self.wanted()]) {
            self.take(entries);
        }
    }

    /// The group that runs from now on, or the reason why it must not.
    pub(super) fn run(self) -> Result<Result<Box<Group<M>>, String>, StartError> {
        let Self { starting, shared, mut applier, found, commit, flushed, recovered, failed } =
            self;
        match failed {
            Some(Failed::Broken(reason)) => return Ok(Err(reason)),
            Some(Failed::Error(error)) => return Err(error),
            None => {}
        }
        let end = applier.applied.index;
        assert_eq!(end, commit, "the log was replayed up to entry {end} only");
        applier.outcomes.clear();
        let unsaid = match recovered {
            Some(_) => Vec::new(),
            None => starting.unsaid(&applier.archive, &found)?,
        };
        let mut group = starting.group(applier, shared, &found, commit, flushed)?;
        if let Some((incarnation, said)) = recovered {
            group.tiering.recovered(Some(incarnation), said, &group.applier.archive);
        } else if !unsaid.is_empty() {
            group.tiering.recovered(None, unsaid, &group.applier.archive);
        }
        Ok(Ok(Box::new(group)))
    }

    pub(crate) fn finish(self) -> Result<Opened, StartError> {
        let shared = self.shared.clone();
        Ok(match self.run()? {
            Ok(group) => Opened::Running(group),
            Err(reason) => Opened::quarantined(&shared, reason),
        })
    }
}
