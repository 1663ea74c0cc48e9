//! Entries that a repair of the log gave up before they were archived ([`crate::archive`], a new
//! beginning).
//!
//! Rounds lead up to them. There the archive waits for a copy of a state that includes them and all
//! that rounds have said until then; the entry that skips them names it. Rounds go on behind, at
//! once until they have reached the copy's index: before, nothing leads back from them. A copy that
//! was begun too early, or whose entry does not come, is made again.
//!
//! Only a group alone does so: where there are other members, they have the entries.

use common::{LogIndex, MonotonicTime, Term};
use wal::LostEntries;

use super::{Tiering, UnderWay};
use crate::archive::{Archive, CommittedSkip, Housekeeping};
use crate::group::Group;
use crate::machine::StateMachine;
use crate::tiering::{JobKind, NameRange};

/// What the log cannot give any more.
#[derive(Debug, Default)]
pub(in crate::group) struct Holes {
    /// In order, without neighbours.
    lost: Vec<LostEntries>,
    /// Other members have what is lost here.
    has_peers: bool,
    /// Since when the archive stands before one.
    waits_since: Option<MonotonicTime>,
}

/// The next lost entries that are not archived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hole {
    first: LogIndex,
    last: LogIndex,
    last_term: Term,
}

impl Hole {
    /// The last entry that a round can have.
    pub(super) fn before(&self) -> LogIndex {
        LogIndex(self.first.0 - 1)
    }
}

impl Holes {
    pub(in crate::group) fn found(lost: &[LostEntries], has_peers: bool) -> Self {
        let mut merged: Vec<LostEntries> = Vec::new();
        for next in lost {
            match merged.last_mut() {
                Some(last) if last.last.0 + 1 == next.first.0 => {
                    (last.last, last.term) = (next.last, next.term);
                }
                _ => merged.push(*next),
            }
        }
        Self { lost: merged, has_peers, waits_since: None }
    }

    pub(super) fn waits_since(&self) -> Option<MonotonicTime> {
        self.waits_since
    }

    /// Those behind `end`.
    pub(in crate::group) fn behind(&self, end: LogIndex) -> impl Iterator<Item = LostEntries> + '_ {
        let from = move |lost: &LostEntries| LostEntries {
            first: lost.first.max(LogIndex(end.0 + 1)),
            ..*lost
        };
        self.lost.iter().filter(move |lost| lost.last > end).map(from)
    }
}

impl Tiering {
    /// The first lost entries behind what is archived.
    pub(super) fn hole(&self, archive: &Archive) -> Option<Hole> {
        if self.holes.has_peers {
            return None;
        }
        let LostEntries { first, last, term } = self.holes.behind(archive.end()).next()?;
        Some(Hole { first, last, last_term: term })
    }

    pub(super) fn is_at_hole(&self, archive: &Archive) -> bool {
        self.hole(archive).is_some_and(|hole| hole.before() <= archive.end())
    }

    /// Whether a round brings the archive to lost entries, or what is behind them to where it is of
    /// use.
    pub(super) fn mends_chain(&self, archive: &Archive) -> bool {
        self.hole(archive).is_some() || archive.restorable_end() < archive.end()
    }

    /// Housekeeping was applied at `index`, or is so far: a copy that skips lost entries includes it.
    pub(in crate::group) fn come_to_hole(
        &mut self,
        archive: &Archive,
        index: LogIndex,
        now: MonotonicTime,
    ) {
        match (self.is_at_hole(archive), self.holes.waits_since) {
            (true, None) => {
                self.holes.waits_since = Some(now);
                self.to_cover = self.to_cover.max(index);
            }
            (true, Some(_)) => {}
            (false, _) => self.holes.waits_since = None,
        }
    }
}

impl<M: StateMachine> Group<M> {
    /// Says that the archive goes on behind lost entries, once there is a copy of what they did.
    pub(super) fn skip_hole(&mut self) {
        let archive = &self.applier.archive;
        let Some(hole) = self.tiering.hole(archive).filter(|hole| hole.before() <= archive.end())
        else {
            return;
        };
        if self.tiering.under_way.contains_key(&JobKind::Checkpoint) {
            return;
        }
        let Some(copy) = self.tiering.uploaded.take() else { return };
        let (checkpoint, end) = (copy.checkpoint, archive.end());
        if checkpoint.archived != end || checkpoint.index < hole.last {
            // Rounds never reach it either.
            return self.tiering.copy_again();
        }
        let Hole { first, last, last_term } = hole;
        tracing::error!(
            group = %self.id, %first, %last, checkpoint = %checkpoint.index,
            "entries that a repair gave up were not archived: their payload is lost, and the archive \
             goes on behind them"
        );
        let names = NameRange::of(checkpoint.reference.name);
        let began = self.clock.monotonic();
        let job = UnderWay { names, began, log_bytes: 0, entry: None };
        self.tiering.under_way.insert(JobKind::Checkpoint, job);
        let skip = CommittedSkip { lost: first..=last, last_term, checkpoint, recovered: false };
        self.say(JobKind::Checkpoint, Housekeeping::Skipped(skip));
    }
}
