//! `braid bench read`: events that the server has in memory, read over and over.

use client::{ReadFrom, ReadUntil};
use common::ByteSize;
use futures::future::{join, try_join_all};

use super::append::{check_memory, measure, per_cpu_second};
use super::check::Checker;
use super::clock::{BenchClock, Window};
use super::load::Sender;
use super::payload::Payload;
use super::report::Report;
use super::target::{Target, wrong};
use super::{LoadArgs, RunArgs, TargetArgs};
use crate::failure::{Failure, Result};

/// Write events, then read them over and over and verify each
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Bytes of events that are written and read; less than the server's `cache.tail`, to be
    /// read from memory
    #[arg(long, value_name = "BYTES", default_value = "128MiB")]
    size: ByteSize,

    /// Readers, all in this process
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    readers: u32,

    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    pub(super) run: RunArgs,
}

pub(super) async fn run(args: &Args) -> Result<()> {
    const EVENT_BYTES: usize = 1024;
    let event_size = args.load.event_bytes(EVENT_BYTES)?;
    check_memory(&args.load)?;
    if args.load.rate.is_some() {
        return Err(Failure::usage("bench read has no --rate: it reads as fast as it goes"));
    }
    let target = Target::prepare(&args.target, args.load.segments).await?;
    let events = args.size.bytes() / event_size as u64;
    let senders = target.senders(&args.load).await?;
    let sent = fill(senders, event_size, events, args.load.segments as usize).await?;
    let clock = BenchClock::start();
    let window = Window::new(clock.nanos(), args.run.warmup, args.run.duration);
    let fresh = Checker::new(event_size, args.load.writers as usize, args.load.segments as usize);
    let reading =
        (0..args.readers).map(|_| read_over_and_over(&target, &fresh, &sent, clock, window));
    let (read, usage) = join(try_join_all(reading), measure(clock, window, &target.endpoint)).await;
    let read = read?;
    let events: u64 = read.iter().map(|(in_window, _)| in_window).sum();
    let seconds = window.seconds();
    let events_per_second = events as f64 / seconds;
    let report = Report {
        bench: "read",
        version: env!("CARGO_PKG_VERSION"),
        server: target.server().await?,
        event_size,
        writers: args.load.writers,
        segments: args.load.segments,
        readers: args.readers,
        rate: None,
        sender: None,
        seconds,
        events,
        events_per_second,
        megabytes_per_second: events_per_second * event_size as f64 / 1e6,
        latency_is: "not measured",
        latency_millis: None,
        sender_lateness_millis: None,
        usage,
        events_per_server_cpu_second: per_cpu_second(events, &usage),
        verified_events: read.iter().map(|(_, all)| all).sum(),
        doubts: usage.doubts(),
    };
    target.finish().await?;
    report.deliver(&args.run.output)
}

/// Writes `events` events, spread evenly; by writer and key, the events sent.
pub(super) async fn fill(
    mut senders: Vec<Sender>,
    event_size: usize,
    events: u64,
    keys: usize,
) -> Result<Vec<u64>> {
    let mut payload = Payload::new(event_size);
    let writers = senders.len() as u64;
    for event in 0..events {
        senders[(event % writers) as usize].send(&mut payload, 0).await?;
    }
    let sent = super::load::sent_by_key(&senders, keys);
    for sender in senders {
        sender.writer.close().await?;
    }
    Ok(sent)
}

/// Events read within the window, and all that were read and verified.
async fn read_over_and_over(
    target: &Target,
    fresh: &Checker,
    sent: &[u64],
    clock: BenchClock,
    window: Window,
) -> Result<(u64, u64)> {
    let (mut in_window, mut all) = (0, 0);
    while clock.nanos() < window.until {
        let mut checker = fresh.clone();
        let reader = target.client.event_reader(&target.stream);
        let mut reader = reader.from(ReadFrom::Head).until(ReadUntil::Tail).open().await?;
        while let Some(batch) = reader.next_batch().await {
            let batch = batch?;
            for event in &batch {
                checker.read(&event.payload).map_err(wrong)?;
            }
            if window.contains(clock.nanos()) {
                in_window += batch.len() as u64;
            }
        }
        all += checker.finish(sent, false).map_err(wrong)?;
    }
    Ok((in_window, all))
}
