//! The writer table of a segment: who wrote what last, under which session.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use common::{EventNumber, WriterId, WriterSession};

use super::unsaved::{Generation, UNCHANGED};
use crate::codec::{CodecError, Fields, PutFields, written};
use crate::limits::{ANONYMOUS_WRITER_TTL, EXPIRED_SESSION_TTL, NAMED_WRITER_TTL};

/// What a segment remembers of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Writer {
    pub(crate) session: WriterSession,
    /// The last stored number.
    pub(crate) last: EventNumber,
    /// Up-time of the last use, microseconds; of the expiry where the entry is expired.
    pub(crate) used_micros: u64,
    pub(crate) named: bool,
    pub(crate) state: WriterState,
    /// Where the entry stands in the queue of expiries; not later than it is due.
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
    /// The last number is forgotten; the session number is kept to refuse what is on its way.
    Expired,
}

/// All writers of one segment.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriterTable {
    writers: BTreeMap<WriterId, Writer>,
}

impl Writer {
    pub(crate) fn new(session: WriterSession, named: bool, used_micros: u64) -> Self {
        let (last, state) = (EventNumber::NONE, WriterState::Open);
        Self { session, last, used_micros, named, state, queued_micros: 0, mark: UNCHANGED }
    }

    /// The up-time at which the entry's next stage of expiry is due.
    pub(crate) fn due_micros(&self) -> u64 {
        let ttl: Duration = match self.state {
            WriterState::Expired => EXPIRED_SESSION_TTL,
            _ if self.named => NAMED_WRITER_TTL,
            _ => ANONYMOUS_WRITER_TTL,
        };
        self.used_micros.saturating_add(ttl.as_micros() as u64)
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.state == WriterState::Expired
    }

    /// version u8 | session 12 | last u64 | used u64 | named u8 | state u8
    pub(crate) fn encode(&self) -> Bytes {
        written(1 + 12 + 8 + 8 + 1 + 1, |out| {
            out.put_u8(VERSION);
            out.put_session(self.session);
            out.put_u64_le(self.last.0);
            out.put_u64_le(self.used_micros);
            out.put_u8(u8::from(self.named));
            out.put_u8(match self.state {
                WriterState::Open => 0,
                WriterState::Broken => 1,
                WriterState::Expired => 2,
            });
        })
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, CodecError> {
        let mut fields = Fields::new(value);
        let version = fields.u8("version")?;
        if version != VERSION {
            return Err(CodecError::Version(version));
        }
        let writer = Self {
            session: fields.session()?,
            last: fields.number("last number")?,
            used_micros: fields.u64("last use")?,
            named: fields.flag("named")?,
            state: match fields.u8("state")? {
                0 => WriterState::Open,
                1 => WriterState::Broken,
                2 => WriterState::Expired,
                value => {
                    return Err(CodecError::Impossible { field: "state", value: value.into() });
                }
            },
            queued_micros: 0,
            mark: UNCHANGED,
        };
        fields.end()?;
        Ok(writer)
    }
}

const VERSION: u8 = 1;

impl WriterTable {
    pub(crate) fn len(&self) -> usize {
        self.writers.len()
    }

    pub(crate) fn get(&self, writer: WriterId) -> Option<&Writer> {
        self.writers.get(&writer)
    }

    pub(crate) fn get_mut(&mut self, writer: WriterId) -> Option<&mut Writer> {
        self.writers.get_mut(&writer)
    }

    pub(crate) fn insert(&mut self, writer: WriterId, entry: Writer) {
        self.writers.insert(writer, entry);
    }

    pub(crate) fn remove(&mut self, writer: WriterId) {
        self.writers.remove(&writer);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (WriterId, &Writer)> {
        self.writers.iter().map(|(writer, entry)| (*writer, entry))
    }
}
