//! Streams that are created, truncated, sealed, deleted and created anew under the same name, while
//! writers and readers are at them.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use client::{Client, ErrorKind, Rng, ScopedStream, SegmentSet, StreamConfig, StreamCut};
use common::Tasks;
use tests::history::{Operation, What};
use tokio_util::sync::CancellationToken;

use super::journal::Stream;
use super::{Load, pass_some, patiently, reading, writing};

/// One life after the other, until told to stop; the last one's stream stays.
pub async fn live(
    load: Load,
    client: Client,
    name: ScopedStream,
    mut rng: Rng,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let stream = create(&load, &client, &name, &mut rng).await;
        let tasks = Tasks::new();
        // Writers hear of the end of a life from the stream, and not from us.
        writing::start(&load, &client, &stream, &mut rng, &tasks, &stop);
        let (around, of, own) = (tasks.token(), stream.clone(), rng.fork("reader"));
        tasks.spawn("reader", reading::follow(load.clone(), client.clone(), of, own, around));
        let (around, of, own) = (tasks.token(), stream.clone(), rng.fork("cutter"));
        tasks.spawn("cutter", truncate(load.clone(), client.clone(), of, own, around));
        let life = pass_some(&mut rng, 8_000, 40_000);
        if stop.run_until_cancelled(life).await.is_some() {
            end(&load, &client, &stream, &mut rng).await;
        }
        tasks.stop().await;
        if tasks.failed() {
            load.problem(format!("a task around `{name}` panicked"));
        }
    }
}

async fn create(load: &Load, client: &Client, name: &ScopedStream, rng: &mut Rng) -> Stream {
    let config = StreamConfig { segments: rng.between(1, 4) as u32, create_scope: true };
    let streams = client.streams();
    let created = patiently("create a stream", || streams.create_stream(name, config)).await;
    let found = patiently("locate", || streams.segments(name, SegmentSet::Active)).await;
    let places = found.filter(|_| created.is_some()).map(|found| found.segments);
    let Some(places) = places else { panic!("`{name}` is not there once it is created") };
    let stream = Stream { number: load.journal.stream_number(), name: name.clone(), places };
    load.journal.born(&stream);
    stream
}

/// Sealed before it is deleted, or not; and with its scope, or not.
async fn end(load: &Load, client: &Client, stream: &Stream, rng: &mut Rng) {
    let (streams, name) = (client.streams(), &stream.name);
    if rng.chance(1, 3) {
        let op = load.journal.invoke(Operation::Seal { stream: stream.number });
        patiently("seal", || streams.seal(name)).await;
        load.journal.done(op);
        load.journal.seals.fetch_add(1, Ordering::Relaxed);
        pass_some(rng, 0, 3_000).await;
    }
    load.journal.dies(stream);
    let op = load.journal.invoke(Operation::Delete { stream: stream.number });
    // Not there any more after an answer that was lost: it was this deletion.
    patiently("delete", || streams.delete(name)).await;
    load.journal.done(op);
    load.journal.deletions.fetch_add(1, Ordering::Relaxed);
    if rng.chance(1, 2) {
        patiently("delete a scope", || streams.delete_scope(&name.scope)).await;
    }
}

/// Drops what is before where the tail once was.
async fn truncate(
    load: Load,
    client: Client,
    stream: Stream,
    mut rng: Rng,
    stop: CancellationToken,
) {
    let mut cuts: VecDeque<StreamCut> = VecDeque::new();
    while !stop.is_cancelled() {
        if stop.run_until_cancelled(pass_some(&mut rng, 500, 2_500)).await.is_none() {
            return;
        }
        let streams = client.streams();
        let tail = patiently("find the tail", || streams.tail_cut(&stream.name));
        let tail = Box::pin(tail);
        match stop.run_until_cancelled(tail).await {
            Some(Some(cut)) => cuts.push_back(cut),
            Some(None) | None => return,
        }
        if !rng.chance(1, 3) {
            continue;
        }
        let older = rng.below(cuts.len() as u64) as usize;
        let cut = cuts.drain(..=older).next_back().expect("one was just added");
        if !truncate_at(&load, &client, &stream, &cut).await {
            return;
        }
    }
}

/// Whether the stream is still there.
async fn truncate_at(load: &Load, client: &Client, stream: &Stream, cut: &StreamCut) -> bool {
    let offset = |segment: usize| cut.get(stream.places[segment].segment);
    let segments = (0..stream.places.len()).filter_map(|at| Some((at, offset(at)?.0)));
    let invoke = |(at, offset)| {
        load.journal.invoke(Operation::Truncate { segment: stream.segment(at), offset })
    };
    let ops: Vec<u64> = segments.map(invoke).collect();
    let streams = client.streams();
    let done = patiently("truncate", || async {
        let refused = streams.truncate(&stream.name, cut).await;
        // A deletion that is half done is told as a cut that does not fit.
        let dying = !load.journal.is_live(stream);
        if dying && matches!(&refused, Err(error) if error.kind() == ErrorKind::InvalidRequest) {
            return Ok(None);
        }
        refused.map(Some)
    });
    let done = done.await.flatten();
    for op in ops {
        match done {
            Some(()) => load.journal.done(op),
            None => load.journal.end(op, What::Unknown),
        }
    }
    load.journal.truncations.fetch_add(u64::from(done.is_some()), Ordering::Relaxed);
    done.is_some()
}
