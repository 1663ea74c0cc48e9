//! The machine is lost, and another one is made from the bucket: the last act of some runs.
//!
//! What must be there then is told from outside: an acknowledgement that came before a group had
//! applied more than what was found archived is of an entry that was archived.

use std::collections::BTreeMap;

use common::{GroupId, LogIndex};
use replica::restore::RestoreFailure;
use replica::{GroupStatus, MemKv, recover};
use wal::{CrashOutcome, SimDisk};

use super::invariants::Invariants;
use super::node::Failure;
use super::streams::{Phase, Stream};
use super::world::World;
use crate::history::{Answer, Operation, SegmentRef, What};

/// How far the groups had come when.
#[derive(Debug, Default)]
pub(super) struct Progress(BTreeMap<GroupId, OfGroup>);

#[derive(Debug, Default)]
struct OfGroup {
    archived: LogIndex,
    /// Rising: from when on which entry was applied.
    applied: Vec<(LogIndex, u64)>,
}

impl Progress {
    pub(super) fn note(&mut self, group: GroupId, status: &GroupStatus, at: u64) {
        let known = self.0.entry(group).or_default();
        known.archived = known.archived.max(status.archived);
        if known.applied.last().is_none_or(|(last, _)| *last < status.applied) {
            known.applied.push((status.applied, at));
        }
    }

    fn archived(&self, group: GroupId) -> LogIndex {
        self.0.get(&group).map_or(LogIndex(0), |known| known.archived)
    }

    /// When an entry behind `end` was first applied.
    fn passed(&self, group: GroupId, end: LogIndex) -> u64 {
        let applied = self.0.get(&group).map_or(&[][..], |known| &known.applied);
        let behind = applied.partition_point(|(index, _)| *index <= end);
        applied.get(behind).map_or(u64::MAX, |(_, at)| *at)
    }
}

impl World {
    /// Log and state are gone in the middle of everything.
    pub(super) fn lose_machine(&mut self) {
        self.note(format_args!("the machine is lost"));
        self.leave_late_requests();
        self.machine_is_lost = true;
        self.forget_process();
        self.invariants = Invariants::default();
        self.clients.iter_mut().for_each(|client| client.gave_up = true);
        for stream in &mut self.streams {
            stream.planned.clear();
            end_stream(stream);
        }
        let mut attempts = 0;
        let ends = loop {
            attempts += 1;
            match self.prepare_another(attempts == 1) {
                Ok(ends) => break ends,
                // A recovery that was interrupted begins again, in another folder.
                Err(_) if self.machine.disk.crashed() => {
                    self.note(format_args!("crash while the machine is made anew"));
                }
                Err(failure) => return self.problem(format!("recovery: {failure}")),
            }
        };
        self.coverage.recoveries += 1;
        self.note(format_args!("made anew: {ends:?}"));
        for (group, end) in &ends {
            let archived = self.progress.archived(*group);
            if *end < archived {
                self.problem(format!("{group} was archived to {archived}, {end} was found"));
            }
        }
        self.record_recovery(&ends);
    }

    /// Lays another machine's foundations; the last entry of each group that was found.
    fn prepare_another(&mut self, may_crash: bool) -> Result<BTreeMap<GroupId, LogIndex>, Failure> {
        let rng = &mut self.random.bucket;
        self.machine.disk = SimDisk::new(rng.fork("another disk"));
        self.machine.kv = MemKv::new();
        let bucket = self.machine.bucket.as_mut().expect("only a machine with a bucket is lost");
        bucket.take_over(rng);
        self.machine.recovering = Some(bucket.marker.incarnation);
        let storage = bucket.storage(rng);
        if may_crash && rng.chance(1, 2) {
            self.machine.disk.crash_at(rng.between(1, 60), CrashOutcome::Random);
        }
        let log = self.machine.open_log(rng)?;
        let mut ends = BTreeMap::new();
        for group in self.machine.groups() {
            let end = match recover::prepare(&storage, group, false, &log, &self.machine.kv) {
                Ok(found) => found.end,
                Err(RestoreFailure::Nothing) => LogIndex(0),
                Err(failure) => return Err(format!("group {group}: {failure}")),
            };
            ends.insert(group, end);
        }
        Ok(ends)
    }

    fn record_recovery(&mut self, ends: &BTreeMap<GroupId, LogIndex>) {
        let now = self.schedule.now();
        for stream in &self.streams {
            for (at, place) in stream.places.iter().enumerate() {
                let group = place.container.group();
                let until = self.progress.passed(group, ends[&group]);
                let segment = SegmentRef { stream: stream.number, segment: at as u32 };
                let recover = Operation::Recover { segment, until };
                let op = self.recorder.invoke(now, u32::MAX, recover);
                self.recorder.end(now, u32::MAX, op, What::Ok { answer: Answer::Done });
            }
        }
    }
}

/// Nobody administers it any more. One whose deletion was under way may be there or not.
fn end_stream(stream: &mut Stream) {
    let deleted = match &stream.phase {
        Phase::Wanted | Phase::Deleted => true,
        Phase::Asked(of) | Phase::Working { of, .. } => matches!(
            of,
            controller::Operation::CreateStream { .. } | controller::Operation::DeleteStream { .. }
        ),
        Phase::Live | Phase::Scaling(_) | Phase::Sealed => false,
    };
    stream.phase = if deleted { Phase::Deleted } else { Phase::Live };
}
