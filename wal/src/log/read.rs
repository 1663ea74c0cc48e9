//! Reading entries back: places are looked up and pinned under the lock, the disk is read
//! outside it, every byte is checked, and what does not check is looked up anew once before it is
//! called damaged: the entry may have been replaced meanwhile.

use std::io;

use bytes::Bytes;
use common::{GroupId, LogIndex};

use super::{Log, State};
use crate::files::Pin;
use crate::format::{RECORD_HEADER_BYTES, RecordHeader, RecordKind};
use crate::group::Place;
use crate::{AlignedBuf, Damage, LogEntry, ReadError, SECTOR_BYTES};

/// Entries closer than this are read in one go.
const GAP_BYTES: u64 = 64 * 1024;
/// Bytes of one disk read, unless one entry is larger.
const READ_BYTES: u64 = 1024 * 1024;

/// Entries that are less than so many eighths of what was read for them are copied out of it: they
/// would keep alive the entries of others, which may be a thousand times as many bytes.
const DENSE_EIGHTHS: u64 = 7;

/// An entry to be read.
pub(super) struct Wanted {
    pub(super) index: LogIndex,
    pub(super) place: Place,
    pub(super) source: Source,
}

pub(super) enum Source {
    Disk(Pin),
    /// Not yet on the disk: the record as it is in its block, and the seed of its file.
    Memory(Bytes, u32),
}

impl Log {
    /// Reads entries `low..high`, at least one and then as many as fit `max_bytes` of context and
    /// data. Entries that are not durable yet are read, too. What is returned has hardly more bytes
    /// in memory than its own.
    pub fn read(
        &self,
        group: GroupId,
        low: LogIndex,
        high: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, ReadError> {
        let wanted = self.resolve(group, low, high, max_bytes)?;
        let mut entries = Vec::with_capacity(wanted.len());
        self.read_wanted(group, &wanted, &mut entries)?;
        Ok(entries)
    }

    /// Reads what was looked up, up to what cannot be read.
    pub(super) fn read_wanted(
        &self,
        group: GroupId,
        wanted: &[Wanted],
        out: &mut Vec<LogEntry>,
    ) -> Result<(), ReadError> {
        let mut rest = wanted;
        while !rest.is_empty() {
            let (run, later) = rest.split_at(run_length(rest));
            self.read_run(group, run, out)?;
            rest = later;
        }
        Ok(())
    }

    fn resolve(
        &self,
        group: GroupId,
        low: LogIndex,
        high: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<Wanted>, ReadError> {
        let state = self.state();
        let known = state.groups.get(&group).ok_or(ReadError::UnknownGroup(group))?;
        if low < known.first() {
            return Err(ReadError::Truncated { index: low, first: known.first() });
        }
        if low < high && high.0 > known.last.0 + 1 {
            return Err(ReadError::BeyondEnd { index: LogIndex(high.0 - 1), last: known.last });
        }
        let (mut wanted, mut bytes) = (Vec::new(), 0);
        for index in low.0..high.0 {
            let Some(place) = known.place(LogIndex(index)) else { break };
            if place.is_lost() {
                if wanted.is_empty() {
                    return Err(ReadError::Lost { group, index: LogIndex(index) });
                }
                break;
            }
            bytes += place.length as usize;
            if bytes > max_bytes && !wanted.is_empty() {
                break;
            }
            let source = state.source(&place);
            wanted.push(Wanted { index: LogIndex(index), place, source });
        }
        Ok(wanted)
    }

    fn read_run(
        &self,
        group: GroupId,
        run: &[Wanted],
        out: &mut Vec<LogEntry>,
    ) -> Result<(), ReadError> {
        let pin = match &run[0].source {
            Source::Memory(record, seed) => {
                out.push(in_memory_entry(group, &run[0], record, *seed));
                return Ok(());
            }
            Source::Disk(pin) => pin,
        };
        let last = &run[run.len() - 1].place;
        let (start, end) = sectors(&run[0].place, last);
        // An error says nothing of whom it hits: what lies between the entries belongs to others.
        let Ok(bytes) = read_range(pin, start, end) else {
            for wanted in run {
                out.push(self.read_alone(group, wanted.index)?);
            }
            return Ok(());
        };
        let wanted: u64 = run.iter().map(|wanted| wanted.place.bytes()).sum();
        let apart = wanted < bytes.len() as u64 / 8 * DENSE_EIGHTHS;
        for wanted in run {
            let at = (u64::from(wanted.place.offset) - start) as usize;
            let record = bytes.slice(at..at + wanted.place.bytes() as usize);
            let record = if apart { Bytes::copy_from_slice(&record) } else { record };
            match check(group, wanted.index, &wanted.place, pin.file().seed, &record) {
                Some(entry) => out.push(entry),
                None => out.push(self.read_alone(group, wanted.index)?),
            }
        }
        Ok(())
    }

    /// An entry and nothing else, for a read with others failed. What fails once more, and not what
    /// passes, is an error.
    fn read_alone(&self, group: GroupId, index: LogIndex) -> Result<LogEntry, ReadError> {
        match self.read_again(group, index) {
            Err(ReadError::Io { .. }) => self.read_again(group, index),
            read => read,
        }
    }

    /// An attempt at one entry, wherever it is by now: the last one where its record did not check.
    fn read_again(&self, group: GroupId, index: LogIndex) -> Result<LogEntry, ReadError> {
        let again = self.resolve(group, index, LogIndex(index.0 + 1), usize::MAX)?;
        let Some(again) = again.into_iter().next() else {
            return Err(ReadError::UnknownGroup(group));
        };
        let place = again.place;
        let pin = match &again.source {
            Source::Memory(record, seed) => {
                return Ok(in_memory_entry(group, &again, record, *seed));
            }
            Source::Disk(pin) => pin,
        };
        let (start, end) = sectors(&place, &place);
        let bytes = read_range(pin, start, end).map_err(|source| self.read_error(pin, source))?;
        let at = (u64::from(place.offset) - start) as usize;
        let record = bytes.slice(at..at + place.bytes() as usize);
        check(group, index, &place, pin.file().seed, &record).ok_or_else(|| {
            let damage = Damage {
                file: pin.file().name(),
                offset: u64::from(place.offset),
                end: u64::from(place.offset) + place.bytes(),
                reason: "the record of an entry does not match its checksum".to_owned(),
                groups: vec![group],
            };
            tracing::error!(%damage, "acknowledged data is damaged");
            ReadError::Damaged { group, index, damage }
        })
    }

    fn read_error(&self, pin: &Pin, source: io::Error) -> ReadError {
        ReadError::Io { file: pin.file().name(), source }
    }
}

impl State {
    pub(super) fn source(&self, place: &Place) -> Source {
        match self.in_memory(place) {
            Some((record, seed)) => Source::Memory(Bytes::copy_from_slice(record), seed),
            None => {
                let file = self.file(place.file).expect("a file with entries is not released");
                Source::Disk(Pin::new(file))
            }
        }
    }

    /// Whether an entry may be lost yet. A copy is on its way, and what it is a copy of is there.
    pub(super) fn is_volatile(&self, place: &Place) -> bool {
        let is_copy = |record, seed| {
            RecordHeader::decode(seed, record)
                .is_some_and(|header| header.kind == RecordKind::Moved)
        };
        self.in_memory(place).is_some_and(|(record, seed)| !is_copy(record, seed))
    }

    /// The record of an entry in a block that is not durable.
    fn in_memory(&self, place: &Place) -> Option<(&[u8], u32)> {
        let (file, offset) = (u64::from(place.file), u64::from(place.offset));
        let open = self.open.iter().map(|b| (&b.file, b.offset, b.length, &b.buffer));
        let closed = self.closed.iter().map(|b| (&b.file, b.offset, b.bytes, &b.buffer));
        let issued = self.outstanding.iter().map(|b| (&b.file, b.offset, b.bytes, &*b.buffer));
        let (found, start, _, buffer) = open.chain(closed).chain(issued).find(|block| {
            let bytes = block.1..block.1 + block.2 as u64;
            block.0.sequence == file && bytes.contains(&offset)
        })?;
        let at = (offset - start) as usize;
        Some((&buffer[at..at + place.bytes() as usize], found.seed))
    }
}

/// How many of the first wanted entries one disk read covers.
fn run_length(wanted: &[Wanted]) -> usize {
    let follows = |pair: &&[Wanted]| near(&wanted[0], &pair[0], &pair[1], READ_BYTES);
    1 + wanted.windows(2).take_while(follows).count()
}

/// Whether a read from `first` to `last` goes on with `next`: on the disk, in the same file, behind
/// them, with little in between and no more than `bytes_max` in all.
pub(super) fn near(first: &Wanted, last: &Wanted, next: &Wanted, bytes_max: u64) -> bool {
    let (begin, at) = (u64::from(first.place.offset), u64::from(next.place.offset));
    let end = u64::from(last.place.offset) + last.place.bytes();
    first.pin().is_some()
        && next.pin().is_some()
        && next.place.file == first.place.file
        && (end..=end + GAP_BYTES).contains(&at)
        && at + next.place.bytes() - begin <= bytes_max
}

impl Wanted {
    /// The file to read; `None` where the entry is not on the disk yet.
    pub(super) fn pin(&self) -> Option<&Pin> {
        match &self.source {
            Source::Disk(pin) => Some(pin),
            Source::Memory(..) => None,
        }
    }
}

/// The whole sectors from the first record to the last.
pub(super) fn sectors(first: &Place, last: &Place) -> (u64, u64) {
    let sector = SECTOR_BYTES as u64;
    let end = u64::from(last.offset) + last.bytes();
    (u64::from(first.offset) / sector * sector, end.next_multiple_of(sector))
}

pub(super) fn read_range(pin: &Pin, start: u64, end: u64) -> io::Result<Bytes> {
    let mut buffer = AlignedBuf::zeroed((end - start) as usize);
    pin.file().handle.read_at(start, &mut buffer)?;
    Ok(Bytes::from_owner(buffer))
}

/// The entry of a record, if every byte of it is what was appended there.
pub(super) fn check(
    group: GroupId,
    index: LogIndex,
    place: &Place,
    seed: u32,
    record: &Bytes,
) -> Option<LogEntry> {
    let header = RecordHeader::decode(seed, record)?;
    let payload = record.slice(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + place.length as usize);
    let right = header.kind.is_entry()
        && (header.group, header.index, header.term) == (group, index, place.term)
        && header.length == place.length
        && header.payload_crc == crc32fast::hash(&payload);
    right.then(|| split(&header, &payload))
}

fn split(header: &RecordHeader, payload: &Bytes) -> LogEntry {
    let context = header.context_length as usize;
    LogEntry {
        index: header.index,
        term: header.term,
        kind: header.entry_kind,
        context: payload.slice(..context),
        data: payload.slice(context..),
    }
}

/// The entry of a record that was just copied into its block.
fn in_memory_entry(group: GroupId, wanted: &Wanted, record: &Bytes, seed: u32) -> LogEntry {
    check(group, wanted.index, &wanted.place, seed, record)
        .expect("a record in memory is what was copied there")
}
