//! Work with the bucket as events: begun with a step, performed later, told later still, so that a
//! crash comes between any two of them; and what a process sent arrives after its end.

use std::collections::BTreeMap;

use common::GroupId;
use lts::{ErrorKind, FaultRates, ObjectName};
use replica::{JobKind, Workshop};

use super::bucket::{Request, Sent, SimBucket, job_of};
use super::node::{Node, Turn};
use super::world::{Event, World};

/// Microseconds within which everything has arrived that was ever sent.
const LATE_MICROS: u64 = 2_000_000;

/// Steps after which a sweep has seen and deleted everything that was there when it was roused: the
/// rest of one that was under way, and a whole one.
const SWEEPS: u64 = 6;

impl World {
    /// Takes up the jobs of the last step.
    pub(super) fn schedule_jobs(&mut self) {
        let Some(node) = &mut self.node else { return };
        for job in node.take_new_jobs() {
            let delay = self.job_delay();
            self.schedule.after(delay, Event::Storage { job });
        }
    }

    fn job_delay(&mut self) -> u64 {
        let longest = self.plan.bucket.as_ref().map_or(1, |plan| plan.job_micros);
        self.random.bucket.between(1, longest)
    }

    /// A job is performed, or the worker hears of it, with the time that the bucket took for it.
    pub(super) fn on_storage(&mut self, job: u64) {
        let (Some(bucket), Some(node)) = (&self.machine.bucket, &mut self.node) else { return };
        let before = bucket.time();
        let turn = node.turn(job);
        let took = bucket.time().since(before).as_micros() as u64;
        match turn {
            Ok(Turn::Gone) => {}
            Ok(Turn::Performed { group, kind, failure }) => {
                let (kind, objects) = (kind.as_str(), bucket.listing().len());
                self.note(format_args!("{kind} {job} of {group}: {objects} objects, {failure:?}"));
                if self.machine.disk.crashed() {
                    return self.node_failed("a job found it crashed".to_owned());
                }
                let delay = self.job_delay() + took;
                self.schedule.after(delay, Event::Storage { job });
            }
            Ok(Turn::Told { group, kind, failed }) => {
                self.note(format_args!("told of job {job}"));
                self.count_job(kind, failed);
                match kind {
                    JobKind::Sweep if !failed => {
                        *self.sweeps_at_rest.entry(group).or_default() += 1
                    }
                    JobKind::Round | JobKind::Checkpoint | JobKind::Compaction => self.rouse(),
                    JobKind::Sweep | JobKind::Collection | JobKind::Install => {}
                }
                if matches!(kind, JobKind::Collection | JobKind::Sweep) {
                    self.check_references(group);
                }
                self.wake();
            }
            Err(failure) => self.node_failed(failure),
        }
    }

    fn count_job(&mut self, kind: JobKind, failed: bool) {
        let coverage = &mut self.coverage;
        let count = match kind {
            _ if failed => &mut coverage.failed_jobs,
            JobKind::Round => &mut coverage.rounds,
            JobKind::Checkpoint => &mut coverage.copies,
            JobKind::Compaction => &mut coverage.compactions,
            JobKind::Collection => &mut coverage.collections,
            JobKind::Sweep => &mut coverage.sweeps,
            // A group of one member has nobody to be behind.
            JobKind::Install => return,
        };
        *count += 1;
    }

    /// The process is about to be no more. Of its jobs some have sent what they had to send, a part
    /// of which is on its way for a while: a pause of it, or of its machine, looks the same.
    pub(super) fn leave_late_requests(&mut self) {
        let (Some(bucket), Some(node)) = (&self.machine.bucket, &mut self.node) else { return };
        let jobs = node.take_jobs();
        self.coverage.lost_jobs += jobs.len() as u64;
        let late = self.plan.bucket.as_ref().is_some_and(|plan| plan.late);
        let workshop = node.workshop().filter(|_| late && !self.machine.disk.crashed());
        let Some(workshop) = workshop else { return };
        for job in jobs {
            let sent = Sent::default();
            let storage = bucket.storage_of_gone(sent.clone());
            job.perform(&Workshop { storage, ..workshop.clone() });
            let mut at = self.schedule.now();
            let requests = sent.take();
            let arrive = self.random.bucket.below(requests.len() as u64 + 1) as usize;
            for request in requests.into_iter().take(arrive) {
                at += self.random.bucket.below(LATE_MICROS / arrive as u64);
                self.late_requests += 1;
                self.schedule.at(at, Event::Late { request });
            }
        }
    }

    pub(super) fn on_late(&mut self, request: Request) {
        self.late_requests -= 1;
        let Some(bucket) = &self.machine.bucket else { return };
        let changed = bucket.arrive(request);
        self.coverage.late_requests += u64::from(changed);
        self.note(format_args!("late request arrives: {changed}"));
    }

    /// The bucket is away for a while, or refuses to be changed.
    pub(super) fn begin_outage(&mut self) {
        let Some(bucket) = &self.machine.bucket else { return };
        let kinds = [ErrorKind::Unavailable, ErrorKind::Full, ErrorKind::Denied];
        let kind = kinds[self.random.bucket.below(3) as usize];
        bucket.set_outage(Some(kind));
        self.coverage.outages += 1;
        self.note(format_args!("the bucket: {kind:?}"));
        let delay = self.random.bucket.between(50_000, 3_000_000);
        self.schedule.after(delay, Event::OutageEnds);
    }

    pub(super) fn on_outage_ends(&mut self) {
        let Some(bucket) = &self.machine.bucket else { return };
        bucket.set_outage(None);
        self.note(format_args!("the bucket answers"));
    }

    /// Nothing goes wrong with the bucket from now on.
    pub(super) fn heal_bucket(&mut self) {
        if let Some(bucket) = &self.machine.bucket {
            bucket.set_rates(FaultRates::default());
        }
        self.on_outage_ends();
    }

    /// A process begins: sometimes with the saved state lost, which the bucket makes up for.
    pub(super) fn lose_state(&mut self) {
        let wipes = self.plan.bucket.as_ref().is_some_and(|plan| plan.wipes);
        if wipes && (self.chaos || self.settled) && self.random.bucket.chance(1, 8) {
            self.note(format_args!("the saved state is gone"));
            self.machine.kv.wipe();
            self.state_was_lost = true;
            self.coverage.lost_states += 1;
        }
    }

    /// Takes note of how far every group is.
    pub(super) fn note_progress(&mut self) {
        let Some(node) = self.node.as_ref().filter(|_| self.machine.bucket.is_some()) else {
            return;
        };
        let now = self.schedule.now();
        for (group, status) in node.statuses() {
            self.progress.note(group, &status, now);
        }
    }

    /// Whether everything is archived and nobody has anything to do with the bucket any more.
    pub(super) fn bucket_is_at_rest(&mut self) -> bool {
        let (Some(plan), Some(node)) = (&self.plan.bucket, &self.node) else {
            return self.machine.bucket.is_none();
        };
        let behind = node.statuses().into_iter().any(|(_, s)| s.unarchived_since.is_some());
        let now = self.schedule.now();
        let rest = plan.rest_micros();
        let swept = |group| self.sweeps_at_rest.get(&group).is_some_and(|count| *count >= SWEEPS);
        let swept = self.machine.groups().all(swept);
        let busy = node.has_jobs();
        if behind || self.late_requests > 0 {
            self.rouse();
            return false;
        }
        now - self.at_rest_since.max(self.healed_at) > rest && swept && !busy
    }

    /// Something came into the bucket, and it takes a while to tell what of it is garbage.
    fn rouse(&mut self) {
        self.at_rest_since = self.schedule.now();
        self.sweeps_at_rest.clear();
    }

    /// Whatever the archive of a group refers to is in the bucket, as long as it should be.
    pub(super) fn check_references(&mut self, group: GroupId) {
        if let Err(missing) = self.missing_reference(group) {
            self.problem(missing);
        }
    }

    fn missing_reference(&self, group: GroupId) -> Result<(), String> {
        let (Some(bucket), Some(node)) = (&self.machine.bucket, &self.node) else { return Ok(()) };
        let Some(archive) = node.archive(group) else { return Ok(()) };
        let objects = bucket.listing();
        let payload = archive.objects().iter().map(|(name, stored)| (*name, stored.length));
        let rounds = archive.rounds().values().map(|r| (r.footer.name, r.footer.length));
        let copies = archive.checkpoints().values().flat_map(|kept| {
            let all =
                std::iter::once(kept.committed.reference).chain(kept.committed.chunks.clone());
            all.map(|object| (object.name, object.length))
        });
        for (name, length) in payload.chain(rounds).chain(copies) {
            if objects.get(&name) != Some(&u64::from(length)) {
                let found = objects.get(&name);
                return Err(format!("group {group} refers to {name} of {length}: {found:?}"));
            }
        }
        Ok(())
    }

    /// At rest, the bucket holds what the archives know and nothing else; and everything that they
    /// refer to.
    pub(super) fn check_bucket(&mut self) {
        let Some(bucket) = self.machine.bucket.clone() else { return };
        let groups: Vec<GroupId> = self.machine.groups().collect();
        for group in groups {
            self.check_references(group);
        }
        let objects = bucket.listing();
        let Some(node) = &self.node else { return };
        // What was put before a recovery stays until a person says that nobody needs it.
        let own = objects.keys().filter(|name| name.incarnation == bucket.marker.incarnation);
        let unknown = |name: &&ObjectName| {
            let archive = node.archive(name.group);
            archive.is_none_or(|archive| !archive.names_between(**name, **name).contains(*name))
        };
        let unknown = own.filter(unknown).copied().collect();
        let unknown: Vec<String> = orphans(&bucket, node, unknown);
        let truncated = node.statuses().into_iter().find(|(_, s)| s.first.0 > s.archived.0 + 1);
        if !unknown.is_empty() {
            self.problem(format!("nobody knows these objects: {unknown:?}"));
        }
        if let Some((group, status)) = truncated {
            let (first, archived) = (status.first, status.archived);
            self.problem(format!(
                "group {group} begins at {first}, its archive ends at {archived}"
            ));
        }
    }
}

/// Of objects that no archive knows, those that should be gone. A copy of the state waits for the
/// chain of rounds to reach it, which is as late as the next write to an idle group.
fn orphans(bucket: &SimBucket, node: &Node, unknown: Vec<ObjectName>) -> Vec<String> {
    let terms: BTreeMap<_, _> = node.statuses().into_iter().map(|(g, s)| (g, s.term)).collect();
    let last = |group| unknown.iter().rfind(|name| name.group == group).copied();
    let waits = |name: &ObjectName| {
        let of_its_group = last(name.group).filter(|last| bucket.is_copy(*last));
        terms.get(&name.group) == Some(&name.term)
            && of_its_group.is_some_and(|last| job_of(last) == job_of(*name))
    };
    unknown.iter().filter(|name| !waits(name)).map(ToString::to_string).collect()
}
