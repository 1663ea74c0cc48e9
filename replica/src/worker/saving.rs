//! Checkpoints one at a time, and one slice of its state a step: they are background work.
//!
//! One that finds the disk full is kept and tried again. Nothing hangs on it but how soon the log
//! can be truncated; the node goes on for as long as the log has room. A stop tries once more and
//! then leaves it: the log has everything.

use std::time::Duration;

use common::MonotonicTime;

use super::{Slot, Step, Worker};
use crate::error::HostFailure;
use crate::group::{CheckpointJob, Frozen, SaveError};
use crate::kv::KvError;

/// How long to wait for space at first; each time twice as long.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// What the one checkpoint does.
#[derive(Debug, Default)]
pub(super) enum Saving {
    #[default]
    Idle,
    /// On its way to the store; with the pause before it, if it waited for space.
    Running(Option<Duration>),
    /// The disk was full.
    Waiting { job: CheckpointJob, pause: Duration, again_at: MonotonicTime },
    /// There was no space at the stop.
    GivenUp,
}

impl Saving {
    /// Whether a stop has to wait for it.
    pub(super) fn is_pending(&self) -> bool {
        matches!(self, Self::Running(_) | Self::Waiting { .. })
    }

    /// A stop is the last chance.
    pub(super) fn hurry(&mut self) {
        if let Self::Waiting { again_at, .. } = self {
            *again_at = MonotonicTime::default();
        }
    }

    fn take_due(&mut self, now: MonotonicTime) -> Option<CheckpointJob> {
        match std::mem::take(self) {
            Self::Waiting { job, pause, again_at } if again_at <= now => {
                *self = Self::Running(Some(pause));
                Some(job)
            }
            other => {
                *self = other;
                None
            }
        }
    }
}

impl Worker {
    /// Hands out the checkpoint that is due, if none is on its way, once all of it is copied.
    pub(super) fn save(&mut self, now: MonotonicTime, step: &mut Step) {
        if let Some(job) = self.saving.take_due(now) {
            step.checkpoint = Some(job);
            return;
        }
        if !matches!(self.saving, Saving::Idle) {
            return;
        }
        let force = self.stopping && self.is_settled();
        let is_freezing =
            |slot: &mut Slot| slot.ask("a look", |member| member.is_freezing()) == Some(true);
        let first = self.members.iter_mut().position(is_freezing).unwrap_or(0);
        for slot in &mut self.members[first..] {
            match slot.ask("freezing its state", |member| member.checkpoint(now, force)) {
                None | Some(Frozen::NotDue) => {}
                Some(Frozen::More) => {
                    step.more = true;
                    break;
                }
                Some(Frozen::Whole(job)) => {
                    self.saving = Saving::Running(None);
                    step.checkpoint = Some(job);
                    break;
                }
            }
        }
    }

    pub(super) fn save_at(&mut self) -> Option<MonotonicTime> {
        match &self.saving {
            Saving::Idle => self.each("a look", |member| member.checkpoint_due()).flatten().min(),
            Saving::Waiting { again_at, .. } => Some(*again_at),
            Saving::Running(_) | Saving::GivenUp => None,
        }
    }

    /// Takes the result of a checkpoint. A store that failed, other than for lack of space, ends
    /// the node: it could only grow its log from then on. A panic is of the group whose state it was:
    /// the store takes a batch whole or not at all.
    pub fn checkpointed(
        &mut self,
        job: CheckpointJob,
        result: Result<(), SaveError>,
    ) -> Result<(), HostFailure> {
        let waited = match std::mem::take(&mut self.saving) {
            Saving::Running(waited) => waited,
            other => panic!("a checkpoint ended that was not running: {other:?}"),
        };
        match result {
            Ok(()) => {
                if waited.is_some() {
                    tracing::info!(group = %job.group, "the disk has space for checkpoints again");
                }
                self.with(job.group, "a checkpoint", |member| member.checkpointed(&job))
            }
            Err(SaveError::Kv(error)) if error.no_space => self.postpone(job, &error, waited),
            Err(SaveError::Kv(error)) => Err(error.into()),
            Err(panicked @ SaveError::Panicked(_)) => {
                self.quarantine(job.group, &panicked.to_string());
                Ok(())
            }
        }
    }

    fn postpone(
        &mut self,
        job: CheckpointJob,
        error: &KvError,
        waited: Option<Duration>,
    ) -> Result<(), HostFailure> {
        let group = job.group;
        if waited.is_none() {
            tracing::warn!(%group, %error, "no space for a checkpoint; it is tried again");
        }
        if self.stopping {
            self.saving = Saving::GivenUp;
        } else {
            let pause = waited.map_or(PAUSE, |pause| (2 * pause).min(PAUSE_MAX));
            let again_at = self.clock.monotonic().plus(pause);
            self.saving = Saving::Waiting { job, pause, again_at };
        }
        self.with(group, "a checkpoint", |member| {
            member.checkpoint_waits();
            Ok(())
        })
    }
}
