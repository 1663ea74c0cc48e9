//! What a segment knows of one writer, and its saved form.
//!
//! ```text
//! entry  version u8 | 0 (the chain holds) or 1 (it broke) | session 12 | used u64 | named u8
//!        | last u64 | sum u64 | sum after u64
//! stub   version u8 | 2 | session 12 | since u64 | stored u8
//! ```

use bytes::{BufMut, Bytes};
use common::{EventNumber, WriterSession};

use super::QUEUE_LAG_MICROS;
use crate::codec::{CodecError, Fields, PutFields, written};
use crate::container::unsaved::{Generation, UNCHANGED};
use crate::limits::{WRITER_TTL, micros};
use crate::operation::EventSum;

/// What a segment remembers of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Writer {
    pub(crate) session: WriterSession,
    /// The last stored number.
    pub(crate) last: EventNumber,
    /// As the block that brought `last` had it.
    pub(crate) sum: EventSum,
    /// Up-time of the last use, microseconds.
    pub(crate) used_micros: u64,
    pub(crate) named: bool,
    pub(crate) state: WriterState,
    /// Where the entry stands in the queue of what time may take: at or before its last use.
    pub(crate) queued_micros: u64,
    /// When it was listed as changed.
    pub(crate) mark: Generation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriterState {
    /// The chain holds.
    Open,
    /// The chain broke: nothing is stored until the next `Open`.
    Broken,
}

/// What is left of a writer: what refuses blocks and opens that are still on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stub {
    pub(crate) session: WriterSession,
    /// Up-time of the moment at which the entry was forgotten, microseconds.
    pub(crate) since_micros: u64,
    /// Whether something had been stored under the entry. Otherwise nothing was, for certain.
    pub(crate) stored: bool,
}

/// An entry or a stub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Writer(Writer),
    Stub(Stub),
}

/// The place of an entry that stands in no queue.
pub(crate) const NOT_QUEUED: u64 = u64::MAX;

impl Writer {
    pub(crate) fn new(session: WriterSession, named: bool, used_micros: u64) -> Self {
        Self {
            session,
            last: EventNumber::NONE,
            sum: EventSum::default(),
            used_micros,
            named,
            state: WriterState::Open,
            queued_micros: NOT_QUEUED,
            mark: UNCHANGED,
        }
    }

    pub(crate) fn has_stored(&self) -> bool {
        self.last > EventNumber::NONE
    }

    /// Whether time and the limit may take the entry. What a named writer stored, only
    /// the deletion of its name forgets: its next process would store everything again.
    pub(crate) fn expires(&self) -> bool {
        !(self.named && self.has_stored())
    }

    pub(crate) fn is_due(&self, up_micros: u64) -> bool {
        self.expires() && self.used_micros.saturating_add(micros(WRITER_TTL)) <= up_micros
    }

    /// Notes a use; `true` where the entry's place in the queue must follow.
    pub(crate) fn touch(&mut self, up_micros: u64) -> bool {
        self.used_micros = self.used_micros.max(up_micros);
        self.queued_micros != NOT_QUEUED
            && (self.used_micros - self.queued_micros >= QUEUE_LAG_MICROS || !self.expires())
    }
}

impl Trace {
    pub(crate) fn session(&self) -> WriterSession {
        match self {
            Trace::Writer(entry) => entry.session,
            Trace::Stub(stub) => stub.session,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        written(1 + 1 + 12 + 8 + 1 + 24, |out| {
            out.put_u8(VERSION);
            match self {
                Trace::Writer(entry) => {
                    out.put_u8(match entry.state {
                        WriterState::Open => OPEN,
                        WriterState::Broken => BROKEN,
                    });
                    out.put_session(entry.session);
                    out.put_u64_le(entry.used_micros);
                    out.put_u8(u8::from(entry.named));
                    out.put_u64_le(entry.last.0);
                    entry.sum.put(out);
                }
                Trace::Stub(stub) => {
                    out.put_u8(STUB);
                    out.put_session(stub.session);
                    out.put_u64_le(stub.since_micros);
                    out.put_u8(u8::from(stub.stored));
                }
            }
        })
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, CodecError> {
        let mut fields = Fields::new(value);
        let version = fields.u8("version")?;
        if version != VERSION {
            return Err(CodecError::Version(version));
        }
        let state = fields.u8("state")?;
        let session = fields.session()?;
        let trace = match state {
            OPEN | BROKEN => {
                let used_micros = fields.u64("last use")?;
                let mut entry = Writer::new(session, fields.flag("named")?, used_micros);
                entry.state = if state == OPEN { WriterState::Open } else { WriterState::Broken };
                entry.last = fields.number("last number")?;
                entry.sum = EventSum::take(&mut fields)?;
                Trace::Writer(entry)
            }
            STUB => {
                let since_micros = fields.u64("age")?;
                Trace::Stub(Stub { session, since_micros, stored: fields.flag("stored")? })
            }
            other => {
                return Err(CodecError::Impossible { field: "state", value: other.into() });
            }
        };
        fields.end()?;
        Ok(trace)
    }
}

const VERSION: u8 = 2;
const OPEN: u8 = 0;
const BROKEN: u8 = 1;
const STUB: u8 = 2;
