//! What the load did and saw, as one history of many tasks, and what it was made of.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use client::{ScopedStream, SegmentPlace};
use common::{Clock, SystemClock};
use tests::history::{Answer, Line, Operation, Recorder, SegmentRef, What};

/// A stream from its creation to its deletion.
#[derive(Debug, Clone)]
pub struct Stream {
    /// A stream that was deleted and created anew has another one.
    pub number: u32,
    pub name: ScopedStream,
    pub places: Vec<SegmentPlace>,
}

impl Stream {
    pub fn segment(&self, segment: usize) -> SegmentRef {
        SegmentRef { stream: self.number, segment: segment as u32 }
    }
}

#[derive(Debug)]
pub struct Journal {
    clock: SystemClock,
    recorder: Mutex<Recorder>,
    streams: AtomicU32,
    writers: AtomicU32,
    /// Those that nobody began to delete.
    live: Mutex<BTreeMap<u32, Stream>>,
    pub truncations: AtomicU64,
    pub deletions: AtomicU64,
    pub seals: AtomicU64,
}

impl Journal {
    pub fn new() -> Self {
        Self {
            clock: SystemClock::new(),
            recorder: Mutex::default(),
            streams: AtomicU32::default(),
            writers: AtomicU32::default(),
            live: Mutex::default(),
            truncations: AtomicU64::default(),
            deletions: AtomicU64::default(),
            seals: AtomicU64::default(),
        }
    }

    /// The clock is read under the lock, so that lines are in the order of their times.
    fn recorder(&self) -> (MutexGuard<'_, Recorder>, u64) {
        let recorder = self.recorder.lock().unwrap();
        let at = self.clock.monotonic().0;
        (recorder, at)
    }

    pub fn invoke(&self, operation: Operation) -> u64 {
        let (mut recorder, at) = self.recorder();
        recorder.invoke(at, 0, operation)
    }

    pub fn end(&self, op: u64, what: What) {
        let (mut recorder, at) = self.recorder();
        recorder.end(at, 0, op, what);
    }

    pub fn done(&self, op: u64) {
        self.end(op, What::Ok { answer: Answer::Done });
    }

    /// Every line so far.
    pub fn lines(&self) -> Vec<Line> {
        self.recorder.lock().unwrap().lines().to_vec()
    }

    pub fn stream_number(&self) -> u32 {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    pub fn writer_number(&self) -> u32 {
        self.writers.fetch_add(1, Ordering::Relaxed)
    }

    pub fn born(&self, stream: &Stream) {
        self.live.lock().unwrap().insert(stream.number, stream.clone());
    }

    pub fn dies(&self, stream: &Stream) {
        self.live.lock().unwrap().remove(&stream.number);
    }

    pub fn is_live(&self, stream: &Stream) -> bool {
        self.live.lock().unwrap().contains_key(&stream.number)
    }

    pub fn live(&self) -> Vec<Stream> {
        self.live.lock().unwrap().values().cloned().collect()
    }
}
