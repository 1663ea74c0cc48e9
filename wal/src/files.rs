//! The files of a log directory: their names, and how a spare becomes the next log file.
//!
//! A spare is zero-filled or was a log file once; recovery never reads it. It becomes a log file by
//! a new header, written and synced under the spare's name; then it is renamed and the directory
//! synced; only then its first block may be written. Whoever comes first, the thread that
//! prepares files or the one that writes the first block, does it; the other waits.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::format::{FileHeader, seed};
use crate::{AlignedBuf, BlockSeq, Disk, DiskFile, SECTOR_BYTES};

pub(crate) const STORE_NAME: &str = "store";
pub(crate) const STORE_DRAFT: &str = "new-store";
const SUFFIX: &str = ".wal";
const SPARE: &str = "spare-";
const UNFINISHED: &str = "new-";

/// Where the first block of a file is.
pub(crate) const FIRST_BLOCK: u64 = SECTOR_BYTES as u64;

pub(crate) fn file_name(sequence: u64) -> String {
    format!("{sequence:012}{SUFFIX}")
}

pub(crate) fn file_sequence(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let sequence = digits.parse().ok()?;
    (file_name(sequence) == name).then_some(sequence)
}

pub(crate) fn spare_name(number: u64) -> String {
    format!("{SPARE}{number:012}")
}

pub(crate) fn spare_number(name: &str) -> Option<u64> {
    name.strip_prefix(SPARE)?.parse().ok()
}

pub(crate) fn unfinished_name(number: u64) -> String {
    format!("{UNFINISHED}{number:012}")
}

pub(crate) fn is_unfinished(name: &str) -> bool {
    name.starts_with(UNFINISHED)
}

/// A file that waits for its use.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) name: String,
    pub(crate) handle: Arc<dyn DiskFile>,
    pub(crate) size: u64,
}

#[derive(Debug)]
enum Activation {
    Spare(String),
    Done,
    Failed,
}

/// What groups still have in a file.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Live {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// A log file: one that holds blocks, or the next one to.
#[derive(Debug)]
pub(crate) struct LogFile {
    pub(crate) sequence: u64,
    pub(crate) salt: u64,
    pub(crate) seed: u32,
    pub(crate) size: u64,
    pub(crate) handle: Arc<dyn DiskFile>,
    store_id: u128,
    activation: Mutex<Activation>,
    /// Entries in it that some group's log still has, durably.
    live: AtomicU64,
    /// Bytes that copies of its entries would take, of those that are not on their way out, durably or
    /// not.
    live_bytes: AtomicU64,
    pins: AtomicUsize,
    /// Its first block, which holds the table; 0 until there is one.
    first_block: AtomicU64,
}

impl LogFile {
    /// A file that is one already.
    pub(crate) fn existing(
        handle: Arc<dyn DiskFile>,
        header: &FileHeader,
        size: u64,
        live: Live,
        first_block: BlockSeq,
    ) -> Arc<LogFile> {
        let file = Self::with(handle, header, size, Activation::Done);
        file.live.store(live.entries, Ordering::Relaxed);
        file.live_bytes.store(live.bytes, Ordering::Relaxed);
        file.first_block.store(first_block.0, Ordering::Relaxed);
        Arc::new(file)
    }

    /// A file that a spare is going to be.
    pub(crate) fn from_spare(spare: Spare, store_id: u128, sequence: u64, salt: u64) -> Arc<Self> {
        assert!(sequence <= u64::from(u32::MAX), "file sequences fit 32 bits");
        let header = FileHeader { store_id, sequence, salt, file_bytes: spare.size };
        Arc::new(Self::with(spare.handle, &header, spare.size, Activation::Spare(spare.name)))
    }

    fn with(
        handle: Arc<dyn DiskFile>,
        header: &FileHeader,
        size: u64,
        activation: Activation,
    ) -> LogFile {
        LogFile {
            sequence: header.sequence,
            salt: header.salt,
            seed: seed(header.salt, header.sequence),
            size,
            handle,
            store_id: header.store_id,
            activation: Mutex::new(activation),
            live: AtomicU64::new(0),
            live_bytes: AtomicU64::new(0),
            pins: AtomicUsize::new(0),
            first_block: AtomicU64::new(0),
        }
    }

    pub(crate) fn name(&self) -> String {
        file_name(self.sequence)
    }

    /// Makes the spare a log file, unless that is done. An error is final.
    pub(crate) fn activate(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut activation = self.activation.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = match std::mem::replace(&mut *activation, Activation::Failed) {
            Activation::Done => {
                *activation = Activation::Done;
                return Ok(());
            }
            Activation::Failed => {
                return Err(io::Error::other("the file could not be put into use before"));
            }
            Activation::Spare(name) => name,
        };
        let mut sector = AlignedBuf::zeroed(SECTOR_BYTES);
        let header = FileHeader {
            store_id: self.store_id,
            sequence: self.sequence,
            salt: self.salt,
            file_bytes: self.size,
        };
        header.encode(&mut sector);
        self.handle.write_at(0, &sector)?;
        self.handle.sync()?;
        disk.rename(&spare, &self.name())?;
        disk.sync_dir()?;
        *activation = Activation::Done;
        Ok(())
    }

    pub(crate) fn first_block(&self) -> BlockSeq {
        BlockSeq(self.first_block.load(Ordering::Relaxed))
    }

    pub(crate) fn set_first_block(&self, seq: BlockSeq) {
        self.first_block.store(seq.0, Ordering::Relaxed);
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }

    /// An entry comes, a copy of which takes `bytes`.
    pub(crate) fn enter(&self, bytes: u64) {
        self.live.fetch_add(1, Ordering::Relaxed);
        self.live_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// An entry goes: it counts until [`LogFile::drop_live`] says that this is durable, its bytes do
    /// not.
    pub(crate) fn leave(&self, bytes: u64) {
        self.live_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn drop_live(&self, entries: u64) {
        let before = self.live.fetch_sub(entries, Ordering::Relaxed);
        assert!(before >= entries, "file {} holds {before} entries, {entries} go", self.sequence);
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::Acquire) > 0
    }

    /// Whether nothing needs it: no entry of any group, no reader.
    pub(crate) fn unused(&self) -> bool {
        self.live.load(Ordering::Relaxed) == 0 && !self.is_pinned()
    }
}

/// Keeps a file, and with it all later ones, from being recycled.
#[derive(Debug)]
pub struct Pin(Arc<LogFile>);

impl Pin {
    /// Only under the log's lock: a file that is being released must not be pinned any more.
    pub(crate) fn new(file: &Arc<LogFile>) -> Pin {
        file.pins.fetch_add(1, Ordering::AcqRel);
        Pin(file.clone())
    }

    pub(crate) fn file(&self) -> &LogFile {
        &self.0
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Ordering::AcqRel);
    }
}
