//! When a group's log is archived, its state copied, and garbage collected.
//!
//! Only a leader that has applied an entry of its own term does any of it, one job of a kind at a
//! time. Jobs are handed out as values; what came of them is proposed as a housekeeping entry and
//! counts when that is applied. A lost term forgets everything that was under way: its objects can
//! never be referred to again.
//!
//! Housekeeping never begins a round or a checkpoint by itself: a group that is idle comes to rest.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use common::{Incarnation, LogIndex, MonotonicTime, Term};
use lts::ObjectName;
use raft::eraftpb::{Entry as RaftEntry, Message, MessageType};

use super::Group;
use super::apply::Applier;
use crate::archive::{Archive, CommittedCheckpoint, CommittedRound, Housekeeping};
use crate::envelope;
use crate::error::Failure;
use crate::machine::StateMachine;
use crate::storage::proposed;
use crate::tiering::{
    CheckpointUpload, Collected, Collection, Compaction, Done, JobKind, NameRange, Place,
    RoundUpload, Storage, StorageDone, StorageFailure, StorageJob, Sweep, Swept, Ticket,
    TieringSettings, Work,
};

mod behind;

pub(super) use behind::Behind;

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
    uploaded: Option<CommittedCheckpoint>,
    pauses: BTreeMap<JobKind, Pause>,
    pub(super) behind: Behind,
    /// What was applied since the state was copied last.
    since_checkpoint: Behind,
    /// What the copy that is being made is to cover.
    in_checkpoint: Behind,
    checkpoint_not_before: MonotonicTime,
    next_look: Looks,
    sweep: Option<Sweep>,
    /// The log is so full that everything is archived as soon as possible.
    pressed: bool,
    /// Since when what is not archived, be it housekeeping alone, keeps a large part of the log.
    in_the_way: Option<MonotonicTime>,
    pub(super) failure: Option<String>,
    /// A round was taken over since the log was truncated last.
    pub(super) truncatable: bool,
    /// What earlier incarnations put may not be deleted: it is left out until the next sweep.
    only_own: bool,
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
            checkpoint_not_before: now,
            next_look: Looks::default(),
            sweep: None,
            pressed: false,
            in_the_way: None,
            failure: None,
            truncatable: false,
            only_own: false,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.storage.is_some()
    }

    /// What the group found at its start: what is not archived, and what no checkpoint has.
    pub(super) fn found(&mut self, behind: Behind, since_checkpoint: Behind) {
        (self.behind, self.since_checkpoint) = (behind, since_checkpoint);
    }

    /// What the group says as soon as it leads.
    pub(super) fn recovered(&mut self, incarnation: Incarnation, rounds: Vec<CommittedRound>) {
        self.take_over_until = rounds.last().map_or(LogIndex(0), |round| *round.range().end());
        let rounds = rounds.into_iter().map(Housekeeping::Round);
        self.recovery =
            std::iter::once(Housekeeping::Recovered(incarnation)).chain(rounds).collect();
    }

    pub(super) fn take_over(&mut self) {
        self.to_propose.extend(self.recovery.drain(..).map(|said| (None, said)));
    }

    fn settings(&self) -> Option<&TieringSettings> {
        self.storage.as_ref().map(|storage| &storage.settings)
    }

    /// The term is lost, or a new one begins: names are counted anew under it.
    pub(super) fn begin_term(&mut self) {
        self.names = 0;
        self.under_way.clear();
        self.to_propose.clear();
        self.uploaded = None;
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
        let Some((kind, job)) = ours.map(|(kind, job)| (*kind, *job)) else { return };
        self.under_way.remove(&kind);
        match (kind, result) {
            (JobKind::Round, Ok(())) => {
                self.behind.archived(job.log_bytes, job.began, applier.archive.is_behind());
                self.truncatable = true;
            }
            (_, Ok(())) => {}
            (_, Err(refused)) => {
                tracing::debug!(kind = kind.as_str(), %refused, "housekeeping is made again");
            }
        }
    }

    /// Whether there is a bucket, and the archive is of the cluster that owns it, and whole.
    fn suits(&self, archive: &Archive) -> bool {
        let Some(storage) = &self.storage else { return false };
        let ours = storage.marker.is_none_or(|own| own.incarnation == archive.incarnation());
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

    fn round_due(&self) -> Option<MonotonicTime> {
        let settings = self.settings()?;
        if let Some(since) = self.in_the_way {
            return self.at(JobKind::Round, since);
        }
        let since = self.behind.since()?;
        let now = self.pressed || self.behind.bytes() >= settings.round_bytes.bytes();
        let due = if now { since } else { since.plus(settings.round_age) };
        self.at(JobKind::Round, due)
    }

    fn checkpoint_due(&self, saved: LogIndex, newest: LogIndex) -> Option<MonotonicTime> {
        let settings = self.settings()?;
        if self.uploaded.is_some() || saved <= newest {
            return None;
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
            JobKind::Checkpoint => self.since_checkpoint.and_before(self.in_checkpoint),
            JobKind::Round | JobKind::Install => {}
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
        let uploaded = self.uploaded.as_ref().map(|kept| NameRange::of(kept.reference.name));
        lowest.into_iter().chain(uploaded).min().unwrap_or(self.names + 1)
    }
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
        let newest = self.applier.archive.newest_checkpoint();
        let round = self.tiering.round_due();
        let checkpoint = self.tiering.checkpoint_due(self.saved.flushed, newest);
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
            StorageJob { group: self.id, ticket, work }
        };
        works.into_iter().flatten().map(job).collect()
    }

    fn names(&self, number: u64) -> NameRange {
        let incarnation = self.applier.archive.incarnation();
        NameRange { incarnation, group: self.id, term: Term(self.role.term), number }
    }

    fn begin_round(&mut self, now: MonotonicTime) -> Option<Work> {
        if self.tiering.round_due().is_none_or(|due| due > now) {
            return None;
        }
        let archive = &self.applier.archive;
        let first = LogIndex(archive.end().0 + 1);
        let last = LogIndex(self.applier.applied.index.0.min(archive.end().0 + ROUND_ENTRIES_MAX));
        if last < first {
            return None;
        }
        let continues = archive.tip();
        self.tiering.in_the_way = None;
        let number = self.tiering.begin(JobKind::Round, now);
        let count = (last.0 - first.0 + 1) as usize;
        Some(Work::Round(RoundUpload {
            names: self.names(number),
            continues,
            range: first..=last,
            membership: self.node.store().membership(),
            digests: self.applier.digests.part(first, count),
            owners: self.applier.machine.owners(),
        }))
    }

    fn begin_checkpoint(&mut self, now: MonotonicTime) -> Option<Work> {
        let newest = self.applier.archive.newest_checkpoint();
        if self.tiering.checkpoint_due(self.saved.flushed, newest).is_none_or(|due| due > now) {
            return None;
        }
        let settings = self.tiering.settings()?;
        let (pause, keep) = (settings.checkpoint_pause, settings.checkpoint_keep);
        self.tiering.checkpoint_not_before = now.plus(pause);
        self.tiering.in_checkpoint = std::mem::take(&mut self.tiering.since_checkpoint);
        let number = self.tiering.begin(JobKind::Checkpoint, now);
        Some(Work::Checkpoint(CheckpointUpload {
            names: self.names(number),
            membership: self.node.store().membership(),
            keep_micros: keep.as_micros() as u64,
        }))
    }

    fn begin_collection(&mut self, now: MonotonicTime) -> Option<Work> {
        let due = self.tiering.next_look.collection <= now;
        if !due || !self.tiering.is_free(JobKind::Collection, now) {
            return None;
        }
        let grace = self.tiering.settings()?.grace;
        self.tiering.next_look.collection = now.plus(grace.min(COLLECT_INTERVAL));
        let (archive, up) = (&self.applier.archive, self.applier.up_micros(now));
        let from = if self.tiering.only_own { archive.incarnation() } else { Incarnation(0) };
        let names = archive.collectable(up, grace.as_micros() as u64, from, COLLECT_MAX);
        if names.is_empty() {
            if archive.has_old(up) {
                self.tiering.begin(JobKind::Collection, now);
                let nothing = Housekeeping::Removed(Vec::new());
                self.tiering.to_propose.push_back((Some(JobKind::Collection), nothing));
                self.retry = true;
            }
            return None;
        }
        let incarnation = archive.incarnation();
        self.tiering.begin(JobKind::Collection, now);
        Some(Work::Collection(Collection { incarnation, names }))
    }

    fn begin_compaction(&mut self, now: MonotonicTime) -> Option<Work> {
        let due = self.tiering.next_look.compaction;
        let looks = due > MonotonicTime::default() && due <= now;
        if !looks || !self.tiering.is_free(JobKind::Compaction, now) {
            return None;
        }
        // Asked again after the next round, or at once where there may be more to do.
        self.tiering.next_look.compaction = MonotonicTime::default();
        let bytes_max = self.tiering.settings()?.compaction_bytes_max;
        let plan = self.applier.machine.compaction()?.up_to(bytes_max.bytes());
        let plan = Some(plan).filter(|plan| !plan.pieces.is_empty())?;
        self.tiering.next_look.compaction = now;
        let number = self.tiering.begin(JobKind::Compaction, now);
        Some(Work::Compaction(Compaction { names: self.names(number), plan }))
    }

    fn begin_sweep(&mut self, now: MonotonicTime) -> Option<Work> {
        if self.tiering.next_look.sweep > now || !self.tiering.is_free(JobKind::Sweep, now) {
            return None;
        }
        let interval = self.tiering.settings()?.sweep_interval;
        let (incarnation, group) = (self.applier.archive.incarnation(), self.id);
        let next = Some(Place::first(incarnation));
        let begun = Sweep { incarnation, group, garbage: Vec::new(), next };
        let step = self.tiering.sweep.take().unwrap_or(begun);
        self.tiering.next_look.sweep = now.plus(interval);
        self.tiering.only_own = false;
        self.tiering.begin(JobKind::Sweep, now);
        Some(Work::Sweep(step))
    }

    /// Takes what came of a job.
    pub(super) fn storage_done(&mut self, done: StorageDone, now: MonotonicTime) {
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
                self.tiering.uploaded = Some(checkpoint);
            }
            Done::Collection(Collected { gone, kept_back }) => {
                self.tiering.only_own |= kept_back;
                self.tiering.next_look.collection = now;
                match gone.is_empty() {
                    true => drop(self.tiering.under_way.remove(&kind)),
                    false => self.say(kind, Housekeeping::Removed(gone)),
                }
            }
            Done::Sweep(swept) => self.swept(swept, now),
            // Whoever is installed is another member.
            Done::Install(_) => {}
        }
    }

    fn say(&mut self, kind: JobKind, said: Housekeeping) {
        self.tiering.to_propose.push_back((Some(kind), said));
    }

    /// What of a page nobody refers to, and never will: what was named under an earlier incarnation or
    /// an older term, since an entry of this one is applied, and below everything that is under way in
    /// this one.
    fn swept(&mut self, swept: Swept, now: MonotonicTime) {
        self.tiering.under_way.remove(&JobKind::Sweep);
        if swept.deleted > 0 {
            tracing::info!(group = %self.id, objects = swept.deleted, "deleted what nobody refers to");
        }
        let garbage = self.garbage_among(&swept.names);
        if garbage.is_empty() && swept.next.is_none() {
            return;
        }
        let (incarnation, group) = (self.applier.archive.incarnation(), self.id);
        self.tiering.sweep = Some(Sweep { incarnation, group, garbage, next: swept.next });
        self.tiering.next_look.sweep = now;
    }

    /// Of names in order.
    fn garbage_among(&self, names: &[ObjectName]) -> Vec<ObjectName> {
        let (Some(first), Some(last)) = (names.first(), names.last()) else { return Vec::new() };
        let archive = &self.applier.archive;
        let known = archive.names_between(*first, *last);
        let (own, term) = (archive.incarnation(), Term(self.role.term));
        let lowest = self.tiering.lowest_open();
        let garbage = |name: &&ObjectName| {
            let early = common::planted::active("sweep-takes-what-is-under-way");
            let decided = early
                || name.incarnation < own
                || name.term < term
                || (name.term == term && NameRange::of(**name) < lowest);
            decided && !known.contains(*name)
        };
        names.iter().filter(garbage).copied().collect()
    }

    /// Proposes what waits for it.
    pub(super) fn propose_housekeeping(&mut self) -> Result<(), Failure> {
        let end = self.applier.archive.end();
        let reached = |kept: &mut CommittedCheckpoint| kept.index <= end;
        if !self.tiering.under_way.contains_key(&JobKind::Checkpoint)
            && let Some(checkpoint) = self.tiering.uploaded.take_if(reached)
        {
            let names = NameRange::of(checkpoint.reference.name);
            let began = self.clock.monotonic();
            let job = UnderWay { names, began, log_bytes: 0, entry: None };
            self.tiering.under_way.insert(JobKind::Checkpoint, job);
            self.say(JobKind::Checkpoint, Housekeeping::Checkpoint(checkpoint));
        }
        while !self.is_blocked() && !self.tiering.to_propose.is_empty() {
            if !self.log.room() {
                self.retry = true;
                break;
            }
            let Some((kind, said)) = self.tiering.to_propose.pop_front() else { break };
            self.propose_said(kind, &said)?;
            self.handle_ready()?;
        }
        Ok(())
    }

    fn propose_said(&mut self, kind: Option<JobKind>, said: &Housekeeping) -> Result<(), Failure> {
        let stamp = self.applier.stamps.next(&*self.clock);
        let context = envelope::housekeeping(stamp, |out| said.encode(out));
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.peer;
        message.set_entries(vec![proposed(context, Bytes::new())].into());
        match self.node.raft.step(message) {
            Ok(()) => {}
            Err(raft::Error::ProposalDropped) => {
                // In no log: the job is done again.
                kind.map(|kind| self.tiering.under_way.remove(&kind));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let raft = &self.node.raft;
        let place = (raft.raft_log.last_index(), raft.term);
        if let Some(job) = kind.and_then(|kind| self.tiering.under_way.get_mut(&kind)) {
            job.entry = Some(place);
        }
        if kind == Some(JobKind::Round) {
            let interval = self.tiering.settings().map(|settings| settings.compaction_interval);
            let due = self.clock.monotonic().plus(interval.unwrap_or_default());
            let look = &mut self.tiering.next_look.compaction;
            if *look == MonotonicTime::default() {
                *look = due;
            }
        }
        Ok(())
    }
}
