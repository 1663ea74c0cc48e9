//! Brings a state back: the checkpoint into the state store and a machine, the rounds behind it
//! replayed, the result saved and flushed.
//!
//! It may be begun again at any moment: what a former attempt left in the store is cleared first,
//! and whatever is there says with its `applied` how far it counts.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use common::{GroupId, LogIndex, MonotonicTime};
use wal::Truncated;

use crate::archive::Basis;
use crate::group::apply::{Applier, LoadError};
use crate::kv::Changes;
use crate::machine::StateMachine;
use crate::restore::{Chain, RestoreFailure};
use crate::tiering::{Bring, StorageFailure, Workshop};

/// A state to be brought back to where the log begins, or further, as far as the log reaches.
pub(super) struct InstallJob<M: StateMachine> {
    pub(super) group: GroupId,
    /// An empty one.
    pub(super) machine: M,
    /// What to begin with; `None` where the log does not say.
    pub(super) basis: Option<Basis>,
    pub(super) truncated: Truncated,
    /// What of the log is known to be committed.
    pub(super) commit: LogIndex,
    pub(super) now: MonotonicTime,
}

/// What came of it.
pub(super) enum Installed<M: StateMachine> {
    /// Saved and flushed as it is here.
    Restored(Box<Applier<M>>),
    /// Nothing leads to where the log begins any more: it has to begin later.
    MovedTo(MovedTo),
    /// Trying again would come to the same.
    Broken(String),
}

/// The end of a committed round behind everything in the log that counts.
pub(super) struct MovedTo {
    pub(super) place: Truncated,
    pub(super) membership: Bytes,
    pub(super) basis: Basis,
}

impl<M: StateMachine> Bring for InstallJob<M> {
    fn bring(self: Box<Self>, workshop: &Workshop) -> Result<Box<dyn Any + Send>, StorageFailure> {
        let installed = match catch_unwind(AssertUnwindSafe(|| self.perform(workshop))) {
            Ok(Ok(installed)) => installed,
            Ok(Err(RestoreFailure::Storage(failure))) => return Err(failure),
            Ok(Err(RestoreFailure::Kv(error))) => return Err(StorageFailure::Kv(error)),
            Ok(Err(RestoreFailure::Replay(why))) => Installed::Broken(why),
            Ok(Err(other)) => return Err(StorageFailure::Damaged(other.to_string())),
            Err(panic) => {
                let text = crate::worker::panic_text(&*panic);
                Installed::Broken(format!("the install panicked: {text}"))
            }
        };
        Ok(Box::new(installed))
    }
}

impl<M: StateMachine> InstallJob<M> {
    fn perform(mut self, workshop: &Workshop) -> Result<Installed<M>, RestoreFailure> {
        if let Some(basis) = self.basis.take() {
            let named = Chain::named(&workshop.storage, &basis);
            match named.and_then(|chain| self.follow(&chain, workshop)) {
                // Newer objects have taken the place of those, or they are damaged.
                Err(RestoreFailure::Broken(why)) => {
                    tracing::info!(group = %self.group, why, "the bucket is looked through");
                }
                Ok(None) => {}
                Ok(Some(applier)) => return Ok(Installed::Restored(Box::new(applier))),
                Err(other) => return Err(other),
            }
        }
        let wanted = self.truncated.index;
        let chain = Chain::leading_to(&workshop.storage, self.group, None, wanted)?;
        if let Some(applier) = self.follow(&chain, workshop)? {
            return Ok(Installed::Restored(Box::new(applier)));
        }
        let (end, first) = (chain.end().0, LogIndex(self.truncated.index.0 + 1));
        let tip = chain.committed_tip().filter(|tip| {
            let place = Truncated { index: tip.last_index(), term: tip.last_term() };
            place.index > self.commit && !self.has(place, workshop)
        });
        let tip = tip.ok_or(RestoreFailure::Ends { end, first })?;
        Ok(Installed::MovedTo(MovedTo {
            place: Truncated { index: tip.last_index(), term: tip.last_term() },
            membership: tip.membership.clone(),
            basis: chain.basis(tip),
        }))
    }

    /// Whether the log goes through this place. Entries that were never committed may be in the way.
    fn has(&self, place: Truncated, workshop: &Workshop) -> bool {
        workshop.log.term(self.group, place.index).is_ok_and(|term| term == place.term)
    }

    /// The state to which the chain leads; `None` where it leads past the log, or not up to it.
    fn follow(
        &self,
        chain: &Chain,
        workshop: &Workshop,
    ) -> Result<Option<Applier<M>>, RestoreFailure> {
        let begins = chain.applied().index;
        let wanted = self.truncated.index.max(begins);
        let Some(term) = chain.term(wanted) else { return Ok(None) };
        if !self.has(Truncated { index: wanted, term }, workshop) {
            if wanted > self.commit {
                return Ok(None);
            }
            return Err(RestoreFailure::Replay(format!(
                "entry {wanted} is of term {term} in the bucket, and another one in the log, where \
                 it was committed"
            )));
        }
        let kv = &*workshop.kv;
        chain.load_state(&workshop.storage, kv)?;
        let saved = kv.applied(self.group)?;
        let restored = Applier::restored(self.group, self.machine.fresh(), kv, saved);
        let mut applier = restored.map_err(|error| match error {
            LoadError::Kv(error) => RestoreFailure::Kv(error),
            LoadError::Restore(error) => RestoreFailure::Replay(error.to_string()),
        })?;
        applier.archives = true;
        for header in chain.headers(applier.applied.index, wanted) {
            applier.replay(&header, self.now).map_err(RestoreFailure::Replay)?;
        }
        let at = applier.applied.index;
        if at != wanted {
            let why = format!("the rounds lead to entry {at}, not to {wanted}");
            return Err(RestoreFailure::Broken(why));
        }
        applier.machine.round_done();
        applier.unsaved = Default::default();
        let (machine, archive) = (applier.machine.freeze_whole(), applier.archive.freeze());
        kv.write(self.group, applier.applied, Changes { machine: &machine, archive: &archive })?;
        kv.flush()?;
        Ok(Some(applier))
    }
}
