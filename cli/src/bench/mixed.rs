//! `braid bench mixed`: a reader at the tail of a stream that is being written.

use std::time::Duration;

use client::{EventReader, ReadFrom};
use futures::future::join3;
use tokio::sync::watch;

use super::append::{check_memory, measure, per_cpu_second};
use super::check::Checker;
use super::clock::{BenchClock, Window};
use super::latency::Latencies;
use super::load::{self, Outcome, Plan};
use super::machine::Usage;
use super::report::{Report, ServerFacts};
use super::target::{Target, wrong};
use super::{LoadArgs, Rate, RunArgs, TargetArgs};
use crate::failure::{Failure, Result};

/// Append events and measure until a reader at the tail has them
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// How long the reader may lag behind the last acknowledgement.
const LAST_EVENTS: Duration = Duration::from_secs(10);

pub(super) async fn run(args: &Args) -> Result<()> {
    const EVENT_BYTES: usize = 1_000;
    const RATE: u64 = 50_000;
    let event_size = args.load.event_bytes(EVENT_BYTES)?;
    check_memory(&args.load)?;
    let rate = args.load.rate.map_or(Some(RATE), Rate::per_second);
    let target = Target::prepare(&args.target, args.load.segments).await?;
    let reader = target.client.event_reader(&target.stream).from(ReadFrom::Tail).open().await?;
    let senders = target.senders(&args.load).await?;
    let keys = args.load.segments as usize;
    let checker = Checker::new(event_size, args.load.writers as usize, keys);
    let clock = BenchClock::start();
    let window = Window::new(clock.nanos(), args.run.warmup, args.run.duration);
    let plan = Plan { event_size, rate, pacing: args.load.pacing, window };
    let (announce, total) = watch::channel(None);
    let sending = async {
        let sent = target.while_freeing(load::run(&plan, clock, senders, keys)).await;
        // Where sending failed the reader must not wait for more.
        let events = sent.as_ref().map_or(0, |(outcome, _)| outcome.sent.iter().sum());
        announce.send_replace(Some(events));
        sent
    };
    let reading = follow(reader, checker, total, clock, window);
    let measuring = measure(clock, window, &target.endpoint);
    let (sent, read, usage) = join3(sending, reading, measuring).await;
    let (outcome, _) = sent?;
    let read = read?;
    let verified = read.checker.finish(&outcome.sent, false).map_err(wrong)?;
    let report = report(args, &plan, &outcome, &read, usage, verified, target.server().await?);
    target.finish().await?;
    report.deliver(&args.run.output)
}

/// What the reader saw.
struct Followed {
    checker: Checker,
    latencies: Latencies,
    /// Events read within the window.
    events: u64,
}

/// Reads until everything that was sent has come.
async fn follow(
    mut reader: EventReader,
    checker: Checker,
    mut total: watch::Receiver<Option<u64>>,
    clock: BenchClock,
    window: Window,
) -> Result<Followed> {
    let mut followed = Followed { checker, latencies: Latencies::new(), events: 0 };
    let mut read = 0;
    loop {
        let expected = *total.borrow_and_update();
        if expected.is_some_and(|total| read >= total) {
            return Ok(followed);
        }
        let batch = tokio::select! {
            batch = reader.next_batch() => batch,
            _ = total.changed(), if expected.is_none() => continue,
            () = tokio::time::sleep(LAST_EVENTS), if expected.is_some() => {
                return Err(wrong(format!("{read} events were read, {expected:?} were sent")));
            }
        };
        let Some(batch) = batch else {
            return Err(Failure::general("the stream has ended while it was being written"));
        };
        let now = clock.nanos();
        for event in batch? {
            let header = followed.checker.read(&event.payload).map_err(wrong)?;
            read += 1;
            if window.contains(header.sent_nanos) {
                followed.latencies.record(now.saturating_sub(header.sent_nanos));
            }
            followed.events += u64::from(window.contains(now));
        }
    }
}

fn report(
    args: &Args,
    plan: &Plan,
    outcome: &Outcome,
    read: &Followed,
    usage: Usage,
    verified_events: u64,
    server: ServerFacts,
) -> Report {
    let seconds = plan.window.seconds();
    let events_per_second = read.events as f64 / seconds;
    Report {
        bench: "mixed",
        version: env!("CARGO_PKG_VERSION"),
        server,
        event_size: plan.event_size,
        writers: args.load.writers,
        segments: args.load.segments,
        readers: 1,
        rate: plan.rate,
        sender: args.load.sender_text(plan.rate),
        seconds,
        events: read.events,
        events_per_second,
        megabytes_per_second: events_per_second * plan.event_size as f64 / 1e6,
        latency_is: match plan.rate {
            Some(_) => "from the intended send time until read",
            None => "from the hand-over to the writer until read",
        },
        latency_millis: read.latencies.percentiles(),
        sender_lateness_millis: outcome.lateness.percentiles(),
        usage,
        events_per_server_cpu_second: per_cpu_second(read.events, &usage),
        verified_events,
        doubts: usage.doubts(),
    }
}
