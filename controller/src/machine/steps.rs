//! Jobs: workflows whose finished steps are recorded, and what completes when the last one is.
//!
//! A job's steps follow from its stream and its kind; nothing that the steps are derived from
//! changes while the job runs, since a stream has one job at a time. So every leader derives the
//! same step from the same record and may repeat it: stores carry out each command idempotently.

use common::{Offset, SegmentId, StreamId, WallTime};

use crate::machine::ControllerMachine;
use crate::machine::records::Key;
use crate::machine::stream::{Stream, StreamState};
use crate::outcome::{Accepted, Outcome};
use crate::settings::{JOB_FAILURES_MAX, SEGMENTS_PER_STEP};
use crate::stores::JobId;

/// A running workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub stream: StreamId,
    pub kind: JobKind,
    /// The step to carry out next; those before it are done for good.
    pub step: u32,
    /// Segments per step, recorded so that another build derives the same steps.
    pub batch: u32,
    pub started: WallTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    Create,
    Seal,
    Truncate,
    Delete { seal_first: bool },
}

/// What a step does to its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Make the newest epoch's segments.
    Create,
    /// Seal the newest epoch's segments.
    Seal,
    /// Truncate the segments of the head.
    Truncate,
    /// Delete the segments before the head.
    DeleteEarlier,
    /// Delete every segment of the stream.
    DeleteAll,
    /// Forget every segment that the stream ever had.
    Forget,
}

impl Job {
    /// The job's phases with the number of segments of each.
    pub(crate) fn phases(&self, stream: &Stream) -> Vec<(Phase, usize)> {
        let current = stream.current.len();
        let all = stream.segments.len();
        match self.kind {
            JobKind::Create => vec![(Phase::Create, current)],
            JobKind::Seal => vec![(Phase::Seal, current)],
            JobKind::Truncate => vec![
                (Phase::Truncate, stream.head.len()),
                (Phase::DeleteEarlier, stream.before_head().len()),
            ],
            JobKind::Delete { seal_first } => vec![
                (Phase::Seal, if seal_first { current } else { 0 }),
                (Phase::DeleteAll, all),
                (Phase::Forget, all + stream.removed.len()),
            ],
        }
    }

    pub(crate) fn steps(&self, stream: &Stream) -> u32 {
        self.phases(stream).into_iter().map(|(_, segments)| self.steps_for(segments)).sum()
    }

    /// The phase that the next step is of.
    fn phase(&self, stream: &Stream) -> Option<Phase> {
        let mut ends = 0;
        let mut phases = self.phases(stream).into_iter();
        let phase = phases.find(|(_, segments)| {
            ends += self.steps_for(*segments);
            self.step < ends
        });
        phase.map(|(phase, _)| phase)
    }

    pub(crate) fn steps_for(&self, segments: usize) -> u32 {
        let segments = u32::try_from(segments).expect("a stream's segments are limited below 2^32");
        segments.div_ceil(self.batch)
    }
}

impl ControllerMachine {
    pub(super) fn start_job(&mut self, stream: StreamId, kind: JobKind, now: WallTime) -> JobId {
        let id = self.counters().next_job();
        let job = Job { stream, kind, step: 0, batch: SEGMENTS_PER_STEP, started: now };
        let holder = self.stream_mut(stream);
        assert!(holder.job.is_none(), "stream {stream} has one job at a time");
        holder.job = Some(id);
        assert!(job.steps(holder) > 0, "job {id} has something to do");
        self.state.jobs.insert(id, job);
        self.dirty.insert(Key::Job(id));
        self.jobs_changed = true;
        id
    }

    /// Has a job do its steps once more, from the first one.
    pub(super) fn begin_again(&mut self, id: JobId) {
        let job = self.state.jobs.get_mut(&id).expect("a stream's job exists");
        if job.step > 0 {
            job.step = 0;
            self.dirty.insert(Key::Job(id));
            self.jobs_changed = true;
        }
    }

    pub(super) fn step_done(
        &mut self,
        id: JobId,
        step: u32,
        lengths: &[(SegmentId, Offset)],
    ) -> Outcome {
        let Some(job) = self.state.jobs.get_mut(&id).filter(|job| job.step == step) else {
            return Ok(Accepted::StepPassed { job: id });
        };
        job.step += 1;
        let job = job.clone();
        self.dirty.insert(Key::Job(id));
        self.jobs_changed = true;
        self.record_lengths(job.stream, lengths);
        let finished = job.step >= job.steps(&self.state.streams[&job.stream]);
        if finished {
            self.complete(id, &job);
        }
        Ok(Accepted::StepRecorded { job: id, finished })
    }

    fn record_lengths(&mut self, stream: StreamId, lengths: &[(SegmentId, Offset)]) {
        let holder = self.state.streams.get_mut(&stream).expect("a job's stream exists");
        for (id, length) in lengths.iter().filter(|(id, _)| id.stream == stream) {
            let segment = holder.segments.get_mut(&Stream::key_of(*id));
            if let Some(segment) = segment.filter(|segment| segment.sealed.is_none()) {
                segment.sealed = Some(*length);
                self.dirty.insert(Key::Segment(*id));
            }
        }
    }

    fn complete(&mut self, id: JobId, job: &Job) {
        self.state.jobs.remove(&id);
        let stream = self.stream_mut(job.stream);
        stream.job = None;
        match job.kind {
            JobKind::Create => stream.state = StreamState::Active,
            JobKind::Seal => stream.state = StreamState::Sealed,
            JobKind::Truncate => self.drop_before_head(job.stream),
            JobKind::Delete { .. } => self.remove_stream(job.stream),
        }
    }

    /// What a segment store refuses for good, which only lost data or a defect brings about, ends
    /// the job, so that the stream is free for another: what was asked can be asked again, and the
    /// stream can be deleted. Deletion itself goes on: its seals are there for writers that are
    /// alive and may fail, its deletes are never refused.
    pub(super) fn step_failed(&mut self, id: JobId, step: u32, message: &str) -> Outcome {
        let Some(job) = self.state.jobs.get(&id).filter(|job| job.step == step) else {
            return Ok(Accepted::StepPassed { job: id });
        };
        let (stream, kind) = (job.stream, job.kind);
        if matches!(kind, JobKind::Delete { .. }) {
            let sealing = job.phase(&self.state.streams[&stream]) == Some(Phase::Seal);
            return match sealing {
                true => self.step_done(id, step, &[]),
                false => Ok(Accepted::StepPassed { job: id }),
            };
        }
        self.state.jobs.remove(&id);
        self.stream_mut(stream).job = None;
        self.state.failures.insert(id, message.to_owned());
        self.dirty.insert(Key::Job(id));
        self.dirty.insert(Key::Failure(id));
        if self.state.failures.len() > JOB_FAILURES_MAX
            && let Some((oldest, _)) = self.state.failures.pop_first()
        {
            self.dirty.insert(Key::Failure(oldest));
        }
        self.jobs_changed = true;
        Ok(Accepted::StepRecorded { job: id, finished: true })
    }
}
