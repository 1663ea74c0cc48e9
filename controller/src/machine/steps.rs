//! What the end of a job's step changes, and what completes when the last one is done.
//!
//! A job's steps follow from its record and its stream (see [`crate::machine::job`]); nothing that
//! the next step is derived from changes while it is carried out, since a stream has one job at a
//! time. So every leader derives the same step from the same record and may repeat it: stores carry
//! out each command idempotently. What a wide stream needs of the state is recorded and dropped in
//! slices, too: no entry costs more than a step's segments.

use common::{Offset, SegmentId, StreamId, WallTime};

use crate::machine::ControllerMachine;
use crate::machine::job::{Job, JobKind, Phase};
use crate::machine::records::Key;
use crate::machine::stream::{SegmentKey, Stream, StreamState};
use crate::outcome::{Accepted, Outcome};
use crate::settings::{JOB_FAILURES_MAX, SEGMENTS_PER_STEP};
use crate::stores::JobId;

impl ControllerMachine {
    pub(super) fn start_job(&mut self, stream: StreamId, kind: JobKind, now: WallTime) -> JobId {
        let id = self.counters().next_job();
        let (phase, batch) = (kind.phases()[0], SEGMENTS_PER_STEP);
        let mut job = Job { stream, kind, step: 0, phase, after: None, batch, started: now };
        let holder = self.stream_mut(stream);
        assert!(holder.job.is_none(), "stream {stream} has one job at a time");
        holder.job = Some(id);
        if kind == JobKind::Truncate {
            holder.leaving = holder.before_head();
        }
        assert!(job.enter(0, holder), "job {id} has something to do");
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
            let to_do = job.enter(0, &self.state.streams[&job.stream]);
            assert!(to_do, "job {id} ends with the step that leaves nothing to do");
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
        let Some(job) = self.state.jobs.get(&id).filter(|job| job.step == step) else {
            return Ok(Accepted::StepPassed { job: id });
        };
        let mut job = job.clone();
        self.record_lengths(job.stream, lengths);
        self.dirty.insert(Key::Job(id));
        self.jobs_changed = true;
        let finished = !self.advance(&mut job);
        if finished {
            self.complete(id, &job);
        } else {
            self.state.jobs.insert(id, job);
        }
        Ok(Accepted::StepRecorded { job: id, finished })
    }

    /// Goes behind the step's segments, and on to the next phase where they were its last. `false`:
    /// that was the job's last step.
    fn advance(&mut self, job: &mut Job) -> bool {
        let done = job.slice(&self.state.streams[&job.stream]);
        job.step += 1;
        job.after = done.last().copied().or(job.after);
        match job.phase {
            Phase::Create => self.record_segments(job.stream, job.batch),
            Phase::DeleteEarlier => self.take_out(job.stream, &done),
            Phase::Drop => self.drop_records(job.stream, job.batch),
            Phase::Seal
            | Phase::Truncate
            | Phase::DeleteAll
            | Phase::Forget
            | Phase::DeleteWriter => {}
        }
        let phase = job.phase_number();
        if !job.phase_is_over(&self.state.streams[&job.stream]) {
            return true;
        }
        if !job.enter(phase + 1, &self.state.streams[&job.stream]) {
            return false;
        }
        // The first slice of what needs no store goes with the step before it.
        if job.phase == Phase::Drop && phase != job.phase_number() {
            self.drop_records(job.stream, job.batch);
        }
        !job.phase_is_over(&self.state.streams[&job.stream])
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

    /// Segments that their containers deleted are not the stream's any more.
    fn take_out(&mut self, id: StreamId, keys: &[SegmentKey]) {
        let stream = self.state.streams.get_mut(&id).expect("a job's stream exists");
        stream.leaving.drain(..keys.len());
        for key in keys {
            let stream = self.state.streams.get_mut(&id).expect("it was there just now");
            let segment = stream.segments.remove(key).expect("it was found in the stream");
            let segment_id = stream.segment_id(*key);
            let container = segment.container;
            stream.removed.insert(*key, segment);
            self.count_segment(container, -1);
            self.dirty.insert(Key::Segment(segment_id));
            self.dirty.insert(Key::Removed(segment_id));
        }
    }

    fn complete(&mut self, id: JobId, job: &Job) {
        self.state.jobs.remove(&id);
        let stream = self.stream_mut(job.stream);
        stream.job = None;
        match job.kind {
            JobKind::Create => stream.state = StreamState::Active,
            JobKind::Seal => stream.state = StreamState::Sealed,
            JobKind::Truncate => stream.head_is_ahead = false,
            JobKind::Delete { .. } => self.remove_stream(job.stream),
            JobKind::DeleteWriter { writer } => self.free_writer(job.stream, writer),
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
            return match job.phase {
                Phase::Seal => self.step_done(id, step, &[]),
                _ => Ok(Accepted::StepPassed { job: id }),
            };
        }
        self.state.jobs.remove(&id);
        let holder = self.stream_mut(stream);
        holder.job = None;
        holder.leaving.clear();
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
