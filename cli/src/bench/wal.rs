//! `braid bench wal`: the log alone, in turns with a raw writer on the same disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{ByteSize, Rng, SystemClock};
use serde::Serialize;
use wal::{BenchFigures, BenchReport, BenchSettings, RealDisk};

use super::machine::{Sample, Usage};
use super::report::{Destination, save};
use super::{Rate, RunArgs};
use crate::failure::{Failure, Result};
use crate::output::{self, Row, note};

/// Measure the write-ahead log against a raw writer of fresh aligned data, in turns
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the files are written while it runs; a real disk, not a tmpfs
    #[arg(long, value_name = "DIR", default_value = ".")]
    data: PathBuf,

    /// Bytes of a write; several are measured one after the other [default: 256KiB and 4KiB at
    /// full rate, and 4KiB at 1000 writes per second]
    #[arg(long, value_name = "BYTES")]
    block_size: Vec<ByteSize>,

    /// Writes per second, or max [default: max]
    #[arg(long, value_name = "WRITES")]
    rate: Option<Rate>,

    /// Turns that each of the two takes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    turns: u32,

    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// One comparison.
#[derive(Debug, Serialize)]
struct Comparison {
    block_bytes: u64,
    /// Writes per second as asked for; `None`: as many as go.
    rate: Option<u64>,
    log: Figures,
    raw: Figures,
    /// Writes per second of the log over those of the raw writer.
    ratio: f64,
}

#[derive(Debug, Serialize)]
struct Figures {
    writes: u64,
    seconds: f64,
    writes_per_second: f64,
    megabytes_per_second: f64,
    latency_millis: Latency,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct WalReport {
    bench: &'static str,
    version: &'static str,
    comparisons: Vec<Comparison>,
    #[serde(flatten)]
    usage: Usage,
    doubts: Vec<String>,
}

pub(super) async fn run(args: &Args) -> Result<()> {
    let plan = plan(args)?;
    let start = Sample::take(None).await;
    let mut comparisons = Vec::new();
    for (block, rate) in plan {
        let folder = Folder::new(&args.data)?;
        let settings = BenchSettings {
            block,
            pace: rate.map(|rate| u32::try_from(rate).unwrap_or(u32::MAX)),
            duration: args.run.duration,
            turns: args.turns,
            ..BenchSettings::default()
        };
        let report = measure(&folder, settings).await?;
        comparisons.push(Comparison::new(block, rate, &report));
    }
    let usage = start.until(&Sample::take(None).await);
    // All of the work is this process's own, so that what others did is known, too.
    let mut doubts = usage.doubts();
    doubts.extend(super::machine::others_doubt(&usage));
    let report =
        WalReport { bench: "wal", version: env!("CARGO_PKG_VERSION"), comparisons, usage, doubts };
    deliver(&report, &args.run.output)
}

/// (bytes of a write, writes per second) of each comparison.
fn plan(args: &Args) -> Result<Vec<(ByteSize, Option<u64>)>> {
    const PACED: u64 = 1_000;
    if args.block_size.is_empty() && args.rate.is_none() {
        return Ok(vec![
            (ByteSize::kib(256), None),
            (ByteSize::kib(4), None),
            (ByteSize::kib(4), Some(PACED)),
        ]);
    }
    let sizes = match args.block_size.as_slice() {
        [] => &[ByteSize::kib(256), ByteSize::kib(4)],
        sizes => sizes,
    };
    let rate = args.rate.unwrap_or(Rate::Max).per_second();
    let sector = wal::SECTOR_BYTES as u64;
    let fits = |size: &ByteSize| {
        size.bytes().is_multiple_of(sector) && (sector..=4 << 20).contains(&size.bytes())
    };
    match sizes.iter().find(|size| !fits(size)) {
        Some(size) => Err(Failure::usage(format!(
            "--block-size {size} must be a multiple of 4KiB from 4KiB to 4MiB"
        ))),
        None => Ok(sizes.iter().map(|size| (*size, rate)).collect()),
    }
}

/// Runs on a thread of its own, so that a signal is heard meanwhile.
async fn measure(folder: &Folder, settings: BenchSettings) -> Result<BenchReport> {
    let disk = RealDisk::open(&folder.0, false)
        .map_err(|error| Failure::general(format!("open `{}`: {error}", folder.0.display())))?;
    if !disk.direct() {
        note(format_args!("`{}` does not take direct writes; each is synced", folder.0.display()));
    }
    let (done, result) = tokio::sync::oneshot::channel();
    common::tasks::spawn_thread("bench-wal", move || {
        let clock = SystemClock::shared();
        let report = wal::bench(Arc::new(disk), &settings, clock, Rng::from_entropy());
        // Nobody waits any more: interrupted.
        let _ = done.send(report);
    })?;
    match result.await {
        Ok(report) => report.map_err(|error| Failure::general(format!("measure the log: {error}"))),
        Err(_) => Err(Failure::general("the measuring thread has panicked")),
    }
}

/// A new folder, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(parent: &Path) -> Result<Self> {
        let path = parent.join(format!("braid-bench-wal-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| {
            Failure::general(format!("create folder `{}`: {error}", path.display()))
        })?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left for a person to see.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Comparison {
    fn new(block: ByteSize, rate: Option<u64>, report: &BenchReport) -> Self {
        Self {
            block_bytes: block.bytes(),
            rate,
            log: Figures::new(&report.log),
            raw: Figures::new(&report.raw),
            ratio: report.ratio,
        }
    }
}

impl Figures {
    fn new(figures: &BenchFigures) -> Self {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            writes: figures.writes,
            seconds: figures.elapsed.as_secs_f64(),
            writes_per_second: figures.writes_per_second,
            megabytes_per_second: figures.megabytes_per_second,
            latency_millis: Latency {
                p50: millis(figures.p50),
                p90: millis(figures.p90),
                p99: millis(figures.p99),
                p999: millis(figures.p999),
                max: millis(figures.max),
            },
        }
    }
}

/// One writer of one comparison, as a line of the table.
#[derive(Debug, Serialize)]
struct Line {
    cells: Vec<String>,
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] =
        &["block", "rate", "writer", "writes/s", "MB/s", "p50 ms", "p99 ms", "max ms", "ratio"];

    fn cells(&self) -> Vec<String> {
        self.cells.clone()
    }
}

fn lines(comparison: &Comparison) -> [Line; 2] {
    let line = |writer: &str, figures: &Figures, ratio: String| Line {
        cells: vec![
            ByteSize(comparison.block_bytes).to_string(),
            comparison.rate.map_or_else(|| "max".to_owned(), |rate| rate.to_string()),
            writer.to_owned(),
            format!("{:.0}", figures.writes_per_second),
            format!("{:.1}", figures.megabytes_per_second),
            format!("{:.3}", figures.latency_millis.p50),
            format!("{:.3}", figures.latency_millis.p99),
            format!("{:.3}", figures.latency_millis.max),
            ratio,
        ],
    };
    let ratio = format!("{:.2}", comparison.ratio);
    [line("raw", &comparison.raw, "1".to_owned()), line("log", &comparison.log, ratio)]
}

fn deliver(report: &WalReport, destination: &Destination) -> Result<()> {
    for doubt in &report.doubts {
        note(format_args!("warning: {doubt}"));
    }
    let rows: Vec<_> = report.comparisons.iter().flat_map(lines).collect();
    match destination {
        Destination::Print(output::Format::Table) => {
            output::print_list(output::Format::Table, &rows)
        }
        Destination::Print(format) => output::print_done(*format, "", report),
        Destination::Save(file) => {
            save(file, report)?;
            output::print_list(output::Format::Table, &rows)
        }
    }
}
