//! Chains that begin anew behind entries that are lost.

use common::LogIndex;

use super::{Chain, Listing, RestoreFailure, broken, checkpoint, named, present, read};
use crate::archive::{
    Beginning, Checkpoint, CommittedCheckpoint, CommittedRound, CommittedSkip, Footer, Housekeeping,
};
use crate::resting::Tiered;
use crate::tiering::Storage;

/// What came of a look for the checkpoint that a round begins with.
pub(super) enum Begun {
    Yes,
    /// The chain ends before it.
    Unreached(String),
}

impl Chain {
    /// Whether the oldest round so far is a new beginning.
    pub(super) fn begins_anew(&self) -> Option<Beginning> {
        self.footers.last().expect("the tip was pushed").begins
    }

    /// Begins with the checkpoint that the oldest round so far names.
    pub(super) fn begin(
        &mut self,
        beginning: Beginning,
        storage: &Storage,
        listing: &Listing,
    ) -> Result<Begun, RestoreFailure> {
        let reference = beginning.checkpoint;
        present(listing, &reference).map_err(RestoreFailure::Broken)?;
        let bytes = read(storage, reference.name, reference.length.into()).map_err(named::gone)?;
        let found = Checkpoint::decode(reference.name, &bytes).map_err(broken)?;
        let committed = CommittedCheckpoint {
            reference,
            index: found.index(),
            archived: LogIndex(beginning.first_lost.0 - 1),
            chunks: found.chunks.iter().map(|chunk| chunk.object).collect(),
            keep_micros: 0,
        };
        let end = self.footers[0].last_index();
        if committed.index > end {
            return Ok(Begun::Unreached(format!(
                "the rounds behind entries {} to {}, which are lost, end at entry {end}: they are of \
                 use only with the checkpoint of entry {}",
                beginning.first_lost,
                self.before_oldest(),
                committed.index
            )));
        }
        let found = checkpoint(storage, listing, &committed)?;
        self.checkpoint = Some((committed, found));
        Ok(Begun::Yes)
    }

    /// Why nothing leads across lost entries.
    pub(super) fn lost_before(&self, beginning: Beginning) -> RestoreFailure {
        RestoreFailure::Broken(format!(
            "entries {} to {} were given up by a repair, and no checkpoint behind them is whole",
            beginning.first_lost,
            self.before_oldest()
        ))
    }

    fn before_oldest(&self) -> LogIndex {
        let oldest = self.footers.last().expect("the tip was pushed");
        LogIndex(oldest.range().start().0 - 1)
    }

    /// What rounds behind `archived` say, as a recovery takes it over.
    pub(crate) fn said_behind(&self, archived: LogIndex) -> Vec<Housekeeping> {
        let mut said = Vec::new();
        for footer in self.footers.iter().filter(|footer| footer.last_index() > archived) {
            said.extend(self.skip_before(footer, archived).map(Housekeeping::Skipped));
            said.push(Housekeeping::Round(taken_over(footer)));
        }
        said
    }

    fn skip_before(&self, footer: &Footer, archived: LogIndex) -> Option<CommittedSkip> {
        let beginning = footer.begins?;
        let (checkpoint, _) = self.checkpoint.as_ref()?;
        let last = LogIndex(footer.range().start().0 - 1);
        (archived < beginning.first_lost).then(|| CommittedSkip {
            lost: beginning.first_lost..=last,
            last_term: footer.first_term(),
            checkpoint: checkpoint.clone(),
            recovered: true,
        })
    }
}

fn taken_over(footer: &Footer) -> CommittedRound {
    CommittedRound {
        footer: footer.reference,
        tiered: Tiered {
            range: footer.range(),
            objects: footer.objects.clone(),
            runs: footer.runs.clone(),
        },
        last_term: footer.last_term(),
        recovered: true,
    }
}
