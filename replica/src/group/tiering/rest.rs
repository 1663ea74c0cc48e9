//! The last checkpoint before a group comes to rest.
//!
//! An object may be deleted when the oldest checkpoint that is kept includes its end. Operations
//! are followed by a checkpoint anyway. But some that were applied while one was being made are not
//! in it, and housekeeping drops objects as well: a compaction those that it copied, a round those of
//! which nobody needs a byte any more. Where nothing else happens such objects would stay for ever,
//! so that they ask for one more checkpoint, as an operation does.
//!
//! What only checkpoints and footers of the past are asks for none, or there would be no end: each
//! one that comes drops one that was.

use common::{LogIndex, MonotonicTime};

use super::{Behind, Tiering};
use crate::archive::Archive;
use crate::tiering::JobKind;

impl Tiering {
    /// Whether a copy is being made, or does not count yet.
    pub(super) fn is_copying(&self) -> bool {
        self.uploaded.is_some() || self.under_way.contains_key(&JobKind::Checkpoint)
    }

    /// What the last copy was to cover lacks one still.
    pub(super) fn copy_again(&mut self) {
        self.since_checkpoint.and_before(self.in_checkpoint);
    }

    /// Housekeeping was applied at `index`: is there anything that only a copy of what is applied
    /// now lets go?
    pub(super) fn look_for_garbage(
        &mut self,
        archive: &Archive,
        index: LogIndex,
        now: MonotonicTime,
    ) {
        if self.is_copying() {
            return;
        }
        if !archive.lacks_checkpoint() {
            self.since_checkpoint = Behind::default();
        } else if self.since_checkpoint.since().is_none() {
            self.since_checkpoint.note(0, true, now);
            self.to_cover = index;
        }
    }

    /// Since when the state is to be saved although no operation asks for it; it is saved up to
    /// `flushed`.
    pub(in crate::group) fn save_wanted(&self, flushed: LogIndex) -> Option<MonotonicTime> {
        let since = self.since_checkpoint.since().or_else(|| self.holes.waits_since());
        since.filter(|_| flushed < self.to_cover)
    }
}
