//! `braid writer`: the names under which writers are known after a restart.

use client::{StoredOfWriter, StreamManager, WriterDescription, WriterMode, WriterSummary};
use common::{ScopedStream, WriterName};
use futures::TryStreamExt as _;
use serde::Serialize;

use crate::failure::Result;
use crate::moment::show_micros;
use crate::noun::Noun;
use crate::output::{self, Format, Row};

/// Manage the named writers of a stream
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A name keeps what it stored for as long as its stream, and the mode that it was first used in:
replay (the default of `append --writer`) or continue. To use a name anew, delete it first.

Examples:
  braid writer list demo/load
  braid writer describe demo/load loader -o json
  braid writer delete demo/load loader")]
pub(crate) struct Args {
    #[command(flatten)]
    noun: Noun<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the named writers of a stream
    List {
        #[arg(value_name = "SCOPE/STREAM")]
        stream: ScopedStream,
    },
    /// Show a writer's mode and epoch, and the last event that each segment has of it
    Describe {
        #[arg(value_name = "SCOPE/STREAM")]
        stream: ScopedStream,
        writer: WriterName,
    },
    /// Forget a name: who writes under it is fenced, and whoever uses it afterwards begins anew
    ///
    /// The events that it wrote stay. The same input appended again under the name is stored again.
    Delete {
        #[arg(value_name = "SCOPE/STREAM")]
        stream: ScopedStream,
        writer: WriterName,
    },
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let Noun { verb, connect, output } = &args.noun;
    let format = output.output;
    let streams = connect.open().await?.streams();
    match verb {
        Verb::List { stream } => list(&streams, stream, format).await,
        Verb::Describe { stream, writer } => {
            let described = streams.describe_writer(stream, writer).await?;
            describe(format, &described)
        }
        Verb::Delete { stream, writer } => {
            streams.delete_writer(stream, writer).await?;
            let done = format!("deleted writer {writer} of stream {stream}");
            let (stream, writer) = (stream.to_string(), writer.to_string());
            output::print_done(format, &done, &NameRow { stream, writer })
        }
    }
}

async fn list(streams: &StreamManager, stream: &ScopedStream, format: Format) -> Result<()> {
    let writers: Vec<_> = streams.list_writers(stream).try_collect().await?;
    output::print_list(format, &writers.iter().map(WriterRow::new).collect::<Vec<_>>())
}

/// What is stored stands in a table of its own, where there is one.
fn describe(format: Format, described: &WriterDescription) -> Result<()> {
    let row = DescriptionRow::new(described);
    output::print_one(format, &row)?;
    match format {
        Format::Table if !row.segments.is_empty() => {
            output::print("\n")?;
            output::print_list(format, &row.segments)
        }
        _ => Ok(()),
    }
}

const fn mode_name(mode: WriterMode) -> &'static str {
    match mode {
        WriterMode::Replay => "replay",
        WriterMode::Continue => "continue",
        _ => "unknown",
    }
}

#[derive(Debug, Serialize)]
struct NameRow {
    stream: String,
    writer: String,
}

/// A writer in a list.
#[derive(Debug, Serialize)]
struct WriterRow {
    writer: String,
    mode: &'static str,
    epoch: u64,
    registered: String,
    deleting: bool,
}

impl WriterRow {
    fn new(summary: &WriterSummary) -> Self {
        Self {
            writer: summary.name.to_string(),
            mode: mode_name(summary.mode),
            epoch: summary.epoch.0,
            registered: show_micros(i64::try_from(summary.registered_micros).unwrap_or(i64::MAX)),
            deleting: summary.deleting,
        }
    }
}

impl Row for WriterRow {
    const COLUMNS: &'static [&'static str] = &["writer", "mode", "epoch", "registered", "state"];

    fn cells(&self) -> Vec<String> {
        let state = if self.deleting { "deleting" } else { "active" };
        vec![
            self.writer.clone(),
            self.mode.to_owned(),
            self.epoch.to_string(),
            self.registered.clone(),
            state.to_owned(),
        ]
    }
}

/// A writer in detail.
#[derive(Debug, Serialize)]
struct DescriptionRow {
    #[serde(flatten)]
    writer: WriterRow,
    id: String,
    /// The highest number that any segment has.
    stored_through: u64,
    segments: Vec<SegmentRow>,
}

impl DescriptionRow {
    fn new(described: &WriterDescription) -> Self {
        let last = |stored: &StoredOfWriter| stored.last_number.0;
        Self {
            writer: WriterRow::new(&described.summary),
            id: format!("{:032x}", described.id.0),
            stored_through: described.segments.iter().map(last).max().unwrap_or(0),
            segments: described.segments.iter().map(SegmentRow::new).collect(),
        }
    }
}

impl Row for DescriptionRow {
    const COLUMNS: &'static [&'static str] =
        &["writer", "mode", "epoch", "registered", "state", "id", "stored through"];

    fn cells(&self) -> Vec<String> {
        let mut cells = self.writer.cells();
        cells.extend([self.id.clone(), self.stored_through.to_string()]);
        cells
    }
}

/// What a segment has of the writer.
#[derive(Debug, Serialize)]
struct SegmentRow {
    segment: String,
    last_number: u64,
}

impl SegmentRow {
    fn new(stored: &StoredOfWriter) -> Self {
        Self { segment: stored.segment.local_name(), last_number: stored.last_number.0 }
    }
}

impl Row for SegmentRow {
    const COLUMNS: &'static [&'static str] = &["segment", "last number"];

    fn cells(&self) -> Vec<String> {
        vec![self.segment.clone(), self.last_number.to_string()]
    }
}
