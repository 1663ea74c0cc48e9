//! The log against a raw writer on the same disk, in turns: the library behind `braid bench wal`.
//!
//! Both write blocks of the same size into files that were zero-filled before, through the same
//! [`Disk`]. The raw writer writes buffers that are ready; the log is given entries that fill one
//! block each, which it copies, checksums and frames. Small blocks are written inline, as the
//! worker does while the log is idle; large ones by a thread of their own while the next is filled.
//! Paced runs compare latencies, full-rate runs throughput.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use common::{ByteSize, Clock, GroupId, LogIndex, MonotonicTime, Rng, Term, tasks};

use crate::block::commits_bytes;
use crate::format::{BLOCK_HEADER_BYTES, RECORD_HEADER_BYTES};
use crate::{
    AlignedBuf, Batch, BlockWrite, Disk, DiskFile, EntryRef, Log, LogSettings, Prepared,
    SECTOR_BYTES, Truncated,
};

/// Blocks up to this size are written inline.
const INLINE_BYTES: usize = 32 * 1024;
/// Files that the log goes round in, and as much space for the raw writer.
const FILES: usize = 6;
const RAW_NAME: &str = "bench-raw";
const GROUP: GroupId = GroupId(1);

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchSettings {
    /// Bytes of one write, whole sectors.
    pub block: ByteSize,
    /// Writes per second; `None` for as many as go.
    pub pace: Option<u32>,
    /// How long each of the two writes, over all turns.
    pub duration: Duration,
    /// Turns each of them takes.
    pub turns: u32,
    /// Bytes of one log file.
    pub file_size: ByteSize,
}

impl Default for BenchSettings {
    fn default() -> Self {
        Self {
            block: ByteSize::kib(256),
            pace: None,
            duration: Duration::from_secs(4),
            turns: 4,
            file_size: ByteSize::mib(64),
        }
    }
}

/// What one writer did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BenchFigures {
    pub writes: u64,
    pub bytes: u64,
    pub elapsed: Duration,
    pub writes_per_second: f64,
    pub megabytes_per_second: f64,
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
    pub p999: Duration,
    pub max: Duration,
}

/// Both writers side by side.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BenchReport {
    pub log: BenchFigures,
    pub raw: BenchFigures,
    /// Writes per second of the log over those of the raw writer.
    pub ratio: f64,
}

/// Measures on an empty directory, whose files the caller removes afterwards.
pub fn bench(
    disk: Arc<dyn Disk>,
    settings: &BenchSettings,
    clock: Arc<dyn Clock>,
    rng: Rng,
) -> io::Result<BenchReport> {
    let mut raw = RawWriter::new(&*disk, settings, clock.clone())?;
    let mut log = LogWriter::new(disk, settings, clock, rng)?;
    let turns = settings.turns.max(1);
    let turn = settings.duration / turns;
    let (mut of_raw, mut of_log) = (Samples::default(), Samples::default());
    for _ in 0..turns {
        raw.run(turn, &mut of_raw)?;
        log.run(turn, &mut of_log)?;
    }
    let block = settings.block.bytes();
    let report = BenchReport { log: of_log.figures(block), raw: of_raw.figures(block), ratio: 0.0 };
    let ratio = report.log.writes_per_second / report.raw.writes_per_second.max(f64::MIN_POSITIVE);
    Ok(BenchReport { ratio, ..report })
}

/// Latencies of single writes, and the time they took together.
#[derive(Debug, Default)]
struct Samples {
    latencies: Vec<Duration>,
    elapsed: Duration,
}

impl Samples {
    fn figures(mut self, block: u64) -> BenchFigures {
        self.latencies.sort_unstable();
        let writes = self.latencies.len() as u64;
        let at = |share: f64| {
            let rank = ((writes as f64 * share).ceil() as usize).max(1) - 1;
            self.latencies.get(rank).copied().unwrap_or_default()
        };
        let seconds = self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        BenchFigures {
            writes,
            bytes: writes * block,
            elapsed: self.elapsed,
            writes_per_second: writes as f64 / seconds,
            megabytes_per_second: (writes * block) as f64 / seconds / 1e6,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }
}

/// When the next write is due.
struct Pace {
    clock: Arc<dyn Clock>,
    gap: Option<Duration>,
    due: MonotonicTime,
    end: MonotonicTime,
}

impl Pace {
    fn new(clock: Arc<dyn Clock>, pace: Option<u32>, turn: Duration) -> Self {
        let now = clock.monotonic();
        let gap = pace.filter(|pace| *pace > 0).map(|pace| Duration::from_secs(1) / pace);
        Self { clock, gap, due: now, end: now.plus(turn) }
    }

    /// Waits for the next write; `false` at the end of the turn. A late write does not make the
    /// next one early.
    fn next(&mut self) -> bool {
        let mut now = self.clock.monotonic();
        while now < self.due && now < self.end {
            std::thread::park_timeout(self.due.since(now));
            now = self.clock.monotonic();
        }
        if let Some(gap) = self.gap {
            self.due = self.due.plus(gap).max(now);
        }
        now < self.end
    }
}

struct RawWriter {
    file: Arc<dyn DiskFile>,
    buffers: Vec<AlignedBuf>,
    size: u64,
    offset: u64,
    number: u64,
    pace: Option<u32>,
    clock: Arc<dyn Clock>,
}

impl RawWriter {
    fn new(disk: &dyn Disk, settings: &BenchSettings, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let block = settings.block.as_usize();
        let size = settings.file_size.bytes() * FILES as u64 / block as u64 * block as u64;
        let file = disk.create(RAW_NAME)?;
        let zeros = AlignedBuf::zeroed(1 << 20);
        for offset in (0..size).step_by(zeros.len()) {
            let length = zeros.len().min((size - offset) as usize);
            file.write_at(offset, &zeros[..length])?;
        }
        file.sync()?;
        disk.sync_dir()?;
        let buffers = (0..4).map(|number| filled(block, number)).collect();
        Ok(Self { file, buffers, size, offset: 0, number: 0, pace: settings.pace, clock })
    }

    fn run(&mut self, turn: Duration, samples: &mut Samples) -> io::Result<()> {
        let mut pace = Pace::new(self.clock.clone(), self.pace, turn);
        let start = self.clock.monotonic();
        while pace.next() {
            self.number += 1;
            let which = self.number as usize % self.buffers.len();
            let buffer = &mut self.buffers[which];
            for sector in buffer.chunks_mut(SECTOR_BYTES) {
                sector[..8].copy_from_slice(&self.number.to_le_bytes());
            }
            if self.offset + buffer.len() as u64 > self.size {
                self.offset = 0;
            }
            let began = self.clock.monotonic();
            self.file.write_at(self.offset, buffer)?;
            samples.latencies.push(self.clock.monotonic().since(began));
            self.offset += buffer.len() as u64;
        }
        samples.elapsed += self.clock.monotonic().since(start);
        Ok(())
    }
}

fn filled(length: usize, seed: u64) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(length);
    Rng::from_seed(seed).fill(&mut buffer);
    buffer
}

struct LogWriter {
    log: Log,
    entry: Vec<u8>,
    index: u64,
    /// Entries that stay behind a truncation.
    keep: u64,
    inline: bool,
    pace: Option<u32>,
    clock: Arc<dyn Clock>,
}

/// What the filling and the writing thread share. The `bool`: there may be something to do.
struct Signal {
    changed: Mutex<bool>,
    wake: Condvar,
}

impl Signal {
    fn raise(&self) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    fn wait(&self) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        while !*changed {
            changed = self.wake.wait(changed).unwrap_or_else(PoisonError::into_inner);
        }
        *changed = false;
    }
}

impl LogWriter {
    fn new(
        disk: Arc<dyn Disk>,
        settings: &BenchSettings,
        clock: Arc<dyn Clock>,
        rng: Rng,
    ) -> io::Result<Self> {
        let block = settings.block.as_usize();
        let overhead = BLOCK_HEADER_BYTES + RECORD_HEADER_BYTES + commits_bytes(2);
        let entry = filled(block, 9)[..block.saturating_sub(overhead)].to_vec();
        let log_settings = LogSettings {
            budget: ByteSize(settings.file_size.bytes() * 4 * FILES as u64),
            file_size: settings.file_size,
            files_ahead: FILES,
            block_size: settings.block,
            entry_max: settings.block,
            ..LogSettings::default()
        };
        let opened = Log::open(disk, log_settings, clock.clone(), rng);
        let (log, _) = opened.map_err(io::Error::other)?;
        let keep = settings.file_size.bytes() / settings.block.bytes();
        let inline = block <= INLINE_BYTES;
        let writer = Self { log, entry, index: 0, keep, inline, pace: settings.pace, clock };
        writer.prepare()?;
        Ok(writer)
    }

    fn prepare(&self) -> io::Result<()> {
        while self.log.prepare_files().map_err(io::Error::other)? != Prepared::Idle {}
        Ok(())
    }

    fn run(&mut self, turn: Duration, samples: &mut Samples) -> io::Result<()> {
        let running = AtomicBool::new(true);
        std::thread::scope(|scope| {
            let log = self.log.clone();
            let clock = self.clock.clone();
            let running = &running;
            // Recycling takes place beside the writing, as in the product.
            let recycler = scope.spawn(move || -> io::Result<()> {
                while running.load(Ordering::Acquire) {
                    if log.prepare_files().map_err(io::Error::other)? == Prepared::Idle {
                        std::thread::park_timeout(Duration::from_millis(5));
                    }
                }
                Ok(())
            });
            let mut pace = Pace::new(clock, self.pace, turn);
            let start = self.clock.monotonic();
            let wrote = match self.inline {
                true => self.run_inline(&mut pace, samples),
                false => self.run_with_thread(&mut pace, samples),
            };
            samples.elapsed += self.clock.monotonic().since(start);
            running.store(false, Ordering::Release);
            recycler.thread().unpark();
            let recycled = recycler.join();
            wrote?;
            recycled.unwrap_or_else(|_| Err(io::Error::other("recycling panicked")))
        })
    }

    fn run_inline(&mut self, pace: &mut Pace, samples: &mut Samples) -> io::Result<()> {
        while pace.next() {
            while !self.log.room()
                && self.log.prepare_files().map_err(io::Error::other)? != Prepared::Idle
            {
            }
            let began = self.clock.monotonic();
            self.append()?;
            while let Some(write) = self.log.begin_write() {
                perform(&self.log, write)?;
            }
            samples.latencies.push(self.clock.monotonic().since(began));
        }
        Ok(())
    }

    /// Fills the next block while a thread writes the one before.
    fn run_with_thread(&mut self, pace: &mut Pace, samples: &mut Samples) -> io::Result<()> {
        let to_write = Arc::new(Signal { changed: Mutex::new(false), wake: Condvar::new() });
        let written = Arc::new(Signal { changed: Mutex::new(false), wake: Condvar::new() });
        let (done, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (log, done, ended) = (self.log.clone(), done.clone(), ended.clone());
            let (to_write, written) = (to_write.clone(), written.clone());
            tasks::spawn_thread("bench-log", move || {
                let result = write_until(&log, &done, &to_write, &written);
                ended.store(true, Ordering::Release);
                written.raise();
                result
            })?
        };
        let mut waiting: Vec<(crate::BlockSeq, MonotonicTime)> = Vec::new();
        let mut filled = Ok(());
        while filled.is_ok() && pace.next() {
            while !self.log.room() && !ended.load(Ordering::Acquire) {
                written.wait();
            }
            let began = self.clock.monotonic();
            filled = self.append().map(|seq| waiting.push((seq, began)));
            to_write.raise();
            self.collect(&mut waiting, samples);
        }
        while !waiting.is_empty() && !ended.load(Ordering::Acquire) {
            written.wait();
            self.collect(&mut waiting, samples);
        }
        done.store(true, Ordering::Release);
        to_write.raise();
        let wrote = thread.join().unwrap_or_else(|_| Err(io::Error::other("writing panicked")));
        filled.and(wrote)
    }

    fn collect(&self, waiting: &mut Vec<(crate::BlockSeq, MonotonicTime)>, samples: &mut Samples) {
        let (durable, now) = (self.log.durable(), self.clock.monotonic());
        waiting.retain(|(seq, began)| {
            if *seq <= durable {
                samples.latencies.push(now.since(*began));
            }
            *seq > durable
        });
    }

    /// Appends one entry that fills a block, and now and then drops those of a file.
    fn append(&mut self) -> io::Result<crate::BlockSeq> {
        self.index += 1;
        self.entry[..8].copy_from_slice(&self.index.to_le_bytes());
        let truncates = self.index.is_multiple_of(self.keep.max(1)) && self.index > 2 * self.keep;
        let entries = [EntryRef {
            index: LogIndex(self.index),
            term: Term(1),
            kind: 0,
            context: &[],
            data: &self.entry,
        }];
        let seq = self.log.append(&Batch { group: GROUP, entries: &entries, ..Batch::default() });
        if truncates {
            let to = Truncated { index: LogIndex(self.index - self.keep), term: Term(1) };
            let batch = Batch { group: GROUP, truncate: Some(to), ..Batch::default() };
            self.log.append(&batch).map_err(io::Error::other)?;
        }
        seq.map_err(io::Error::other)
    }
}

/// Writes blocks as they come until told that none will.
fn write_until(
    log: &Log,
    done: &AtomicBool,
    to_write: &Signal,
    written: &Signal,
) -> io::Result<()> {
    loop {
        while let Some(write) = log.begin_write() {
            perform(log, write)?;
            written.raise();
        }
        if done.load(Ordering::Acquire) {
            return Ok(());
        }
        to_write.wait();
    }
}

fn perform(log: &Log, mut write: BlockWrite) -> io::Result<()> {
    let result = write.perform();
    log.finish_write(write, result).map(|_| ()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
