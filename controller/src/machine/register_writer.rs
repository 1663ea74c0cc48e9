//! Named writers: an id that follows from stream and name; each registration gives an epoch above
//! all that were given before, which fences the processes that registered earlier.
//!
//! A name keeps the mode that it was first used in: what its numbers mean does not change while
//! segments know them. It ends with the deletion of the name.

use common::{ScopedStream, WallTime, WriterEpoch, WriterId, WriterName};

use crate::machine::ControllerMachine;
use crate::machine::records::Key;
use crate::machine::stream::{Stream, StreamState, Writer, WriterMode};
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::settings::WRITERS_PER_STREAM_MAX;

impl ControllerMachine {
    pub(super) fn register_writer(
        &mut self,
        name: &ScopedStream,
        writer: &WriterName,
        create: bool,
        mode: WriterMode,
        now: WallTime,
    ) -> Outcome {
        let stream = self.stream(name)?;
        let known = stream.writers.get(writer);
        check_registration(stream, writer, known, create, mode)?;
        let (id, created) = (stream.id, known.is_none());
        let made = Writer {
            id: WriterId::of_name(id, writer),
            epoch: self.counters().next_writer_epoch(),
            mode,
            registered: now,
            deleting: false,
        };
        // Where the records were brought back, or a part of them was lost, the name may be missing
        // and its events be there.
        let cluster = self.counters();
        let brought_back = id.incarnation() < cluster.incarnation || cluster.era > 0;
        self.dirty.insert(Key::Writer(id, writer.clone()));
        let stream = self.state.streams.get_mut(&id).expect("it was looked up before");
        stream.writer_names.insert(made.id, writer.clone());
        let (writer_id, epoch) = (made.id, made.epoch);
        stream.writers.insert(writer.clone(), made);
        Ok(Accepted::WriterRegistered {
            stream: id,
            writer: writer_id,
            epoch,
            created,
            may_be_stored: !created || brought_back,
        })
    }
}

/// A known writer may come back to a sealed stream, to learn which of its events are stored.
fn check_registration(
    stream: &Stream,
    writer: &WriterName,
    known: Option<&Writer>,
    create: bool,
    mode: WriterMode,
) -> Result<(), Refusal> {
    let name = || stream.name.clone();
    match (stream.state, stream.job) {
        (StreamState::Deleting, _) => return Err(Refusal::StreamNotFound(name())),
        (StreamState::Creating, Some(job)) => return Err(Refusal::Busy { stream: name(), job }),
        (StreamState::Creating, None) => return Err(Refusal::NotMade(name())),
        _ => {}
    }
    match known {
        Some(known) if known.deleting => {
            Err(Refusal::WriterDeleting { stream: name(), writer: writer.clone() })
        }
        Some(known) if known.mode != mode => {
            let (stream, writer) = (name(), writer.clone());
            Err(Refusal::OtherMode { stream, writer, kept: known.mode, given: mode })
        }
        Some(_) => Ok(()),
        None if !create => {
            Err(Refusal::WriterNotFound { stream: name(), writer: writer.to_string() })
        }
        None if matches!(stream.state, StreamState::Sealing | StreamState::Sealed) => {
            Err(Refusal::StreamSealed(name()))
        }
        None if stream.writers.len() >= WRITERS_PER_STREAM_MAX => {
            Err(Refusal::TooManyWriters(name()))
        }
        None => Ok(()),
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
