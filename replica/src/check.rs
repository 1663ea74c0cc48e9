//! Whether a bucket holds what its groups say: looked at from outside, without a node.
//!
//! A group is brought back in memory, from its newest checkpoint and the chain of rounds behind it,
//! as a recovery would. What its state refers to must be there and be what it says, down to each
//! checksum; so must the checkpoints and rounds that it keeps. What nobody refers to is garbage once
//! that is certain:
//!
//! - A group's log ends with entries that are not archived, and they may name objects: of the term
//!   of the last archived entry, or of a later one. Those are *open*, whatever their age.
//! - Of earlier terms everything is decided: who is not named by the archived log never will be.
//! - What a cluster of before a recovery put is *kept back* until someone says that nobody needs
//!   that cluster any more.
//!
//! Only [`delete`] and what it is told changes anything. A group may work on meanwhile: what is found
//! amiss is looked at again as long as new objects arrive.

use std::sync::Arc;
use std::time::Duration;

use common::{GroupId, Incarnation, LogIndex, Term, WallTime};
use lts::{ErrorKind, ObjectName};

use crate::archive::Archive;
use crate::group::rebuild;
use crate::machine::StateMachine;
use crate::restore::{self, Chain, RestoreFailure};
use crate::tiering::{Storage, StorageFailure};

mod absent;
mod garbage;
mod objects;
mod saved;
mod survey;

pub use absent::{Absent, absent};
pub use survey::{Kinds, Survey, Surveyed, Tally, Tip, survey};

/// Looks at a group whose objects change meanwhile.
const LOOKS_MAX: usize = 3;

/// How to look.
#[derive(Debug, Clone, Copy)]
pub struct CheckSettings {
    /// Objects and leftovers that are younger may be on their way.
    pub grace: Duration,
    /// Now, by a clock that is about that of the store.
    pub now: WallTime,
}

/// How far a check has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub group: GroupId,
    pub objects: u64,
    /// Of so many.
    pub of: u64,
    pub bytes: u64,
}

/// Told as it goes on; must be quick.
pub type Observer = Arc<dyn Fn(Progress) + Send + Sync>;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The object, or what else it is about.
    pub subject: String,
    pub what: String,
    /// What to do.
    pub advice: &'static str,
}

/// What was found of a group.
#[derive(Debug, Clone, Default)]
pub struct GroupReport {
    pub group: GroupId,
    /// Leads the names of its new objects.
    pub incarnation: Incarnation,
    /// The last archived entry and its term.
    pub end: LogIndex,
    pub term: Term,
    pub rounds: usize,
    pub checkpoints: usize,
    /// Payload objects that the state refers to.
    pub payload: usize,
    /// Objects and bytes that were read.
    pub objects: u64,
    pub bytes: u64,
    /// No longer referred to, and waiting to be collected.
    pub dropped: usize,
    /// Objects that entries not yet archived may refer to.
    pub open: usize,
    /// Objects of an earlier incarnation that nobody refers to.
    pub kept_back: usize,
    /// Objects that nobody ever will refer to.
    pub orphans: Vec<ObjectName>,
    pub findings: Vec<Finding>,
}

/// A group as its bucket tells it.
pub struct BroughtBack<M> {
    pub machine: M,
    pub archive: Archive,
    pub chain: Chain,
}

/// Restores the newest checkpoint into `machine` and replays the rounds behind it, in memory.
pub fn bring_back<M: StateMachine>(
    storage: &Storage,
    group: GroupId,
    machine: M,
) -> Result<BroughtBack<M>, RestoreFailure> {
    bring_back_along(storage, Chain::find(storage, group, None)?, machine)
}

/// The same along a chain that was found.
pub fn bring_back_along<M: StateMachine>(
    storage: &Storage,
    chain: Chain,
    mut machine: M,
) -> Result<BroughtBack<M>, RestoreFailure> {
    let archive = saved::restore(storage, &chain, &mut machine)?;
    let group = chain.group();
    let rebuilt = rebuild::replay(group, machine, archive, chain.applied(), &chain)?;
    Ok(BroughtBack { machine: rebuilt.machine, archive: rebuilt.archive, chain })
}

/// Checks all that a bucket has of a group; `machine` makes empty ones. `Err` where the bucket does
/// not answer.
pub fn check<M: StateMachine>(
    storage: &Storage,
    group: GroupId,
    machine: impl Fn() -> M,
    settings: CheckSettings,
    observer: &Observer,
) -> Result<GroupReport, StorageFailure> {
    let mut looks = 1;
    loop {
        let before = newest(storage, group)?;
        let report = look(storage, group, machine(), settings, observer)?;
        let changed = !report.findings.is_empty() && newest(storage, group)? != before;
        if !changed || looks == LOOKS_MAX {
            return Ok(report);
        }
        looks += 1;
    }
}

/// Deletes orphans that a check found, newest first, where the bucket is still the one that was
/// looked at.
pub fn delete(storage: &Storage, orphans: &[ObjectName]) -> Result<(), StorageFailure> {
    let newest_first: Vec<ObjectName> = orphans.iter().rev().copied().collect();
    newest_first.chunks(lts::bucket::PAGE_OBJECTS_MAX).try_for_each(|batch| storage.delete(batch))
}

fn newest(storage: &Storage, group: GroupId) -> Result<Option<ObjectName>, StorageFailure> {
    match restore::list(storage, group) {
        Ok(listing) => Ok(listing.last_key_value().map(|(name, _)| *name)),
        Err(failure) => Err(not_answered(failure)?),
    }
}

fn look<M: StateMachine>(
    storage: &Storage,
    group: GroupId,
    machine: M,
    settings: CheckSettings,
    observer: &Observer,
) -> Result<GroupReport, StorageFailure> {
    let BroughtBack { machine, archive, chain } = match bring_back(storage, group, machine) {
        Ok(found) => found,
        Err(failure) => return Ok(lost(group, &not_answered(failure)?)),
    };
    let (end, term) = chain.end();
    let mut report = GroupReport {
        group,
        incarnation: archive.incarnation(),
        end,
        term,
        rounds: archive.rounds().len(),
        checkpoints: archive.checkpoints().len(),
        payload: archive.objects().len(),
        dropped: archive.dropped().len(),
        ..GroupReport::default()
    };
    let checked = objects::check(storage, group, &machine, &archive, observer)?;
    (report.objects, report.bytes) = (checked.objects, checked.bytes);
    report.findings = checked.findings;
    if let Some(index) = machine.oldest_live_index().filter(|index| *index <= end) {
        report.findings.push(Finding {
            subject: format!("group {group}"),
            what: format!("payload of entry {index} is in no round"),
            advice: "report it: reading it after a recovery would fail",
        });
    }
    drop(machine);
    garbage::look(storage, &archive, &chain, settings, &mut report)?;
    report.add_problems(&chain);
    report.findings.sort();
    Ok(report)
}

impl GroupReport {
    /// What the chain went around, unless it was found by name as well.
    fn add_problems(&mut self, chain: &Chain) {
        let around = "a recovery goes around it; restore it from a copy of the bucket all the same";
        let before = "restore it from a copy of the bucket; without it a recovery ends before it, and \
                      only with `--accept-loss`";
        let problems = chain.problems.iter().map(|problem| (problem, around));
        let losses = chain.losses.iter().map(|loss| (&loss.what, before));
        for (problem, advice) in problems.chain(losses) {
            let subject = subject_of(self.group, problem);
            if self.findings.iter().all(|finding| finding.subject != subject) {
                self.findings.push(Finding { subject, what: problem.clone(), advice });
            }
        }
    }
}

/// A failure that says something about the group, and not about the way to the bucket.
fn not_answered(failure: RestoreFailure) -> Result<StorageFailure, StorageFailure> {
    match failure {
        RestoreFailure::Storage(StorageFailure::Bucket(error)) if !is_damage(error.kind()) => {
            Err(StorageFailure::Bucket(error))
        }
        RestoreFailure::Storage(StorageFailure::Stopping) => Err(StorageFailure::Stopping),
        other => Ok(StorageFailure::Damaged(other.to_string())),
    }
}

fn is_damage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Damaged)
}

/// The object that a message names, else the group.
fn subject_of(group: GroupId, message: &str) -> String {
    let name = message.split('`').find_map(|part| part.parse::<ObjectName>().ok());
    name.map_or_else(|| format!("group {group}"), |name| name.to_string())
}

fn lost(group: GroupId, failure: &StorageFailure) -> GroupReport {
    let finding = Finding {
        subject: subject_of(group, &failure.to_string()),
        what: format!("group {group} cannot be brought back: {failure}"),
        advice: "restore the missing or damaged objects from a copy of the bucket; without them a \
                 recovery ends before them, and only with `--accept-loss`",
    };
    GroupReport { group, findings: vec![finding], ..GroupReport::default() }
}
