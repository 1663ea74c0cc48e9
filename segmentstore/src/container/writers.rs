//! The writer table of a segment: who wrote what last, under which session.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use common::{EventNumber, WriterId, WriterSession};

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
    /// Changed since the last save.
    dirty: bool,
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
    dirty: Vec<WriterId>,
}

impl Writer {
    pub(crate) fn new(session: WriterSession, named: bool, used_micros: u64) -> Self {
        let (last, state) = (EventNumber::NONE, WriterState::Open);
        Self { session, last, used_micros, named, state, queued_micros: 0, dirty: false }
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
            dirty: false,
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

    /// The entry of a writer, about to be changed.
    pub(crate) fn change(&mut self, writer: WriterId) -> Option<&mut Writer> {
        let entry = self.writers.get_mut(&writer)?;
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push(writer);
        }
        Some(entry)
    }

    /// The entry of a writer, to be changed in what is not saved.
    pub(crate) fn change_unsaved(&mut self, writer: WriterId) -> Option<&mut Writer> {
        self.writers.get_mut(&writer)
    }

    pub(crate) fn insert(&mut self, writer: WriterId, entry: Writer) {
        let before = self.writers.insert(writer, Writer { dirty: true, ..entry });
        if !before.is_some_and(|before| before.dirty) {
            self.dirty.push(writer);
        }
    }

    pub(crate) fn remove(&mut self, writer: WriterId) {
        if self.writers.remove(&writer).is_some_and(|entry| !entry.dirty) {
            self.dirty.push(writer);
        }
    }

    /// Puts a saved entry back.
    pub(crate) fn restore(&mut self, writer: WriterId, entry: Writer) {
        self.writers.insert(writer, entry);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (WriterId, &Writer)> {
        self.writers.iter().map(|(writer, entry)| (*writer, entry))
    }

    /// The entries that changed since the last call; `None` for removed ones.
    pub(crate) fn save(&mut self, mut saved: impl FnMut(WriterId, Option<Bytes>)) {
        for writer in std::mem::take(&mut self.dirty) {
            let value = self.writers.get_mut(&writer).map(|entry| {
                entry.dirty = false;
                entry.encode()
            });
            saved(writer, value);
        }
    }
}
