//! Writers: bursts of events and atomic batches, each event a line in the history.

use std::collections::VecDeque;

use bytes::Bytes;
use client::{ByteSize, Client, Event, EventWriter, Rng};
use common::Tasks;
use tests::history::{EventRef, Operation, What};
use tests::payload::{key_in, key_text, payload};
use tokio_util::sync::CancellationToken;

use super::journal::Stream;
use super::{Load, pass_some, patiently};

/// Operations that may be on their way.
const WINDOW: usize = 64;

struct Writing {
    load: Load,
    stream: Stream,
    /// In payloads and in the history.
    number: u32,
    writer: EventWriter,
    rng: Rng,
    /// Number of the last event of each operation that is not known to be stored.
    pending: VecDeque<(u64, u64)>,
}

/// Appends until told to stop, and then until everything is acknowledged; or until the stream does
/// not take any more.
pub async fn write(load: Load, client: Client, stream: Stream, rng: Rng, stop: CancellationToken) {
    let opened = patiently("open a writer", || {
        client.event_writer(&stream.name).memory_limit(ByteSize::mib(8)).open()
    });
    // Without one the stream was sealed or deleted meanwhile.
    let Some(writer) = opened.await else { return };
    let number = load.journal.writer_number();
    let mut writing = Writing { load, stream, number, writer, rng, pending: VecDeque::new() };
    while !stop.is_cancelled() {
        if writing.burst().await.is_err() || writing.catch_up(WINDOW).await.is_err() {
            return writing.give_up();
        }
        stop.run_until_cancelled(pass_some(&mut writing.rng, 20, 180)).await;
    }
    if writing.catch_up(0).await.is_err() {
        writing.give_up();
    }
}

impl Writing {
    async fn burst(&mut self) -> client::Result<()> {
        for _ in 0..self.rng.between(1, 24) {
            let segment = self.rng.below(self.stream.places.len() as u64) as usize;
            let from = self.rng.below(1 << 16) as u32;
            let key = key_in(self.stream.places[segment].range, from);
            let count = if self.rng.chance(1, 10) { self.rng.between(2, 5) } else { 1 };
            self.append(segment, key, count).await?;
        }
        Ok(())
    }

    async fn append(&mut self, segment: usize, key: u32, count: u64) -> client::Result<()> {
        let first = self.writer.next_number().0;
        let last = first + count - 1;
        let payloads: Vec<Bytes> =
            (first..=last).map(|number| self.payload(number, key).into()).collect();
        let op = self.load.journal.invoke(Operation::Append {
            segment: self.stream.segment(segment),
            writer: self.number,
            events: (first..=last).map(|number| EventRef { number, key }).collect(),
            expected_offset: None,
        });
        self.pending.push_back((last, op));
        let key = key_text(key);
        let event = |payload| Event::new(payload).key(&key);
        let events: Vec<Event<'_>> = payloads.iter().map(event).collect();
        match events.as_slice() {
            [one] => self.writer.append(*one).await.map(drop),
            batch => self.writer.append_batch(&key, batch).await.map(drop),
        }
    }

    /// Mostly small, some large, a few that fill a round by themselves.
    fn payload(&mut self, number: u64, key: u32) -> Vec<u8> {
        let filler = match self.rng.below(400) {
            0 => 1 << 20,
            1..=8 => self.rng.below(100 << 10),
            _ => self.rng.below(2 << 10),
        };
        payload(self.number, number, key, filler as usize)
    }

    /// Waits until at most `window` operations are on their way.
    async fn catch_up(&mut self, window: usize) -> client::Result<()> {
        if let Some(over) = self.pending.len().checked_sub(window + 1) {
            let (number, _) = self.pending[over];
            self.writer.wait_acknowledged(number.into()).await?;
        }
        self.note_acknowledged();
        Ok(())
    }

    fn note_acknowledged(&mut self) {
        let acknowledged = self.writer.acknowledged().0;
        while let Some((_, op)) = self.pending.pop_front_if(|(last, _)| *last <= acknowledged) {
            self.load.journal.done(op);
        }
    }

    /// What is not acknowledged may be stored or not.
    fn give_up(mut self) {
        self.note_acknowledged();
        for (_, op) in self.pending {
            self.load.journal.end(op, What::Unknown);
        }
    }
}

/// Several of them.
pub fn start(
    load: &Load,
    client: &Client,
    stream: &Stream,
    rng: &mut Rng,
    tasks: &Tasks,
    stop: &CancellationToken,
) {
    for _ in 0..rng.between(1, 3) {
        let (client, rng) = (client.clone(), rng.fork("writer"));
        tasks.spawn("writer", write(load.clone(), client, stream.clone(), rng, stop.clone()));
    }
}
