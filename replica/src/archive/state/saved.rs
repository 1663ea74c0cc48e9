//! The archive's saved state: what changed since the last freeze, and back.
//!
//! ```text
//! key                            value
//! 00                             version u8 | incarnation u16 | end u64 | end term u64
//!                                | last operation u64
//! 01 last index u64 big-endian   version u8 | first u64 | footer 34
//! 02 name 26                     version u8 | length u32 | crc32 u32
//! 03 index u64 big-endian        version u8 | up-time u64 | checkpoint (see `housekeeping`)
//! 04 name 26                     version u8 | index u64 | up-time u64 | names others u8
//! 05 last index u64 big-endian   version u8 | first lost u64 | index of the checkpoint u64
//! ```

use bytes::{BufMut, Bytes};
use common::{Incarnation, LogIndex, Term};
use lts::ObjectName;

use super::{Archive, Dropped, KeptCheckpoint, KeptRound, KeptSkip, Record, Stored};
use crate::archive::error::Problem;
use crate::archive::fields::Fields;
use crate::archive::frame::ObjectRef;
use crate::archive::housekeeping::CommittedCheckpoint;
use crate::machine::{Change, RestoreError};

const VERSION: u8 = 1;

mod part {
    pub(super) const HEAD: u8 = 0;
    pub(super) const ROUND: u8 = 1;
    pub(super) const OBJECT: u8 = 2;
    pub(super) const CHECKPOINT: u8 = 3;
    pub(super) const DROPPED: u8 = 4;
    pub(super) const SKIP: u8 = 5;
}

impl Record {
    fn key(self) -> Vec<u8> {
        let of = |part: u8, rest: &[u8]| [&[part], rest].concat();
        match self {
            Self::Head => of(part::HEAD, &[]),
            Self::Round(last) => of(part::ROUND, &last.0.to_be_bytes()),
            Self::Object(name) => of(part::OBJECT, &name.encode()),
            Self::Checkpoint(index) => of(part::CHECKPOINT, &index.0.to_be_bytes()),
            Self::Dropped(name) => of(part::DROPPED, &name.encode()),
            Self::Skip(last) => of(part::SKIP, &last.0.to_be_bytes()),
        }
    }
}

impl Archive {
    /// What changed since the last call. A round changes a handful of records.
    pub(crate) fn freeze(&mut self) -> Vec<Change> {
        let unsaved = std::mem::take(&mut self.unsaved);
        let change = |record: Record| Change { key: record.key(), value: self.value(record) };
        unsaved.into_iter().map(change).collect()
    }

    fn value(&self, record: Record) -> Option<Bytes> {
        let mut out = vec![VERSION];
        match record {
            Record::Head => {
                out.put_u16_le(self.incarnation.0);
                for number in [self.end.0, self.end_term.0, self.last_operation.0] {
                    out.put_u64_le(number);
                }
            }
            Record::Round(last) => {
                let round = self.rounds.get(&last)?;
                out.put_u64_le(round.first.0);
                round.footer.put(&mut out);
            }
            Record::Object(name) => {
                let stored = self.objects.get(&name)?;
                out.put_u32_le(stored.length);
                out.put_u32_le(stored.checksum);
            }
            Record::Checkpoint(index) => {
                let kept = self.checkpoints.get(&index)?;
                out.put_u64_le(kept.up_micros);
                kept.committed.put_fields(&mut out);
            }
            Record::Dropped(name) => {
                let dropped = self.dropped.get(&name)?;
                out.put_u64_le(dropped.index.0);
                out.put_u64_le(dropped.up_micros);
                out.put_u8(u8::from(dropped.names_others));
            }
            Record::Skip(last) => {
                let skip = self.skips.get(&last)?;
                out.put_u64_le(skip.first.0);
                out.put_u64_le(skip.checkpoint.0);
            }
        }
        Some(out.into())
    }

    /// Takes over what was saved.
    pub(crate) fn restore(
        pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<Self, RestoreError> {
        let mut archive = Self::default();
        for (key, value) in pairs {
            archive.load(&key, &value).map_err(|problem| {
                let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
                RestoreError::new(format!("record `{key}` of the archive {problem}"))
            })?;
        }
        Ok(archive)
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        let (mut key, mut fields) = (Fields::new(key), Fields::new(value));
        let part = key.u8("part")?;
        let version = fields.u8("version")?;
        if version != VERSION {
            return Err(Problem::Version(version));
        }
        match part {
            part::HEAD => {
                self.incarnation = Incarnation(fields.u16("incarnation")?);
                self.end = LogIndex(fields.u64("end")?);
                self.end_term = Term(fields.u64("end term")?);
                self.last_operation = LogIndex(fields.u64("last operation")?);
            }
            part::ROUND => {
                let last = take_index(&mut key)?;
                let first = LogIndex(fields.u64("first")?);
                let footer = ObjectRef::take(&mut fields, "footer")?;
                self.rounds.insert(last, KeptRound { first, footer });
            }
            part::OBJECT => {
                let name = take_name(&mut key)?;
                let length = fields.u32("length")?;
                let checksum = fields.u32("checksum")?;
                self.objects.insert(name, Stored { length, checksum });
            }
            part::CHECKPOINT => {
                let index = take_index(&mut key)?;
                let up_micros = fields.u64("up-time")?;
                let committed = CommittedCheckpoint::take(&mut fields)?;
                self.checkpoints.insert(index, KeptCheckpoint { committed, up_micros });
            }
            part::DROPPED => {
                let name = take_name(&mut key)?;
                let index = LogIndex(fields.u64("index")?);
                let up_micros = fields.u64("up-time")?;
                let names_others = fields.u8("whether it names others")? != 0;
                self.dropped.insert(name, Dropped { index, up_micros, names_others });
            }
            part::SKIP => {
                let last = take_index(&mut key)?;
                let first = LogIndex(fields.u64("first lost")?);
                let checkpoint = LogIndex(fields.u64("index of the checkpoint")?);
                self.skips.insert(last, KeptSkip { first, checkpoint });
            }
            other => return Err(Problem::impossible("part", other)),
        }
        key.end()?;
        fields.end()
    }
}

fn take_index(key: &mut Fields<'_>) -> Result<LogIndex, Problem> {
    Ok(LogIndex(u64::from_be_bytes(key.array("index")?)))
}

fn take_name(key: &mut Fields<'_>) -> Result<ObjectName, Problem> {
    Ok(ObjectName::decode(key.array("name")?))
}
