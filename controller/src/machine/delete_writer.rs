//! Delete a writer's name. Its epoch is raised first, which fences its processes here; a job then has
//! every segment forget what it knows of the writer and refuse what still comes of it, those that
//! were truncated away, too. The name is free with the job's last step: whoever registers it then
//! finds nothing of its earlier life, under a higher epoch.

use common::{ScopedStream, StreamId, WallTime, WriterEpoch, WriterId, WriterName};

use crate::machine::ControllerMachine;
use crate::machine::job::JobKind;
use crate::machine::records::Key;
use crate::machine::stream::StreamState;
use crate::outcome::{Accepted, Outcome, Refusal};

impl ControllerMachine {
    pub(super) fn delete_writer(
        &mut self,
        name: &ScopedStream,
        writer: &WriterName,
        epoch: WriterEpoch,
        now: WallTime,
    ) -> Outcome {
        let found = self.stream(name)?;
        let (stream, state, job) = (found.id, found.state, found.job);
        if state == StreamState::Deleting {
            return Err(Refusal::StreamNotFound(name.clone()));
        }
        let Some(known) = found.writers.get(writer) else {
            let (stream, writer) = (name.clone(), writer.to_string());
            return Err(Refusal::WriterNotFound { stream, writer });
        };
        let (id, deleting) = (known.id, known.deleting);
        // Who deletes is asked again where an answer is lost, and means the life that it saw.
        if !deleting && epoch != WriterEpoch(0) && known.epoch > epoch {
            let (stream, writer) = (name.clone(), writer.clone());
            return Err(Refusal::WriterOpenedSince { stream, writer });
        }
        match job {
            Some(job) if self.state.jobs[&job].kind == (JobKind::DeleteWriter { writer: id }) => {
                return Ok(Accepted::Started { stream, job: Some(job) });
            }
            Some(job) => return Err(Refusal::Busy { stream: name.clone(), job }),
            None => {}
        }
        // One that was given up is begun again, under the epoch that it had.
        if !deleting {
            let epoch = self.counters().next_writer_epoch();
            let stream = self.state.streams.get_mut(&stream).expect("it was looked up before");
            let known = stream.writers.get_mut(writer).expect("it was looked up before");
            (known.epoch, known.deleting) = (epoch, true);
            self.dirty.insert(Key::Writer(stream.id, writer.clone()));
        }
        let job = self.start_job(stream, JobKind::DeleteWriter { writer: id }, now);
        Ok(Accepted::Started { stream, job: Some(job) })
    }

    /// The job's end: the name is free.
    pub(super) fn free_writer(&mut self, id: StreamId, writer: WriterId) {
        let stream = self.state.streams.get_mut(&id).expect("a job's stream exists");
        let Some(name) = stream.writer_names.remove(&writer) else { return };
        stream.writers.remove(&name);
        self.dirty.insert(Key::Writer(id, name));
    }
}
