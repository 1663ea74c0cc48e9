//! `braid bench wide`: what a wide stream costs others, while it is made, listed and deleted.
//!
//! One writer appends an event at a time to a stream of its own and waits for it, every few
//! milliseconds. That the wide stream comes whole, is listed whole and goes whole is checked; how
//! long the appends took meanwhile is reported, beside how long they take when nothing else happens.

use std::cell::Cell;
use std::time::Duration;

use client::{Event, EventWriter, ScopedStream, SegmentSet, StreamConfig};
use futures::future::BoxFuture;
use futures::stream::{StreamExt, TryStreamExt, iter};
use serde::Serialize;

use super::TargetArgs;
use super::clock::BenchClock;
use super::latency::{Latencies, Percentiles};
use super::report::{Destination, ServerFacts, save};
use super::scrape::Scrape;
use super::target::{Target, wrong};
use crate::failure::{Failure, Result};
use crate::output::{self, note, pairs_text};

/// Measure appends to one stream while another one of many segments comes and goes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Segments of the stream that comes and goes
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    segments: u32,

    /// Streams of one segment that are there meanwhile
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    streams: u32,

    /// How long appends are measured while nothing else happens
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    idle: Duration,

    #[command(flatten)]
    target: TargetArgs,

    /// table, json, yaml, or a file to which JSON is saved
    #[arg(short, long, value_name = "FORM|FILE", default_value = "table")]
    output: Destination,
}

/// Between two appends.
const PAUSE: Duration = Duration::from_millis(2);

/// Streams that are made, or deleted, at the same time.
const AT_A_TIME: usize = 32;

#[derive(Debug, Serialize)]
struct WideReport {
    bench: &'static str,
    version: &'static str,
    #[serde(flatten)]
    server: ServerFacts,
    segments: u32,
    streams: u32,
    phases: Vec<Phase>,
}

/// What happened, and the appends meanwhile.
#[derive(Debug, Serialize)]
struct Phase {
    what: &'static str,
    seconds: f64,
    latency_millis: Option<Percentiles>,
    /// The median over that of the idle phase.
    times_idle: Option<f64>,
    /// Of the server's worker, which appends wait for.
    worker: WorkerSteps,
}

/// Steps of the server's worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
struct WorkerSteps {
    seconds: f64,
    steps: f64,
    /// Of these, longer than a millisecond.
    above_a_millisecond: f64,
}

pub(super) async fn run(args: &Args) -> Result<()> {
    let target = Target::prepare(&args.target, 1).await?;
    let writer = target.client.event_writer(&target.stream).open().await?;
    let (clock, endpoint) = (BenchClock::start(), target.endpoint.clone());
    let mut pinger = Pinger { writer, clock, endpoint, phases: Vec::new() };
    let others = others(&target, args.streams)?;
    let wide = beside(&target.stream, "wide")?;
    let streams = target.client.streams();
    let one = StreamConfig { segments: 1, create_scope: true };
    if !others.is_empty() {
        note(format_args!("makes {} streams", others.len()));
    }
    let made = iter(&others).map(|other| streams.create_stream(other, one));
    made.buffer_unordered(AT_A_TIME).try_for_each(|_| std::future::ready(Ok(()))).await?;

    let idle = async {
        tokio::time::sleep(args.idle).await;
        Ok(())
    };
    pinger.during("idle", Box::pin(idle)).await?;
    let config = StreamConfig { segments: args.segments, create_scope: true };
    let created = async {
        match streams.create_stream(&wide, config).await?.created {
            true => Ok(()),
            false => Err(wrong(format!("stream `{wide}` was there already"))),
        }
    };
    pinger.during("create", Box::pin(created)).await?;
    let lists = [
        ("list tail", SegmentSet::Tail),
        ("list head", SegmentSet::Head),
        ("list first", SegmentSet::First),
    ];
    for (what, set) in lists {
        let listed = async {
            let found = streams.segments(&wide, set).await?.segments.len();
            match found == args.segments as usize {
                true => Ok(()),
                false => Err(wrong(format!("{found} of {} segments are listed", args.segments))),
            }
        };
        pinger.during(what, Box::pin(listed)).await?;
    }
    let deleted = async {
        streams.delete(&wide).await?;
        match streams.describe(&wide).await {
            Err(error) if error.kind() == client::ErrorKind::NotFound => Ok(()),
            found => Err(wrong(format!("the deleted stream is still there: {found:?}"))),
        }
    };
    pinger.during("delete", Box::pin(deleted)).await?;
    let Pinger { writer, phases, .. } = pinger;
    writer.close().await?;
    let server = target.server().await?;
    let gone = iter(&others).map(|other| streams.delete(other));
    gone.buffer_unordered(AT_A_TIME).try_for_each(|()| std::future::ready(Ok(()))).await?;
    target.finish().await?;
    let (segments, streams) = (args.segments, args.streams);
    let version = env!("CARGO_PKG_VERSION");
    deliver(&WideReport { bench: "wide", version, server, segments, streams, phases }, &args.output)
}

/// Appends one event at a time.
struct Pinger {
    writer: EventWriter,
    clock: BenchClock,
    endpoint: String,
    phases: Vec<Phase>,
}

impl Pinger {
    /// Does `work` and measures appends meanwhile, the one under way at its end included.
    async fn during(&mut self, what: &'static str, work: BoxFuture<'_, Result<()>>) -> Result<()> {
        let (clock, over) = (self.clock, Cell::new(false));
        let before = worker_steps(&self.endpoint).await?;
        let began = clock.nanos();
        let work = async {
            let done = work.await;
            over.set(true);
            done.map(|()| clock.nanos())
        };
        let writer = &mut self.writer;
        let appends = async {
            let mut latencies = Latencies::new();
            while !over.get() {
                let sent = clock.nanos();
                writer.append(Event::new(b"x").key("k")).await?;
                writer.flush().await?;
                latencies.record(clock.nanos() - sent);
                tokio::time::sleep(PAUSE).await;
            }
            Ok::<_, Failure>(latencies)
        };
        let (ended, latencies) = futures::future::try_join(work, appends).await?;
        let latency_millis = latencies.percentiles();
        let p50 = |latency: &Option<Percentiles>| latency.as_ref().map(|latency| latency.p50);
        let idle = self.phases.first().and_then(|idle| p50(&idle.latency_millis));
        let times_idle = p50(&latency_millis).zip(idle).map(|(now, idle)| now / idle);
        let seconds = (ended - began) as f64 / 1e9;
        let worker = worker_steps(&self.endpoint).await?.since(before);
        self.phases.push(Phase { what, seconds, latency_millis, times_idle, worker });
        Ok(())
    }
}

impl WorkerSteps {
    fn since(self, before: Self) -> Self {
        Self {
            seconds: self.seconds - before.seconds,
            steps: self.steps - before.steps,
            above_a_millisecond: self.above_a_millisecond - before.above_a_millisecond,
        }
    }
}

/// Since the server was started.
async fn worker_steps(endpoint: &str) -> Result<WorkerSteps> {
    let scrape = Scrape::of(endpoint).await?;
    let value = |series: &str| {
        let series = format!("braid_worker_step_seconds_{series}");
        let told = scrape.value(&series);
        told.ok_or_else(|| Failure::general(format!("the server does not tell `{series}`")))
    };
    let (seconds, steps) = (value("sum")?, value("count")?);
    let within = value("bucket{le=\"0.001\"}")?;
    Ok(WorkerSteps { seconds, steps, above_a_millisecond: steps - within })
}

fn others(target: &Target, count: u32) -> Result<Vec<ScopedStream>> {
    (0..count).map(|number| beside(&target.stream, &number.to_string())).collect()
}

/// A stream named after the one that is written to.
fn beside(stream: &ScopedStream, suffix: &str) -> Result<ScopedStream> {
    let name = format!("{}-{suffix}", stream.stream);
    ScopedStream::new(stream.scope.as_str(), &name)
        .map_err(|error| Failure::general(error.to_string()))
}

fn deliver(report: &WideReport, destination: &Destination) -> Result<()> {
    let mut pairs = vec![(
        "bench".to_owned(),
        format!("{} segments beside {} streams", report.segments, report.streams),
    )];
    for phase in &report.phases {
        let mut text = format!("{:.2} s", phase.seconds);
        if let Some(latency) = &phase.latency_millis {
            text += &format!("; appends {}", latency.text());
        }
        if let Some(times) = phase.times_idle {
            text += &format!(", p50 {times:.1} times that of idle");
        }
        let WorkerSteps { seconds, steps, above_a_millisecond } = phase.worker;
        text += &format!(
            "; {steps:.0} steps of {:.2} ms, {above_a_millisecond:.0} above 1 ms",
            if steps > 0.0 { seconds * 1e3 / steps } else { 0.0 },
        );
        pairs.push((phase.what.to_owned(), text));
    }
    let table = pairs_text(&pairs);
    match destination {
        Destination::Print(format) => output::print_done(*format, table.trim_end(), report),
        Destination::Save(file) => {
            save(file, report)?;
            output::print(&table)
        }
    }
}
