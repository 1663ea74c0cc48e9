//! A round: the oldest entries that are not archived, into objects.
//!
//! The bytes come from memory where they are still there, else from the log, which checks them, and
//! go into the objects uncopied. The footer is put when everything that it names is there.

use std::ops::RangeInclusive;
use std::sync::Arc;

use common::{LogIndex, Term};
use wal::{Log, LogEntry};

use super::held::Holding;
use super::{Done, NameRange, StorageFailure, Workshop};
use crate::archive::{
    Beginning, CommittedRound, EntryKind, FeatureLevel, ObjectRef, Round, RoundBuilder, RoundEntry,
    Taken,
};
use crate::digests::Digests;
use crate::resting::{OwnedRun, Owners, Tiered};

/// Bytes of log read at once.
const READ_BYTES: usize = 4 << 20;

/// A round to be made.
pub(crate) struct RoundUpload {
    pub(crate) names: NameRange,
    pub(crate) continues: Option<ObjectRef>,
    pub(crate) begins: Option<Beginning>,
    /// From the first entry that is not archived to the last one that is applied, or before one that
    /// is lost.
    pub(crate) range: RangeInclusive<LogIndex>,
    pub(crate) membership: Vec<u8>,
    /// Those of the range that are still in memory, in order.
    pub(crate) kept: Vec<LogEntry>,
    pub(crate) digests: Digests,
    pub(crate) owners: Box<dyn Owners>,
}

/// What was gathered of the log.
struct Gathered {
    builder: RoundBuilder,
    last_term: Term,
    log_bytes: u64,
    /// What was read of the log: most of it is put as it lies there.
    held: Holding,
}

impl RoundUpload {
    pub(super) fn perform(self, workshop: &Workshop) -> Result<Done, StorageFailure> {
        let (names, membership) = (self.names, self.membership.clone());
        // Counted until everything is put.
        let Gathered { builder, last_term, log_bytes, held: _held } = self.gather(workshop)?;
        let round = builder.finish(names.first(), &membership)?;
        let Round { range, objects, footer, runs } = round;
        let references = objects.iter().map(|object| object.reference).collect();
        let reference = footer.reference;
        if common::planted::active("footer-before-its-objects") {
            workshop.storage.put_last(footer)?;
            workshop.storage.put_all(objects)?;
        } else {
            workshop.storage.put_all(objects)?;
            workshop.storage.put_last(footer)?;
        }
        let tiered = Tiered { range, objects: references, runs };
        let round = CommittedRound { footer: reference, tiered, last_term, recovered: false };
        Ok(Done::Round { round, log_bytes })
    }

    fn gather(self, workshop: &Workshop) -> Result<Gathered, StorageFailure> {
        let settings = &workshop.storage.settings;
        let (first, last) = self.range.clone().into_inner();
        let mut gathered = Gathered {
            builder: RoundBuilder::new(settings.round, self.continues, first).behind(self.begins),
            last_term: Term(0),
            log_bytes: 0,
            held: workshop.storage.held.hold(0),
        };
        let group = self.names.group;
        let mut owned = Owned::new(self.owners.owned(self.range.clone()));
        let mut kept = Kept(self.kept.into_iter().peekable());
        while gathered.builder.next_index() <= last {
            let room = settings.round_bytes_max.bytes().saturating_sub(gathered.log_bytes);
            let next = gathered.builder.next_index();
            let entries = match kept.from(next) {
                Ok(kept) => kept,
                Err(until) => read(&workshop.log, group, next, last.min(until), room)?,
            };
            gathered.held.grow(entries.iter().map(bytes_of).sum());
            for entry in entries {
                let bytes = bytes_of(&entry);
                let full = gathered.log_bytes + bytes > settings.round_bytes_max.bytes();
                if full && gathered.log_bytes > 0 {
                    return Ok(gathered);
                }
                let term = entry.term;
                let digest = self.digests.get(entry.index);
                match gathered.builder.push(&owned.entry(entry, digest)?)? {
                    Taken::Full => return Ok(gathered),
                    Taken::Yes => {}
                }
                gathered.log_bytes += bytes;
                gathered.last_term = term;
            }
        }
        Ok(gathered)
    }
}

/// Entries that are still in memory: one run, for what Raft keeps has no gaps.
struct Kept(std::iter::Peekable<std::vec::IntoIter<LogEntry>>);

impl Kept {
    /// All that are left, if the next one is among them; else up to where to read.
    fn from(&mut self, next: LogIndex) -> Result<Vec<LogEntry>, LogIndex> {
        match self.0.peek().map(|entry| entry.index) {
            Some(first) if first <= next => {
                Ok(self.0.by_ref().skip_while(|entry| entry.index < next).collect())
            }
            Some(first) => Err(LogIndex(first.0 - 1)),
            None => Err(LogIndex(u64::MAX)),
        }
    }
}

fn bytes_of(entry: &LogEntry) -> u64 {
    (entry.context.len() + entry.data.len()) as u64
}

/// One entry at least, and as many as there is room for.
fn read(
    log: &Log,
    group: common::GroupId,
    low: LogIndex,
    last: LogIndex,
    room: u64,
) -> Result<Vec<LogEntry>, StorageFailure> {
    let entries = log
        .read(group, low, LogIndex(last.0 + 1), READ_BYTES.min(room as usize))
        .map_err(|error| StorageFailure::Log(Arc::new(error)))?;
    match entries.is_empty() {
        true => Err(StorageFailure::Damaged(format!("the log returned nothing for entry {low}"))),
        false => Ok(entries),
    }
}

/// Owned runs, taken entry by entry.
struct Owned {
    runs: std::iter::Peekable<std::vec::IntoIter<OwnedRun>>,
}

impl Owned {
    fn new(runs: Vec<OwnedRun>) -> Self {
        Self { runs: runs.into_iter().peekable() }
    }

    fn entry(&mut self, entry: LogEntry, digest: u64) -> Result<RoundEntry, StorageFailure> {
        let mut owned = Vec::new();
        while let Some(run) = self.runs.next_if(|run| run.index <= entry.index) {
            if run.index == entry.index {
                owned.push((run.owner, run.start..run.start.saturating_add(run.bytes)));
            }
        }
        let kind = match entry.kind {
            0 => EntryKind::Normal,
            1 => EntryKind::Membership,
            2 => EntryKind::JointMembership,
            other => {
                let (index, kind) = (entry.index, other);
                let why = format!("entry {index} is of kind {kind}, which is not known");
                return Err(StorageFailure::Damaged(why));
            }
        };
        Ok(RoundEntry {
            index: entry.index,
            term: entry.term,
            kind,
            feature_level: FeatureLevel::FIRST,
            digest,
            context: entry.context,
            data: entry.data,
            owned,
        })
    }
}
