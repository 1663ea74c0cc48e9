//! The chain that a snapshot names, without looking through the bucket.

use common::{LogIndex, Term};
use lts::ErrorKind;

use super::{Chain, RestoreFailure, read};
use crate::archive::{Basis, Checkpoint, CommittedCheckpoint, Footer, ObjectRef};
use crate::tiering::{Storage, StorageFailure};

impl Chain {
    /// Reads what `basis` names, and the rounds between. Broken where something of it is gone,
    /// as it is once newer checkpoints have taken its place.
    pub(crate) fn named(storage: &Storage, basis: &Basis) -> Result<Self, RestoreFailure> {
        let checkpoint = match &basis.checkpoint {
            Some(committed) => Some((committed.clone(), checkpoint(storage, committed)?)),
            None => None,
        };
        let tip = footer(storage, basis.tip)?;
        let mut chain =
            Self { checkpoint, footers: vec![tip], problems: Vec::new(), losses: Vec::new() };
        while !chain.is_complete(None) {
            let previous = footer(storage, chain.previous()?)?;
            chain.push_before(previous)?;
        }
        chain.footers.reverse();
        Ok(chain)
    }

    /// The newest round that is known to be committed, because another one continues it: what is
    /// put in a bucket by a leader that is deposed before it can say so may be a tip, too.
    pub(crate) fn committed_tip(&self) -> Option<&Footer> {
        self.footers.len().checked_sub(2).map(|at| &self.footers[at])
    }

    /// The term of an entry to which the chain leads.
    pub(crate) fn term(&self, index: LogIndex) -> Option<Term> {
        let applied = self.applied();
        if index == applied.index {
            return Some(applied.term);
        }
        let footer = self.footers.iter().find(|footer| footer.range().contains(&index))?;
        footer.headers().find(|header| header.index == index).map(|header| header.term)
    }

    /// What names a round of the chain as the one to end with.
    pub(crate) fn basis(&self, tip: &Footer) -> Basis {
        let checkpoint = self.checkpoint.as_ref().map(|(committed, _)| committed.clone());
        Basis { checkpoint, tip: tip.reference }
    }
}

fn footer(storage: &Storage, reference: ObjectRef) -> Result<Footer, RestoreFailure> {
    let bytes = read(storage, reference.name, reference.length.into()).map_err(gone)?;
    Footer::decode(reference.name, &bytes)
        .and_then(|footer| reference.expect(&footer.reference).map(|()| footer))
        .map_err(|error| RestoreFailure::Broken(error.to_string()))
}

fn checkpoint(
    storage: &Storage,
    committed: &CommittedCheckpoint,
) -> Result<Checkpoint, RestoreFailure> {
    let reference = committed.reference;
    let bytes = read(storage, reference.name, reference.length.into()).map_err(gone)?;
    Checkpoint::decode(reference.name, &bytes)
        .and_then(|found| reference.expect(&found.reference).map(|()| found))
        .map_err(|error| RestoreFailure::Broken(error.to_string()))
}

/// What is missing or damaged stays so; anything else may pass.
pub(super) fn gone(failure: StorageFailure) -> RestoreFailure {
    match &failure {
        StorageFailure::Bucket(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged) =>
        {
            RestoreFailure::Broken(failure.to_string())
        }
        _ => RestoreFailure::Storage(failure),
    }
}
