//! The state store on RocksDB.

use std::fmt;
use std::path::Path;

use bytes::Bytes;
use common::{ByteSize, GroupId};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Direction, IteratorMode, LogLevel, Options,
    ReadOptions, WriteBatch, WriteOptions,
};

use super::{Applied, Kv, KvError, Pairs};
use crate::machine::Change;

/// Follows the group in a key: its applied record, or a pair of its machine.
const APPLIED: u8 = 0;
const PAIR: u8 = 1;
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
    fn write(&self, group: GroupId, applied: Applied, changes: &[Change]) -> Result<(), KvError> {
        let mut batch = WriteBatch::default();
        for change in changes {
            let key = key(group, PAIR, &change.key);
            match &change.value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        batch.put(key(group, APPLIED, &[]), applied.encode());
        let mut without_log = WriteOptions::default();
        without_log.disable_wal(true);
        self.db.write_opt(batch, &without_log).map_err(failed("write to"))
    }

    fn flush(&self) -> Result<(), KvError> {
        self.db.flush().map_err(failed("flush"))
    }

    fn applied(&self, group: GroupId) -> Result<Option<Applied>, KvError> {
        let record = self.db.get_pinned(key(group, APPLIED, &[])).map_err(failed("read"))?;
        record.map(|bytes| Applied::decode(&bytes)).transpose()
    }

    fn scan(&self, group: GroupId) -> Result<Pairs<'_>, KvError> {
        let start = key(group, PAIR, &[]);
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_upper_bound(key(group, PAIR + 1, &[]));
        // A scan happens once, at start: it must not push out what the cache is for.
        bounds.fill_cache(false);
        let pairs = self.db.iterator_opt(IteratorMode::From(&start, Direction::Forward), bounds);
        Ok(Box::new(pairs.map(|pair| {
            let (key, value) = pair.map_err(failed("read"))?;
            Ok((Bytes::from(key).slice(PREFIX_BYTES..), Bytes::from(value)))
        })))
    }
}
