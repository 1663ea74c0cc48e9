//! Whether the saved state and the log belong together, and what is fetched where they do not.

use std::sync::PoisonError;

use common::LogIndex;
use wal::{GroupState, Truncated};

use super::{Starting, count};
use crate::archive::{Archive, Housekeeping};
use crate::conf;
use crate::error::StartError;
use crate::group::apply::Applier;
use crate::kv::Applied;
use crate::machine::StateMachine;
use crate::restore::{Chain, RestoreFailure};

impl Starting {
    /// Whether the state ends before the log begins, and there are peers that work meanwhile.
    pub(super) fn waits_for_state(&self) -> Result<bool, StartError> {
        let Some(found) = self.log.group(self.spec.group) else { return Ok(false) };
        if self.storage.is_none() || self.spec.recover.is_some() {
            return Ok(false);
        }
        let members = found.conf.as_ref().and_then(|record| conf::decode(&record.bytes));
        let has_peers = members.is_some_and(|members| count(&members) > 1);
        let saved = self.kv.applied(self.spec.group)?.unwrap_or_default();
        Ok(has_peers && saved.index < found.truncated.index)
    }

    /// What is saved, and the rounds that lead from there to the log's first entry, where the saved
    /// state ends before it and long-term storage has more.
    pub(super) fn saved(&self) -> Result<(Option<Applied>, Option<Chain>), StartError> {
        let group = self.spec.group;
        let saved = self.kv.applied(group)?;
        let truncated = self.log.group(group).map_or(LogIndex(0), |found| found.truncated.index);
        let behind = saved.unwrap_or_default().index < truncated || self.spec.recover.is_some();
        let (Some(storage), true) = (&self.storage, behind) else { return Ok((saved, None)) };
        let _alone = self.bringing.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |source| StartError::Archive { group, source };
        // A recovery needs every round that the state does not know, also below its own index.
        let from = saved.map(|saved| saved.index).filter(|_| self.spec.recover.is_none());
        let find = |from| Chain::leading_to(storage, group, from, truncated);
        let (mut found, mut anew) = (find(from), saved.is_none());
        if from.is_some() && matches!(found, Err(RestoreFailure::Broken(_))) {
            // A state so old that rounds behind it are collected is as good as none.
            tracing::warn!(%group, "the saved state is older than the chain of rounds reaches back");
            (found, anew) = (find(None), true);
        }
        let begins_anew = truncated == LogIndex(0) && self.spec.recover.is_some();
        let chain = match found {
            // A group of which nothing was archived is recovered, too: it begins anew.
            Err(RestoreFailure::Nothing) if truncated == LogIndex(0) => return Ok((saved, None)),
            // So is one of which all that was archived is given up.
            Err(RestoreFailure::Broken(_)) if begins_anew => return Ok((saved, None)),
            found => found.map_err(failed)?,
        };
        if anew && truncated > LogIndex(0) {
            chain.load_state(storage, &*self.kv).map_err(failed)?;
        }
        Ok((self.kv.applied(group)?, Some(chain)))
    }

    /// What rounds say up to where the log begins, and no entry of it: the entries that said so were
    /// lost, and a repair let the log begin behind them. Only of a group alone, whose own rounds they
    /// are; where there are other members, these have the entries.
    pub(super) fn unsaid(
        &self,
        archive: &Archive,
        found: &GroupState,
    ) -> Result<Vec<Housekeeping>, StartError> {
        let (group, begins) = (self.spec.group, found.truncated.index);
        let members = found.conf.as_ref().and_then(|record| conf::decode(&record.bytes));
        let alone = members.is_some_and(|members| count(&members) == 1);
        let Some(storage) = self.storage.as_ref().filter(|_| alone && archive.end() < begins)
        else {
            return Ok(Vec::new());
        };
        let chain = Chain::leading_to(storage, group, Some(archive.end()), begins);
        let chain = chain.map_err(|source| StartError::Archive { group, source })?;
        let mut said = chain.said_behind(archive.end());
        said.retain(|said| said.archived_to() <= Some(begins));
        tracing::warn!(
            %group, from = %archive.end(), to = %begins,
            "the log does not say all that is archived of it: rounds are taken over"
        );
        Ok(said)
    }

    /// Replays the archived log up to where the log of this node begins.
    pub(super) fn replay_archived<M: StateMachine>(
        &self,
        applier: &mut Applier<M>,
        chain: &Chain,
        truncated: Truncated,
    ) -> Result<(), StartError> {
        let (group, now) = (self.spec.group, self.clock.monotonic());
        tracing::info!(
            %group, from = %applier.applied.index, to = %truncated.index,
            "state is brought back from long-term storage"
        );
        let failed = |source| StartError::Archive { group, source };
        for header in chain.headers(applier.applied.index, truncated.index) {
            applier.replay(&header, now).map_err(|why| failed(RestoreFailure::Replay(why)))?;
        }
        let Applied { index, term, .. } = applier.applied;
        if index < truncated.index {
            let (end, first) = (index, truncated.index);
            return Err(failed(RestoreFailure::Ends { end, first }));
        }
        if index == truncated.index && term != truncated.term {
            let (saved, logged) = (term, truncated.term);
            return Err(StartError::Mismatch { group, index, saved, logged });
        }
        applier.machine.round_done();
        Ok(())
    }

    /// Whether saved state and log belong together and nothing is missing between them that is not
    /// `archived`.
    pub(super) fn check_saved(
        &self,
        saved: Option<Applied>,
        archived: bool,
    ) -> Result<(), StartError> {
        let group = self.spec.group;
        let saved = saved.filter(|saved| saved.index > LogIndex(0));
        let (log, saved) = match (self.log.group(group), saved) {
            (Some(log), Some(saved)) => (log, saved),
            (Some(_), None) if archived => return Ok(()),
            (Some(log), None) if log.truncated.index > LogIndex(0) => {
                return Err(StartError::StateMissing { group, first: log.first });
            }
            (_, None) => return Ok(()),
            (None, Some(saved)) => {
                let (saved, last) = (saved.index, LogIndex(0));
                return Err(StartError::LogBehind { group, saved, last });
            }
        };
        if saved.index < log.truncated.index {
            if archived {
                return Ok(());
            }
            return Err(StartError::StateBehind { group, saved: saved.index, first: log.first });
        }
        if saved.index > log.last.max(log.truncated.index) {
            return Err(StartError::LogBehind { group, saved: saved.index, last: log.last });
        }
        let logged = if saved.index == log.truncated.index {
            log.truncated.term
        } else {
            self.log
                .term(group, saved.index)
                .map_err(|source| StartError::Read { group, source })?
        };
        if logged != saved.term {
            let (index, saved) = (saved.index, saved.term);
            return Err(StartError::Mismatch { group, index, saved, logged });
        }
        Ok(())
    }
}
