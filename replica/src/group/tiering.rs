//! When a group's log is archived, its state copied, and garbage collected.
//!
//! Only a leader that has applied an entry of its own term does any of it, one job of a kind at a
//! time. Jobs are handed out as values; what came of them is proposed as a housekeeping entry and
//! counts when that is applied. A lost term forgets everything that was under way: its objects can
//! never be referred to again.
//!
//! Housekeeping never begins a round or a checkpoint by itself: a group that is idle comes to rest.
//! Before that it makes one more checkpoint where objects of payload wait for it (see [`rest`]).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use common::{Incarnation, LogIndex, MonotonicTime, Term};
use raft::eraftpb::Entry as RaftEntry;

use super::Group;
use super::apply::Applier;
use crate::archive::{Archive, CommittedCheckpoint, Housekeeping, Refused};
use crate::error::Failure;
use crate::machine::StateMachine;
use crate::tiering::{
    Collected, Done, Holding, JobKind, NameRange, Storage, StorageDone, StorageFailure, StorageJob,
    Sweep, Ticket, TieringSettings, Work,
};

mod begin;
mod behind;
mod hole;
mod propose;
mod rest;
mod sweep;

pub(super) use behind::Behind;
pub(super) use hole::Holes;

/// The pause after a job that failed; it doubles with every failure in a row.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// Entries of one round at most: their digests are copied for it.
const ROUND_ENTRIES_MAX: u64 = 256 * 1_024;
/// Objects deleted by one job.
const COLLECT_MAX: usize = 1_000;
/// How often it is looked for what can be deleted, at most.
const COLLECT_INTERVAL: Duration = Duration::from_secs(60);

/// What is under way between a group and its bucket.
pub(super) struct Tiering {
    storage: Option<Storage>,
    /// What is kept of the log for rounds.
    kept: Option<Holding>,
    /// The last range of names that was given out in this term.
    names: u64,
    under_way: BTreeMap<JobKind, UnderWay>,
    /// Waits to be proposed, in order.
    to_propose: VecDeque<(Option<JobKind>, Housekeeping)>,
    /// What a recovered group says first.
    recovery: Vec<Housekeeping>,
    /// Up to where rounds are to be taken over first: until then objects that no entry names yet
    /// would look like garbage, and a new round would leave a gap.
    take_over_until: LogIndex,
    /// Checkpoint that the rounds have not reached.
    uploaded: Option<Uploaded>,
    pauses: BTreeMap<JobKind, Pause>,
    pub(super) behind: Behind,
    /// What was applied since the state was copied last.
    since_checkpoint: Behind,
    /// What the copy that is being made is to cover.
    in_checkpoint: Behind,
    /// The next copy is of no use if it does not include this entry.
    to_cover: LogIndex,
    /// Entries that a repair of the log gave up.
    pub(super) holes: Holes,
    checkpoint_not_before: MonotonicTime,
    next_look: Looks,
    sweep: Option<Sweep>,
    /// When it was seen first that what earlier incarnations put may be deleted.
    adopted_since: Option<MonotonicTime>,
    /// The log is so full that everything is archived as soon as possible.
    pressed: bool,
    /// Since when what is not archived, be it housekeeping alone, keeps a large part of the log.
    in_the_way: Option<MonotonicTime>,
    /// Since when there is garbage above the tip, which a round of this term has to come above.
    above_tip: Option<MonotonicTime>,
    pub(super) failure: Option<String>,
    /// A round was taken over since the log was truncated last.
    pub(super) truncatable: bool,
    /// What earlier incarnations put may not be deleted: it is left out until the next sweep.
    only_own: bool,
}

/// A copy of the state that does not count yet.
#[derive(Debug)]
struct Uploaded {
    checkpoint: CommittedCheckpoint,
    since: MonotonicTime,
}

/// A job, or what came of it on its way through the log.
#[derive(Debug, Clone, Copy)]
struct UnderWay {
    names: u64,
    began: MonotonicTime,
    /// Bytes of log that the round covers.
    log_bytes: u64,
    /// Where its entry stands once it was proposed.
    entry: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    length: Duration,
    until: MonotonicTime,
}

/// When to look for work that nobody asks for.
#[derive(Debug, Clone, Copy, Default)]
struct Looks {
    collection: MonotonicTime,
    compaction: MonotonicTime,
    sweep: MonotonicTime,
}

impl Tiering {
    pub(super) fn new(storage: Option<Storage>, now: MonotonicTime) -> Self {
        Self {
            kept: storage.as_ref().map(|storage| storage.held.hold(0)),
            storage,
            names: 0,
            under_way: BTreeMap::new(),
            to_propose: VecDeque::new(),
            recovery: Vec::new(),
            take_over_until: LogIndex(0),
            uploaded: None,
            pauses: BTreeMap::new(),
            behind: Behind::default(),
            since_checkpoint: Behind::default(),
            in_checkpoint: Behind::default(),
            to_cover: LogIndex(0),
            holes: Holes::default(),
            checkpoint_not_before: now,
            next_look: Looks::default(),
            sweep: None,
            adopted_since: None,
            pressed: false,
            in_the_way: None,
            above_tip: None,
            failure: None,
            truncatable: false,
            only_own: false,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.storage.is_some()
    }

    /// What the group found at its start: what is not archived, and what no checkpoint has.
    pub(super) fn found(&mut self, behind: Behind, since_checkpoint: Behind, to_cover: LogIndex) {
        (self.behind, self.since_checkpoint) = (behind, since_checkpoint);
        self.to_cover = to_cover;
    }

    /// What the group found of its log to be lost.
    pub(super) fn found_lost(
        &mut self,
        holes: Holes,
        applier_at: (&Archive, LogIndex),
        now: MonotonicTime,
    ) {
        self.holes = holes;
        let (archive, applied) = applier_at;
        self.come_to_hole(archive, applied, now);
    }

    /// What the group says as soon as it leads: of all that a recovery has to say, what the log does
    /// not say yet.
    pub(super) fn recovered(
        &mut self,
        incarnation: Option<Incarnation>,
        mut said: Vec<Housekeeping>,
        archive: &Archive,
    ) {
        said.retain(|said| said.archived_to() > Some(archive.end()));
        self.take_over_until = said.last().and_then(Housekeeping::archived_to).unwrap_or_default();
        let raised = incarnation.filter(|raised| *raised > archive.incarnation());
        self.recovery = raised.map(Housekeeping::Recovered).into_iter().chain(said).collect();
    }

    pub(super) fn take_over(&mut self) {
        self.to_propose.extend(self.recovery.drain(..).map(|said| (None, said)));
    }

    /// Bytes of applied entries that may stay in memory until a round takes them.
    pub(super) fn kept_for_rounds(&self) -> usize {
        self.settings().map_or(0, |settings| settings.kept_bytes.as_usize())
    }

    /// So many bytes of the log are in memory.
    pub(super) fn count_kept(&mut self, bytes: u64) {
        if let Some(kept) = &mut self.kept {
            kept.set(bytes);
        }
    }

    fn settings(&self) -> Option<&TieringSettings> {
        self.storage.as_ref().map(|storage| &storage.settings)
    }

    /// The term is lost, or a new one begins: names are counted anew under it.
    pub(super) fn begin_term(&mut self) {
        if self.is_copying() {
            self.copy_again();
        }
        self.names = 0;
        self.under_way.clear();
        self.to_propose.clear();
        self.uploaded = None;
        self.above_tip = None;
        self.sweep = None;
        self.next_look.sweep = MonotonicTime::default();
    }

    /// Looks for what nobody asks for are due.
    pub(super) fn look_now(&mut self, now: MonotonicTime) {
        let compaction = now.max(MonotonicTime::default().plus(Duration::from_micros(1)));
        self.next_look = Looks { collection: now, compaction, sweep: now };
    }

    pub(super) fn press(&mut self, pressed: bool) {
        self.pressed = pressed;
    }

    /// Housekeeping makes no round due, or a group would never come to rest; but the files of the
    /// log go from the oldest end, so that its few bytes would in time hold back all the others'.
    pub(super) fn stand_in_the_way(&mut self, stands: bool, now: MonotonicTime) {
        self.in_the_way = stands.then(|| self.in_the_way.unwrap_or(now));
    }

    /// Takes note of an applied entry.
    pub(super) fn applied<M: StateMachine>(
        &mut self,
        entry: &RaftEntry,
        applier: &Applier<M>,
        now: MonotonicTime,
    ) {
        if self.storage.is_none() {
            return;
        }
        let Some(result) = applier.housekept else {
            let operations = !entry.context.is_empty();
            let bytes = (entry.context.len() + entry.data.len()) as u64;
            self.behind.note(bytes, operations, now);
            self.since_checkpoint.note(bytes, operations, now);
            return;
        };
        let place = Some((entry.index, entry.term));
        if result.is_ok() && !applier.archive.is_behind() {
            self.behind = Behind::default();
        }
        let ours = self.under_way.iter().find(|(_, job)| job.entry == place);
        if let Some((kind, job)) = ours.map(|(kind, job)| (*kind, *job)) {
            self.under_way.remove(&kind);
            self.decided(kind, job, result, &applier.archive, now);
        }
        if result.is_ok() {
            self.come_to_hole(&applier.archive, LogIndex(entry.index), now);
            self.look_for_garbage(&applier.archive, LogIndex(entry.index), now);
        }
    }

    fn decided(
        &mut self,
        kind: JobKind,
        job: UnderWay,
        result: Result<(), Refused>,
        archive: &Archive,
        now: MonotonicTime,
    ) {
        match (kind, result) {
            (JobKind::Round, Ok(())) => {
                self.behind.archived(job.log_bytes, job.began, archive.is_behind());
                self.truncatable = true;
                if self.above_tip.take().is_some() {
                    (self.sweep, self.next_look.sweep) = (None, now);
                }
            }
            (_, Ok(())) => {}
            (_, Err(refused)) => {
                tracing::debug!(kind = kind.as_str(), %refused, "housekeeping is made again");
                if kind == JobKind::Checkpoint {
                    self.copy_again();
                }
            }
        }
    }

    /// Whether there is a bucket, and the archive is of the cluster that owns it, and whole.
    fn suits(&self, archive: &Archive) -> bool {
        let Some(storage) = &self.storage else { return false };
        let ours = storage.marker().is_none_or(|own| own.incarnation == archive.incarnation());
        ours && archive.end() >= self.take_over_until
    }

    fn is_free(&self, kind: JobKind, now: MonotonicTime) -> bool {
        !self.under_way.contains_key(&kind)
            && self.pauses.get(&kind).is_none_or(|pause| pause.until <= now)
    }

    /// When a job of this kind may begin that is due at `due`.
    fn at(&self, kind: JobKind, due: MonotonicTime) -> Option<MonotonicTime> {
        if self.under_way.contains_key(&kind) {
            return None;
        }
        Some(self.pauses.get(&kind).map_or(due, |pause| pause.until.max(due)))
    }

    fn round_due(&self, archive: &Archive) -> Option<MonotonicTime> {
        if self.is_at_hole(archive) {
            return None;
        }
        let settings = self.settings()?;
        let full = self.pressed || self.behind.bytes() >= settings.round_bytes.bytes();
        let age = if full { Duration::ZERO } else { settings.round_age };
        let lacking = self.behind.since().map(|since| since.plus(age));
        // A copy counts when the rounds have reached it, be it by housekeeping alone.
        let uploaded = self.uploaded.as_ref().map(|copy| copy.since.plus(settings.round_age));
        let unnamed = is_unnamed(archive).then(MonotonicTime::default);
        let mends = self.mends_chain(archive).then(MonotonicTime::default);
        let reasons = [self.in_the_way, self.above_tip, unnamed, mends, lacking, uploaded];
        self.at(JobKind::Round, reasons.into_iter().flatten().min()?)
    }

    fn checkpoint_due(&self, saved: LogIndex, archive: &Archive) -> Option<MonotonicTime> {
        let settings = self.settings()?;
        let newest = archive.newest_checkpoint();
        if self.uploaded.is_some() || saved <= newest || saved < self.to_cover {
            return None;
        }
        if self.is_at_hole(archive) {
            // Nothing is archived before there is one.
            return self.at(JobKind::Checkpoint, self.checkpoint_not_before);
        }
        let since = self.since_checkpoint.since()?;
        let full = self.since_checkpoint.bytes() >= settings.checkpoint_bytes.bytes();
        let due = if full { since } else { since.plus(settings.checkpoint_interval) };
        self.at(JobKind::Checkpoint, due.max(self.checkpoint_not_before))
    }

    fn begin(&mut self, kind: JobKind, now: MonotonicTime) -> u64 {
        self.names += 1;
        let job = UnderWay { names: self.names, began: now, log_bytes: 0, entry: None };
        self.under_way.insert(kind, job);
        self.names
    }

    fn failed(&mut self, kind: JobKind, failure: &StorageFailure, now: MonotonicTime) {
        self.under_way.remove(&kind);
        let before = self.pauses.get(&kind).map_or(Duration::ZERO, |pause| pause.length);
        let length = (before * 2).clamp(RETRY_FIRST, RETRY_LONGEST);
        self.pauses.insert(kind, Pause { length, until: now.plus(length) });
        self.failure = Some(failure.to_string());
        // What looks for work by itself is as good as asked for.
        match kind {
            JobKind::Sweep => self.next_look.sweep = now,
            JobKind::Collection => self.next_look.collection = now,
            JobKind::Compaction => self.next_look.compaction = now,
            JobKind::Checkpoint => self.copy_again(),
            JobKind::Round | JobKind::Install => {}
        }
    }

    /// What came of a job finds no room in the log: it is done again, at its usual time.
    fn give_up(&mut self, kind: Option<JobKind>, now: MonotonicTime) {
        if let Some(kind) = kind {
            self.under_way.remove(&kind);
        }
        let of = self.settings().map(|of| (of.compaction_interval, of.grace.min(COLLECT_INTERVAL)));
        let (compaction, collection) = of.unwrap_or_default();
        match kind {
            Some(JobKind::Compaction) => self.next_look.compaction = now.plus(compaction),
            Some(JobKind::Collection) => self.next_look.collection = now.plus(collection),
            _ => {}
        }
    }

    fn succeeded(&mut self, kind: JobKind) {
        self.pauses.remove(&kind);
        if self.pauses.is_empty() {
            self.failure = None;
        }
    }

    /// Ranges of names below this one in this term are decided: referred to, or never to be.
    fn lowest_open(&self) -> u64 {
        let lowest = self.under_way.values().map(|job| job.names).min();
        let uploaded = self.uploaded.as_ref();
        let uploaded = uploaded.map(|copy| NameRange::of(copy.checkpoint.reference.name));
        lowest.into_iter().chain(uploaded).min().unwrap_or(self.names + 1)
    }
}

/// Whether a recovery took the archive over and no round says so yet: the next recovery would end
/// with the same objects, and be refused for what this one was told to give up.
fn is_unnamed(archive: &Archive) -> bool {
    let own = archive.incarnation();
    own > Incarnation::FIRST && archive.tip().is_none_or(|tip| tip.name.incarnation < own)
}

/// What no other attempt would change stops the group: a person should look, before the log fills
/// behind what cannot be archived.
fn check_bearable(kind: JobKind, failure: &StorageFailure) -> Result<(), Failure> {
    let what = kind.as_str();
    Err(Failure::Quarantine(match failure {
        StorageFailure::Panicked(text) => {
            format!("a {what} of its log panicked, which is a bug: {text}")
        }
        StorageFailure::Log(error) if error.is_damage() => {
            format!(
                "the log cannot be archived: {error}; stop the node, see `braid wal inspect`, and \
                 restore the file or give up what is lost with `braid wal repair`"
            )
        }
        _ => return Ok(()),
    }))
}

impl<M: StateMachine> Group<M> {
    fn leads_storage(&self) -> bool {
        let leads = self.role.serving && !self.stopping && !self.is_blocked();
        leads && self.tiering.suits(&self.applier.archive)
    }

    pub(super) fn next_storage_job(&self) -> Option<MonotonicTime> {
        if !self.leads_storage() {
            return None;
        }
        let round = self.tiering.round_due(&self.applier.archive);
        let checkpoint = self.tiering.checkpoint_due(self.saved.flushed, &self.applier.archive);
        let looks = self.tiering.next_look;
        let collection = (!self.applier.archive.dropped().is_empty())
            .then(|| self.tiering.at(JobKind::Collection, looks.collection));
        let compaction = (looks.compaction > MonotonicTime::default())
            .then(|| self.tiering.at(JobKind::Compaction, looks.compaction));
        let sweep = self.tiering.at(JobKind::Sweep, looks.sweep);
        let times = [round, checkpoint, collection.flatten(), compaction.flatten(), sweep];
        times.into_iter().flatten().min()
    }

    /// The jobs that are due.
    pub(super) fn begin_storage_jobs(&mut self, now: MonotonicTime) -> Vec<StorageJob> {
        if !self.leads_storage() {
            return Vec::new();
        }
        let works = [
            self.begin_round(now),
            self.begin_checkpoint(now),
            self.begin_collection(now),
            self.begin_compaction(now),
            self.begin_sweep(now),
        ];
        let job = |work: Work| {
            let number = self.tiering.under_way.get(&work.kind()).map_or(0, |job| job.names);
            let ticket = Ticket { term: self.role.term, number };
            StorageJob::new(self.id, ticket, work)
        };
        works.into_iter().flatten().map(job).collect()
    }

    fn names(&self, number: u64) -> NameRange {
        let incarnation = self.applier.archive.incarnation();
        NameRange { incarnation, group: self.id, term: Term(self.role.term), number }
    }

    /// Takes what came of a job.
    pub(super) fn storage_done(
        &mut self,
        done: StorageDone,
        now: MonotonicTime,
    ) -> Result<(), Failure> {
        done.result.as_ref().err().map_or(Ok(()), |failure| check_bearable(done.kind, failure))?;
        self.take_done(done, now);
        Ok(())
    }

    fn take_done(&mut self, done: StorageDone, now: MonotonicTime) {
        let StorageDone { kind, ticket, result, .. } = done;
        if self.stopping {
            return;
        }
        // A term was lost meanwhile: what was named under it counts no more.
        let Some(job) = self.tiering.under_way.get_mut(&kind) else { return };
        let known = ticket == Ticket { term: self.role.term, number: job.names };
        if !known && !common::planted::active("object-of-an-older-term-referenced") {
            return;
        }
        let done = match result {
            Ok(done) => done,
            Err(StorageFailure::Stopping) => return,
            Err(failure) => {
                tracing::debug!(group = %self.id, kind = kind.as_str(), %failure, "tried again");
                self.changed = true;
                return self.tiering.failed(kind, &failure, now);
            }
        };
        if let Done::Round { log_bytes, .. } = &done {
            job.log_bytes = *log_bytes;
        }
        self.tiering.succeeded(kind);
        self.changed = true;
        match done {
            Done::Round { round, .. } => self.say(kind, Housekeeping::Round(round)),
            Done::Compaction(compacted) => self.say(kind, Housekeeping::Compacted(compacted)),
            Done::Checkpoint(checkpoint) => {
                self.tiering.under_way.remove(&kind);
                self.tiering.uploaded = Some(Uploaded { checkpoint, since: now });
            }
            Done::Collection(Collected { gone, kept_back }) => {
                self.tiering.only_own |= kept_back;
                self.tiering.next_look.collection = now;
                match gone.is_empty() {
                    true => drop(self.tiering.under_way.remove(&kind)),
                    false => self.say(kind, Housekeeping::Removed(gone)),
                }
            }
            Done::Sweep(swept) => self.swept(&swept, now),
            // Whoever is installed is another member.
            Done::Install(_) => {}
        }
    }

    fn say(&mut self, kind: JobKind, said: Housekeeping) {
        self.tiering.to_propose.push_back((Some(kind), said));
    }
}
