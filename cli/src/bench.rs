//! `braid bench`: measures a server through the public client library, or the log alone.
//!
//! What is measured is also verified: a figure for events that were lost, doubled, reordered or
//! damaged would be worth nothing, so that such a run fails.

mod append;
mod catch_up;
mod check;
mod clock;
mod keys;
mod latency;
mod load;
mod machine;
mod mixed;
mod own_server;
mod pacer;
mod payload;
mod read;
mod report;
mod scrape;
mod target;
mod wal;
mod wide;

use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use common::ByteSize;

use self::pacer::Pacing;
use self::report::Destination;
use self::target::TargetArgs;
use crate::failure::{Exit, Failure, Result};
use crate::signals::Interrupts;

/// Measure a server, or the log alone
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  braid bench append                                    # a running server at full speed
  braid bench append --spawn --rate 1000                # latency of a server of its own
  braid bench append --event-size 1024 --writers 100 --segments 100 -o result.json
  braid bench read --spawn
  braid bench append --spawn --lts data --event-size 10KiB --segments 16   # while it tiers
  braid bench mixed --spawn --rate 50000 --event-size 1000
  braid bench catch-up --data /var/tmp                  # from long-term storage, cold
  braid bench wide --spawn                              # beside a stream of 100000 segments
  braid bench wal --data /var/tmp

The load is open-loop: latency counts from when an event was meant to be sent. What is written is
read back and verified. -o table|json|yaml chooses what is printed; -o FILE saves JSON as well.")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Append(append::Args),
    Read(read::Args),
    Mixed(mixed::Args),
    CatchUp(catch_up::Args),
    Wide(wide::Args),
    Wal(wal::Args),
}

/// How events are sent.
#[derive(Debug, clap::Args)]
struct LoadArgs {
    /// Bytes of an event [default: 100, for mixed 1000]
    #[arg(long, value_name = "BYTES")]
    event_size: Option<ByteSize>,

    /// Writers, all in this process, spread over the segments
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    writers: u32,

    /// Segments of the stream
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    segments: u32,

    /// Events per second of all writers together, or max [default: max, for mixed 50000]
    #[arg(long, value_name = "EVENTS")]
    rate: Option<Rate>,

    /// How the sender waits for the moment of an event
    #[arg(long, value_enum, default_value_t = Pacing::Timer)]
    pacing: Pacing,

    /// Bytes that each writer may have on their way
    #[arg(long, value_name = "BYTES", default_value = "16MiB")]
    memory: ByteSize,

    /// Do not read back and check what was written
    #[arg(long)]
    no_verify: bool,
}

/// How long a run takes, and where its figures go.
#[derive(Debug, clap::Args)]
struct RunArgs {
    /// How long is measured
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// How long before that is not: at full speed long enough for the log to be on recycled files
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    warmup: Duration,

    /// Threads of the client [default: 2 at full speed, else 1]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: Option<u8>,

    /// table, json, yaml, or a file to which JSON is saved
    #[arg(short, long, value_name = "FORM|FILE", default_value = "table")]
    output: Destination,
}

/// Events per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rate {
    Max,
    PerSecond(NonZeroU64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Rate::Max),
            number => number
                .parse()
                .map(Rate::PerSecond)
                .map_err(|_| "write a number of events per second, or max".to_owned()),
        }
    }
}

impl Rate {
    const fn per_second(self) -> Option<u64> {
        match self {
            Rate::Max => None,
            Rate::PerSecond(rate) => Some(rate.get()),
        }
    }
}

impl LoadArgs {
    /// The size of an event, checked.
    fn event_bytes(&self, default: usize) -> Result<usize> {
        let size = self.event_size.map_or(default, ByteSize::as_usize);
        let most = common::limits::EVENT_BYTES_MAX - common::limits::KIB;
        if !(payload::HEADER_BYTES..=most).contains(&size) {
            return Err(Failure::usage(format!(
                "--event-size {size} must be from {} (number and checksum) to {most}",
                payload::HEADER_BYTES
            )));
        }
        Ok(size)
    }

    fn sender_text(&self, rate: Option<u64>) -> Option<String> {
        rate.map(|_| match self.pacing {
            Pacing::Timer => "waits on a kernel timer".to_owned(),
            Pacing::Spin => "spins on a thread of its own, which client CPU includes".to_owned(),
        })
    }
}

impl RunArgs {
    fn runtime(&self, full_speed: bool) -> Result<tokio::runtime::Runtime> {
        let threads = self.threads.map_or(if full_speed { 2 } else { 1 }, usize::from);
        let mut builder = match threads {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        if threads > 1 {
            // The sender has the main thread.
            builder.worker_threads(threads - 1);
        }
        Ok(builder.enable_all().build()?)
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = match &args.verb {
        Verb::Append(args) => args.run.runtime(args.is_full_speed())?,
        Verb::Read(args) => args.run.runtime(false)?,
        Verb::Mixed(args) => args.run.runtime(false)?,
        Verb::CatchUp(_) => catch_up::runtime()?,
        Verb::Wide(_) => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        Verb::Wal(args) => args.run.runtime(false)?,
    };
    runtime.block_on(async {
        let mut interrupts = Interrupts::listen()?;
        let work = async {
            match &args.verb {
                Verb::Append(args) => append::run(args).await,
                Verb::Read(args) => read::run(args).await,
                Verb::Mixed(args) => mixed::run(args).await,
                Verb::CatchUp(args) => catch_up::run(args).await,
                Verb::Wide(args) => wide::run(args).await,
                Verb::Wal(args) => wal::run(args).await,
            }
        };
        // An own server goes with the work that is dropped.
        tokio::select! {
            biased;
            () = interrupts.next() => Err(Failure::new(Exit::Failure, "interrupted; no figures")),
            done = work => done,
        }
    })
}
