//! `braid bench append`: events in, acknowledgements out.

use futures::future::join;

use super::check::Checker;
use super::clock::{BenchClock, Window};
use super::load::{self, Outcome, Plan};
use super::machine::{Sample, Usage};
use super::report::{Report, ServerFacts};
use super::target::{MEMORY_MIN, Target, wrong};
use super::{LoadArgs, Rate, RunArgs, TargetArgs};
use crate::failure::{Failure, Result};

/// Append events and measure until they are acknowledged as durable
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    pub(super) run: RunArgs,
}

impl Args {
    fn rate(&self) -> Option<u64> {
        self.load.rate.unwrap_or(Rate::Max).per_second()
    }

    pub(super) fn is_full_speed(&self) -> bool {
        self.rate().is_none()
    }
}

pub(super) async fn run(args: &Args) -> Result<()> {
    const EVENT_BYTES: usize = 100;
    let event_size = args.load.event_bytes(EVENT_BYTES)?;
    check_memory(&args.load)?;
    let target = Target::prepare(&args.target, args.load.segments).await?;
    let senders = target.senders(&args.load).await?;
    let clock = BenchClock::start();
    let window = Window::new(clock.nanos(), args.run.warmup, args.run.duration);
    let plan = Plan { event_size, rate: args.rate(), pacing: args.load.pacing, window };
    let keys = args.load.segments as usize;
    let sending = target.while_freeing(load::run(&plan, clock, senders, keys));
    let (sent, usage) = join(sending, measure(clock, window, &target.endpoint)).await;
    let (outcome, truncated) = sent?;
    let verified = if args.load.no_verify {
        0
    } else {
        let mut checker = Checker::new(event_size, args.load.writers as usize, keys);
        target.verify(&mut checker).await?;
        checker.finish(&outcome.sent, truncated).map_err(wrong)?
    };
    let report = report(args, &plan, &outcome, usage, verified, target.server().await?);
    target.finish().await?;
    report.deliver(&args.run.output)
}

/// Whether the writers' memory is what the client accepts.
pub(super) fn check_memory(load: &LoadArgs) -> Result<()> {
    if load.memory < MEMORY_MIN {
        let given = load.memory;
        return Err(Failure::usage(format!("--memory {given} must be at least {MEMORY_MIN}")));
    }
    Ok(())
}

/// What the window of a run costs.
pub(super) async fn measure(clock: BenchClock, window: Window, endpoint: &str) -> Usage {
    load::until(clock, window.from).await;
    let start = Sample::take(Some(endpoint)).await;
    load::until(clock, window.until).await;
    start.until(&Sample::take(Some(endpoint)).await)
}

fn report(
    args: &Args,
    plan: &Plan,
    outcome: &Outcome,
    usage: Usage,
    verified_events: u64,
    server: ServerFacts,
) -> Report {
    let seconds = plan.window.seconds();
    let events_per_second = outcome.acknowledged as f64 / seconds;
    let mut doubts = usage.doubts();
    if let Some(rate) = plan.rate
        && events_per_second < 0.99 * rate as f64
    {
        doubts.push(format!(
            "{events_per_second:.0} events/s were acknowledged, {rate} were meant: the rate is \
             beyond what client and server can do, and latency is that of a queue that grows"
        ));
    }
    Report {
        bench: "append",
        version: env!("CARGO_PKG_VERSION"),
        server,
        event_size: plan.event_size,
        writers: args.load.writers,
        segments: args.load.segments,
        readers: 0,
        rate: plan.rate,
        sender: args.load.sender_text(plan.rate),
        seconds,
        events: outcome.acknowledged,
        events_per_second,
        megabytes_per_second: events_per_second * plan.event_size as f64 / 1e6,
        latency_is: match plan.rate {
            Some(_) => "from the intended send time until acknowledged",
            None => "from the hand-over to the writer until acknowledged",
        },
        latency_millis: outcome.latencies.percentiles(),
        sender_lateness_millis: outcome.lateness.percentiles(),
        usage,
        events_per_server_cpu_second: per_cpu_second(outcome.acknowledged, &usage),
        verified_events,
        doubts,
    }
}

/// Events for each second of CPU that the server spent.
pub(super) fn per_cpu_second(events: u64, usage: &Usage) -> Option<f64> {
    usage.server_cpu_seconds.filter(|seconds| *seconds > 0.0).map(|seconds| events as f64 / seconds)
}
