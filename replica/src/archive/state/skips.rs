//! New beginnings of the chain, behind entries that are lost.
//!
//! The checkpoint of a beginning is kept from then on, but of use only once the rounds behind the
//! hole have reached it. Until then what was before the hole is all that a recovery can come back
//! to, and nothing of it goes: what is dropped meanwhile is dropped behind that checkpoint, and so
//! stays until a newer one counts; and the log is not dropped beyond it ([`Archive::restorable_end`]).

use std::ops::RangeInclusive;

use common::LogIndex;

use super::{Archive, At, KeptCheckpoint, KeptSkip, Record, Refused};
use crate::archive::housekeeping::CommittedCheckpoint;
use crate::archive::skip::{Beginning, CommittedSkip};

impl Archive {
    /// Entries that were lost before they were archived, in order.
    pub fn lost(&self) -> impl Iterator<Item = RangeInclusive<LogIndex>> + '_ {
        self.skips.iter().map(|(last, skip)| skip.first..=*last)
    }

    /// Up to where the bucket alone brings the group back.
    pub(crate) fn restorable_end(&self) -> LogIndex {
        let mut end = self.end;
        for (last, skip) in self.skips.iter().rev() {
            // Only a round behind the hole names the checkpoint.
            if end > *last && end >= skip.checkpoint {
                break;
            }
            end = LogIndex(skip.first.0 - 1);
        }
        end
    }

    /// What the next round has to say of lost entries right before it.
    pub(crate) fn beginning(&self) -> Option<Beginning> {
        let (last, skip) = self.skips.last_key_value()?;
        let checkpoint = self.checkpoints.get(&skip.checkpoint)?;
        let begins =
            || Beginning { first_lost: skip.first, checkpoint: checkpoint.committed.reference };
        (*last == self.end).then(begins)
    }

    /// Goes on behind lost entries.
    pub(crate) fn skip(&mut self, skip: &CommittedSkip, at: At) -> Result<(), Refused> {
        let (first, last) = skip.lost.clone().into_inner();
        let checkpoint = &skip.checkpoint;
        let name = checkpoint.reference.name;
        let named_here = match skip.recovered {
            true => name.incarnation < self.incarnation,
            false => name.incarnation == self.incarnation && name.term == at.term,
        };
        if !named_here {
            return Err(Refused::OfAnotherTerm);
        }
        if first.0 != self.end.0 + 1 {
            return Err(Refused::NotTheNext);
        }
        if checkpoint.index < last || checkpoint.index >= at.index {
            return Err(Refused::NotReached);
        }
        if checkpoint.archived != self.end {
            return Err(Refused::BeforeSkip);
        }
        if checkpoint.index <= self.newest_checkpoint() {
            return Err(Refused::Older);
        }
        (self.end, self.end_term) = (last, skip.last_term);
        self.skips.insert(last, KeptSkip { first, checkpoint: checkpoint.index });
        let kept = KeptCheckpoint { committed: checkpoint.clone(), up_micros: at.stamp.up_micros };
        self.checkpoints.insert(checkpoint.index, kept);
        let records = [Record::Head, Record::Skip(last), Record::Checkpoint(checkpoint.index)];
        self.unsaved.extend(records);
        Ok(())
    }

    /// Whether a checkpoint is of a state that rounds before a hole would be needed for, which a
    /// walk from behind it does not come to.
    pub(super) fn is_before_a_skip(&self, checkpoint: &CommittedCheckpoint) -> bool {
        self.skips.values().any(|skip| checkpoint.archived.0 + 1 < skip.first.0)
    }
}
