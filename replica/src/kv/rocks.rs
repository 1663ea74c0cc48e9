//! The state store on RocksDB.

use std::fmt;
use std::path::Path;

use bytes::Bytes;
use common::{ByteSize, GroupId};
use rocksdb::properties::{BLOCK_CACHE_USAGE, ESTIMATE_TABLE_READERS_MEM, SIZE_ALL_MEM_TABLES};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Direction, IteratorMode, LogLevel, Options,
    ReadOptions, WriteBatch, WriteOptions,
};

use super::{Applied, Changes, Kv, KvError, Pairs, Space, Whole};

/// Follows the group in a key: its applied record; else the number of the space comes.
const APPLIED: u8 = 0;
/// Above every space.
const END: u8 = u8::MAX;
const PREFIX_BYTES: usize = 9;

/// One RocksDB for all groups of a node: keys are led by the group, RocksDB's own log is off.
pub struct RocksKv {
    db: DB,
}

impl fmt::Debug for RocksKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RocksKv").field(&self.db.path()).finish()
    }
}

impl RocksKv {
    /// Opens the store in `path`, or makes it there. `memory` bounds its buffers and its cache
    /// together. Fails while another process has it open.
    pub fn open(path: &Path, memory: ByteSize) -> Result<Self, KvError> {
        let db = DB::open(&options(memory), path).map_err(failed("open"))?;
        Ok(Self { db })
    }

    /// Opens the store in `path` to read it as it is, without taking it; `None` where there is
    /// none.
    pub fn open_read_only(path: &Path, memory: ByteSize) -> Result<Option<Self>, KvError> {
        let failed = |error: &dyn fmt::Display| KvError::new("open", error);
        if !path.join("CURRENT").try_exists().map_err(|error| failed(&error))? {
            return Ok(None);
        }
        let db = DB::open_for_read_only(&options(memory), path, false);
        Ok(Some(Self { db: db.map_err(|error| failed(&error))? }))
    }
}

#[cfg(test)]
impl RocksKv {
    /// The store as a crash would leave it now, in a new folder: without what was not flushed.
    pub(super) fn copy_as_crashed(&self, to: &Path) -> Result<(), rocksdb::Error> {
        // A flush is asked for where there is more of RocksDB's own log than this; there is none.
        rocksdb::checkpoint::Checkpoint::new(&self.db)?
            .create_checkpoint_with_log_size(to, u64::MAX)
    }
}

impl RocksKv {
    fn write_batch(&self, batch: WriteBatch) -> Result<(), KvError> {
        let mut without_log = WriteOptions::default();
        without_log.disable_wal(true);
        self.db.write_opt(batch, &without_log).map_err(failed("write to"))
    }

    fn iterate(&self, start: Vec<u8>, end: Vec<u8>) -> rocksdb::DBIterator<'_> {
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_upper_bound(end);
        // A scan happens at start and for a checkpoint: it must not push out what the cache is for.
        bounds.fill_cache(false);
        self.db.iterator_opt(IteratorMode::From(&start, Direction::Forward), bounds)
    }
}

fn options(memory: ByteSize) -> Options {
    let half = memory.as_usize() / 2;
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(half));
    table.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(half);
    options.set_max_write_buffer_number(2);
    options.set_atomic_flush(true);
    options.set_max_background_jobs(2);
    options.set_max_open_files(128);
    options.set_keep_log_file_num(2);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// RocksDB's name of its subcode for `ENOSPC`: its binding passes errors on as text only. After
/// one it refuses writes, keeps what was not flushed in memory, and looks every five seconds
/// whether there is space for its largest buffer; then it flushes and takes writes again.
const NO_SPACE: &str = "No space left on device";

fn failed(action: &'static str) -> impl Fn(rocksdb::Error) -> KvError {
    move |error| {
        let no_space =
            error.kind() == rocksdb::ErrorKind::IOError && error.as_ref().contains(NO_SPACE);
        KvError { no_space, ..KvError::new(action, error) }
    }
}

fn key(group: GroupId, kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(PREFIX_BYTES + rest.len());
    key.extend_from_slice(&group.0.to_be_bytes());
    key.push(kind);
    key.extend_from_slice(rest);
    key
}

impl Kv for RocksKv {
    fn write(&self, group: GroupId, applied: Applied, changes: Changes<'_>) -> Result<(), KvError> {
        let mut batch = WriteBatch::default();
        for (space, changes) in changes.spaces() {
            for change in changes {
                let key = key(group, space as u8, &change.key);
                match &change.value {
                    Some(value) => batch.put(key, value),
                    None => batch.delete(key),
                }
            }
        }
        batch.put(key(group, APPLIED, &[]), applied.encode());
        self.write_batch(batch)
    }

    fn flush(&self) -> Result<(), KvError> {
        self.db.flush().map_err(failed("flush"))
    }

    fn applied(&self, group: GroupId) -> Result<Option<Applied>, KvError> {
        let record = self.db.get_pinned(key(group, APPLIED, &[])).map_err(failed("read"))?;
        record.map(|bytes| Applied::decode(&bytes)).transpose()
    }

    fn scan(&self, group: GroupId, space: Space) -> Result<Pairs<'_>, KvError> {
        let pairs = self.iterate(key(group, space as u8, &[]), key(group, space as u8 + 1, &[]));
        Ok(Box::new(pairs.map(|pair| {
            let (key, value) = pair.map_err(failed("read"))?;
            Ok((Bytes::from(key).slice(PREFIX_BYTES..), Bytes::from(value)))
        })))
    }

    /// An iterator of RocksDB sees the store as it was when it was made, and the applied record
    /// comes first.
    fn whole(&self, group: GroupId) -> Result<Option<Whole<'_>>, KvError> {
        let mut pairs = self.iterate(key(group, APPLIED, &[]), key(group, END, &[]));
        let Some(first) = pairs.next() else { return Ok(None) };
        let (first, value) = first.map_err(failed("read"))?;
        if first.get(PREFIX_BYTES - 1) != Some(&APPLIED) {
            return Ok(None);
        }
        let applied = Applied::decode(&value)?;
        let pairs = pairs.map(|pair| {
            let (key, value) = pair.map_err(failed("read"))?;
            let number = key.get(PREFIX_BYTES - 1).copied().unwrap_or(END);
            let space = Space::of_number(number).ok_or_else(|| {
                KvError::new("read", format!("a key is of space {number}, which is not known"))
            })?;
            Ok((space, Bytes::from(key).slice(PREFIX_BYTES..), Bytes::from(value)))
        });
        Ok(Some(Whole { applied, pairs: Box::new(pairs) }))
    }

    fn clear(&self, group: GroupId) -> Result<(), KvError> {
        let mut batch = WriteBatch::default();
        batch.delete_range(key(group, APPLIED, &[]), key(group, END, &[]));
        self.write_batch(batch)
    }

    fn load(
        &self,
        group: GroupId,
        pairs: &mut dyn Iterator<Item = (Space, Bytes, Bytes)>,
    ) -> Result<(), KvError> {
        let mut batch = WriteBatch::default();
        for (space, pair_key, value) in pairs {
            batch.put(key(group, space as u8, &pair_key), value);
        }
        self.write_batch(batch)
    }

    /// Buffers, those on their way to the disk included; blocks that were read; and what of the
    /// tables is not among these.
    fn memory_bytes(&self) -> u64 {
        let parts = [SIZE_ALL_MEM_TABLES, BLOCK_CACHE_USAGE, ESTIMATE_TABLE_READERS_MEM];
        // A property that a version of RocksDB does not know counts as nothing.
        parts.iter().filter_map(|part| self.db.property_int_value(*part).ok().flatten()).sum()
    }
}
