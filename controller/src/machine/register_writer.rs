//! Named writers: a name keeps one id for the life of its stream; each registration raises the
//! writer epoch, which fences the processes that registered before.

use common::{ScopedStream, WallTime, WriterEpoch, WriterId, WriterName};

use crate::machine::ControllerMachine;
use crate::machine::records::Key;
use crate::machine::stream::{Stream, StreamState, Writer};
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::settings::WRITERS_PER_STREAM_MAX;

impl ControllerMachine {
    pub(super) fn register_writer(
        &mut self,
        name: &ScopedStream,
        writer: &WriterName,
        create: bool,
        source_fingerprint: u64,
        now: WallTime,
    ) -> Outcome {
        let stream = self.stream(name)?;
        let known = stream.writers.contains_key(writer);
        check_registration(stream, writer, known, create)?;
        let id = stream.id;
        if !known {
            let made = Writer {
                id: self.counters().next_writer(),
                epoch: WriterEpoch::default(),
                source_fingerprint,
                registered: now,
            };
            let stream = self.stream_mut(id);
            stream.writer_names.insert(made.id, writer.clone());
            stream.writers.insert(writer.clone(), made);
        }
        let incarnation = self.counters().incarnation;
        self.dirty.insert(Key::Writer(id, writer.clone()));
        let stream = self.state.streams.get_mut(&id).expect("it was looked up before");
        let entry = stream.writers.get_mut(writer).expect("it was known or has just been made");
        entry.epoch = WriterEpoch::new(incarnation, entry.epoch.counter() + 1);
        entry.registered = now;
        Ok(Accepted::WriterRegistered {
            stream: id,
            writer: entry.id,
            epoch: entry.epoch,
            created: !known,
            source_fingerprint: entry.source_fingerprint,
        })
    }
}

/// A known writer may come back to a sealed stream, to learn which of its events are stored.
fn check_registration(
    stream: &Stream,
    writer: &WriterName,
    known: bool,
    create: bool,
) -> Result<(), Refusal> {
    let name = || stream.name.clone();
    match (stream.state, stream.job) {
        (StreamState::Deleting, _) => Err(Refusal::StreamNotFound(name())),
        (StreamState::Creating, Some(job)) => Err(Refusal::Busy { stream: name(), job }),
        (StreamState::Creating, None) => Err(Refusal::NotMade(name())),
        _ if known => Ok(()),
        _ if !create => Err(Refusal::WriterNotFound { stream: name(), writer: writer.to_string() }),
        (StreamState::Sealing | StreamState::Sealed, _) => Err(Refusal::StreamSealed(name())),
        _ if stream.writers.len() >= WRITERS_PER_STREAM_MAX => Err(Refusal::TooManyWriters(name())),
        _ => Ok(()),
    }
}

impl Stream {
    /// Whether the process that registered as `writer` under `epoch` may still use the stream.
    pub fn check_writer(&self, writer: WriterId, epoch: WriterEpoch) -> Result<(), Refusal> {
        let found = self.writer_names.get(&writer).and_then(|name| self.writers.get(name));
        let Some(found) = found else {
            let writer = format!("{:032x}", writer.0);
            return Err(Refusal::WriterNotFound { stream: self.name.clone(), writer });
        };
        if epoch < found.epoch {
            return Err(Refusal::WriterFenced { given: epoch, current: found.epoch });
        }
        Ok(())
    }
}
