//! The writer table of a segment: who wrote what last, under which session.
//!
//! An *entry* knows what a writer stored. What is left of one that was closed, expired or made room
//! for another is a *stub*: the session number, which refuses what is still on its way. Stubs are
//! no writers: they have a bound of their own.
//!
//! Entries that time may take stand in a queue by their last use. A writer that is in use moves up
//! in it once a second, and whoever needs the first one looks whether it is: what comes out follows
//! from the entries alone, so that every replica finds the same.

mod entry;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::WriterId;

pub(crate) use self::entry::{NOT_QUEUED, Stub, Trace, Writer, WriterState};
use crate::limits::{STUB_AGE_MIN, STUBS_PER_SEGMENT_MAX, WRITER_STUB_TTL, WRITER_TTL, micros};
use crate::metrics::Metrics;

/// Bytes of memory that an entry and a stub take, with their places in the queues. The nodes of a
/// tree are two thirds full.
const WRITER_BYTES: usize =
    (size_of::<(WriterId, Writer)>() + size_of::<(u64, WriterId)>()) * 3 / 2;
const STUB_BYTES: usize = (size_of::<(WriterId, Stub)>() + size_of::<(u64, WriterId)>()) * 3 / 2;

/// How far an entry's place in the queue lags behind its use: a writer in use moves at most once in
/// this time.
const QUEUE_LAG_MICROS: u64 = 1_000_000;

/// All writers of one segment.
#[derive(Debug)]
pub(crate) struct WriterTable {
    writers: BTreeMap<WriterId, Writer>,
    /// The entries that time may take, at or before their last use.
    idle: BTreeSet<(u64, WriterId)>,
    stubs: BTreeMap<WriterId, Stub>,
    /// The stubs, oldest first.
    stub_ages: BTreeSet<(u64, WriterId)>,
    /// Where the segment stands in the container's queue.
    pub(crate) due: Option<u64>,
    metrics: Arc<Metrics>,
}

impl WriterTable {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            writers: BTreeMap::new(),
            idle: BTreeSet::new(),
            stubs: BTreeMap::new(),
            stub_ages: BTreeSet::new(),
            due: None,
            metrics,
        }
    }

    /// Writers with an entry.
    pub(crate) fn len(&self) -> usize {
        self.writers.len()
    }

    #[cfg(test)]
    pub(crate) fn stub_count(&self) -> usize {
        self.stubs.len()
    }

    pub(crate) fn get(&self, writer: WriterId) -> Option<&Writer> {
        self.writers.get(&writer)
    }

    pub(crate) fn get_mut(&mut self, writer: WriterId) -> Option<&mut Writer> {
        self.writers.get_mut(&writer)
    }

    pub(crate) fn stub(&self, writer: WriterId) -> Option<&Stub> {
        self.stubs.get(&writer)
    }

    /// Whatever is known of a writer.
    pub(crate) fn trace(&self, writer: WriterId) -> Option<Trace> {
        let entry = self.writers.get(&writer).copied().map(Trace::Writer);
        entry.or_else(|| self.stubs.get(&writer).copied().map(Trace::Stub))
    }

    /// Writers of which something is known.
    pub(crate) fn ids(&self) -> impl Iterator<Item = WriterId> {
        self.writers.keys().chain(self.stubs.keys()).copied()
    }

    /// Puts a trace in the place of whatever was known.
    pub(crate) fn put(&mut self, writer: WriterId, trace: Trace) {
        self.remove(writer);
        match trace {
            Trace::Writer(mut entry) => {
                entry.queued_micros = NOT_QUEUED;
                self.writers.insert(writer, entry);
                self.metrics.writer_table_bytes.add(WRITER_BYTES as u64);
                self.queue(writer);
            }
            Trace::Stub(stub) => {
                self.stubs.insert(writer, stub);
                self.stub_ages.insert((stub.since_micros, writer));
                self.metrics.writer_table_bytes.add(STUB_BYTES as u64);
            }
        }
    }

    pub(crate) fn remove(&mut self, writer: WriterId) {
        if let Some(entry) = self.writers.remove(&writer) {
            self.idle.remove(&(entry.queued_micros, writer));
            self.metrics.writer_table_bytes.subtract(WRITER_BYTES as u64);
        }
        if let Some(stub) = self.stubs.remove(&writer) {
            self.stub_ages.remove(&(stub.since_micros, writer));
            self.metrics.writer_table_bytes.subtract(STUB_BYTES as u64);
        }
    }

    /// Gives an entry the place in the queue that it has now, if any.
    pub(crate) fn queue(&mut self, writer: WriterId) {
        let Some(entry) = self.writers.get_mut(&writer) else { return };
        let place = if entry.expires() { entry.used_micros } else { NOT_QUEUED };
        if place == entry.queued_micros {
            return;
        }
        if entry.queued_micros != NOT_QUEUED {
            self.idle.remove(&(entry.queued_micros, writer));
        }
        if place != NOT_QUEUED {
            self.idle.insert((place, writer));
        }
        entry.queued_micros = place;
    }

    /// The entry that was not used for longest, of those that time may take.
    pub(crate) fn longest_unused(&mut self) -> Option<WriterId> {
        loop {
            let (queued, writer) = *self.idle.first()?;
            if self.writers.get(&writer)?.used_micros == queued {
                return Some(writer);
            }
            self.queue(writer);
        }
    }

    /// The oldest stub, where there are too many and it is old enough to go.
    pub(crate) fn surplus_stub(&self, up_micros: u64) -> Option<WriterId> {
        if self.stubs.len() <= STUBS_PER_SEGMENT_MAX {
            return None;
        }
        let (since, writer) = *self.stub_ages.first()?;
        (since.saturating_add(micros(STUB_AGE_MIN)) <= up_micros).then_some(writer)
    }

    /// Whether a session number may go: after its hour, or as one of too many.
    pub(crate) fn is_stub_due(&self, writer: WriterId, up_micros: u64) -> bool {
        let Some(stub) = self.stubs.get(&writer) else { return false };
        let passed = |ttl| stub.since_micros.saturating_add(micros(ttl)) <= up_micros;
        passed(WRITER_STUB_TTL) || self.stubs.len() > STUBS_PER_SEGMENT_MAX && passed(STUB_AGE_MIN)
    }

    /// The up-time at which something is to be done, at the earliest.
    pub(crate) fn due_micros(&self) -> Option<u64> {
        let first = |queue: &BTreeSet<(u64, WriterId)>| queue.first().map(|(micros, _)| *micros);
        let idle = first(&self.idle).map(|used| used.saturating_add(micros(WRITER_TTL)));
        let kept =
            if self.stubs.len() > STUBS_PER_SEGMENT_MAX { STUB_AGE_MIN } else { WRITER_STUB_TTL };
        let stub = first(&self.stub_ages).map(|since| since.saturating_add(micros(kept)));
        idle.into_iter().chain(stub).min()
    }

    /// The writers of which something is to be forgotten at `up_micros`, as apply decides it then.
    pub(crate) fn due_at(&self, up_micros: u64) -> impl Iterator<Item = WriterId> {
        let passed = move |micros_: u64, ttl| micros_.saturating_add(micros(ttl)) <= up_micros;
        let idle = self.idle.iter().take_while(move |(used, _)| passed(*used, WRITER_TTL));
        let idle = idle.map(|(_, writer)| *writer);
        let unused = move |writer: &WriterId| {
            self.writers.get(writer).is_some_and(|entry| entry.is_due(up_micros))
        };
        let surplus = self.stubs.len().saturating_sub(STUBS_PER_SEGMENT_MAX);
        let stubs = self.stub_ages.iter().enumerate().take_while(move |(at, (since, _))| {
            passed(*since, if *at < surplus { STUB_AGE_MIN } else { WRITER_STUB_TTL })
        });
        idle.filter(unused).chain(stubs.map(|(_, (_, writer))| *writer))
    }
}

impl Drop for WriterTable {
    fn drop(&mut self) {
        let bytes = self.writers.len() * WRITER_BYTES + self.stubs.len() * STUB_BYTES;
        self.metrics.writer_table_bytes.subtract(bytes as u64);
    }
}
