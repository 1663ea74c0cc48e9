//! `braid bench catch-up`: a reader far behind, whose events are in long-term storage only, in turns
//! with a program that reads the same objects and does nothing else.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::ClientConfig;
use common::ByteSize;
use rustix::fs::{Advice, fadvise};
use serde::Serialize;

use super::LoadArgs;
use super::append::check_memory;
use super::check::Checker;
use super::clock::BenchClock;
use super::machine::{Sample, Usage};
use super::read::fill;
use super::report::{Destination, ServerFacts, save};
use super::scrape::Scrape;
use super::target::{Target, wrong};
use crate::failure::{Exit, Failure, Result};
use crate::output::{self, Row, note};

/// Tier events to a folder, then read and verify them cold, in turns with a plain reader
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Bytes of events; more than the log keeps, since the rest is read from there
    #[arg(long, value_name = "BYTES", default_value = "4GiB")]
    size: ByteSize,

    /// Where the data of the server rests while it runs; a real disk, not a tmpfs
    #[arg(long, value_name = "DIR", default_value = ".")]
    data: PathBuf,

    /// Turns that each of the two takes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    turns: u32,

    #[command(flatten)]
    load: LoadArgs,

    /// table, json, yaml, or a file to which JSON is saved
    #[arg(short, long, value_name = "FORM|FILE", default_value = "table")]
    output: Destination,
}

/// Longest that tiering may take.
const TIERED: Duration = Duration::from_secs(300);

#[derive(Debug, Serialize)]
struct Turn {
    /// Millions of bytes per second, of objects.
    plain_megabytes_per_second: f64,
    /// Of events.
    megabytes_per_second: f64,
    ratio: f64,
    /// Of all bytes of events, those that came from objects; the rest was still in the log.
    from_objects_percent: f64,
}

#[derive(Debug, Serialize)]
struct CatchUpReport {
    bench: &'static str,
    version: &'static str,
    #[serde(flatten)]
    server: ServerFacts,
    event_size: usize,
    segments: u32,
    bytes: u64,
    turns: Vec<Turn>,
    #[serde(flatten)]
    usage: Usage,
    verified_events: u64,
    doubts: Vec<String>,
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

pub(super) async fn run(args: &Args) -> Result<()> {
    const EVENT_BYTES: usize = 1024;
    let event_size = args.load.event_bytes(EVENT_BYTES)?;
    check_memory(&args.load)?;
    if args.load.rate.is_some() {
        return Err(Failure::usage("bench catch-up has no --rate: it reads as fast as it goes"));
    }
    let mut target = Target::prepare_own(&args.data, args.load.segments).await?;
    let senders = target.senders(&args.load).await?;
    let events = args.size.bytes() / event_size as u64;
    let sent = fill(senders, event_size, events, args.load.segments as usize).await?;
    wait_until_tiered(&target).await?;
    let fresh = Checker::new(event_size, args.load.writers as usize, args.load.segments as usize);
    let bytes = events * event_size as u64;
    let start = Sample::take(None).await;
    let (mut turns, mut verified_events) = (Vec::new(), 0);
    for _ in 0..args.turns {
        let plain = target.restart(read_plainly).await?;
        let mut checker = fresh.clone();
        let clock = BenchClock::start();
        target.verify(&mut checker).await?;
        let seconds = clock.nanos() as f64 / 1e9;
        verified_events += checker.finish(&sent, false).map_err(wrong)?;
        let read = bytes as f64 / 1e6 / seconds;
        let from_objects = object_read_bytes(&target.endpoint).await?;
        turns.push(Turn {
            plain_megabytes_per_second: plain,
            megabytes_per_second: read,
            ratio: read / plain,
            from_objects_percent: 100.0 * (from_objects / bytes as f64).min(1.0),
        });
    }
    let usage = start.until(&Sample::take(None).await);
    let report = CatchUpReport {
        bench: "catch-up",
        version: env!("CARGO_PKG_VERSION"),
        server: target.server().await?,
        event_size,
        segments: args.load.segments,
        bytes,
        turns,
        usage,
        verified_events,
        doubts: usage.doubts(),
    };
    target.finish().await?;
    deliver(&report, &args.output)
}

/// Until no byte is in the log alone.
async fn wait_until_tiered(target: &Target) -> Result<()> {
    const LOOK_AGAIN: Duration = Duration::from_millis(200);
    let tiered = async {
        loop {
            let status = client::server_status(ClientConfig::new(&*target.endpoint)).await?;
            if status.groups.iter().all(|group| group.untiered_bytes == Some(0)) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(TIERED, tiered).await.unwrap_or_else(|_| {
        let message = format!("what was written is not tiered after {TIERED:?}");
        Err(Failure::new(Exit::Unavailable, message))
    })
}

/// Megabytes per second of a program that reads all objects, one after the other. Nothing of the
/// server's data is in the page cache before, or after.
fn read_plainly(data: &Path) -> Result<f64> {
    const BUFFER_BYTES: usize = 1 << 20;
    let mut files = Vec::new();
    list(&data.join("lts"), &mut files)?;
    files.sort();
    forget(data)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let (clock, mut bytes) = (BenchClock::start(), 0);
    for file in &files {
        let mut file = File::open(file)?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => bytes += read,
            }
        }
    }
    let seconds = clock.nanos() as f64 / 1e9;
    forget(data)?;
    Ok(bytes as f64 / 1e6 / seconds)
}

/// Has the kernel drop what it keeps of the files.
fn forget(data: &Path) -> Result<()> {
    let mut files = Vec::new();
    list(data, &mut files)?;
    for file in files {
        fadvise(File::open(file)?, 0, None, Advice::DontNeed).map_err(std::io::Error::from)?;
    }
    Ok(())
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Since the server was started.
async fn object_read_bytes(endpoint: &str) -> Result<f64> {
    let value = Scrape::of(endpoint).await?.value("braid_object_read_bytes_total");
    value.ok_or_else(|| Failure::general("the server does not tell what it read from objects"))
}

impl Row for Turn {
    const COLUMNS: &'static [&'static str] = &["plain MB/s", "read MB/s", "ratio", "from objects"];

    fn cells(&self) -> Vec<String> {
        vec![
            format!("{:.0}", self.plain_megabytes_per_second),
            format!("{:.0}", self.megabytes_per_second),
            format!("{:.2}", self.ratio),
            format!("{:.0} %", self.from_objects_percent),
        ]
    }
}

fn deliver(report: &CatchUpReport, destination: &Destination) -> Result<()> {
    for doubt in &report.doubts {
        note(format_args!("warning: {doubt}"));
    }
    match destination {
        Destination::Print(output::Format::Table) => {
            output::print_list(output::Format::Table, &report.turns)
        }
        Destination::Print(format) => output::print_done(*format, "", report),
        Destination::Save(file) => {
            save(file, report)?;
            output::print_list(output::Format::Table, &report.turns)
        }
    }
}
