//! `braid stream`: what exists, its life from creation to deletion, and its cuts.

mod rows;

use client::{SegmentSet, StreamConfig, StreamManager};
use common::{ScopeName, ScopedStream, StreamCut};
use futures::TryStreamExt as _;

use self::rows::{CutRow, DescriptionRow, NameRow, StreamRow};
use crate::failure::{Failure, Result};
use crate::noun::{Noun, creation};
use crate::output::{self, Format};
use crate::place::Place;

const SEGMENTS_MAX: i64 = common::limits::SEGMENTS_PER_STREAM_MAX as i64;

/// Manage streams
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  braid stream create demo/flights --segments 4 --create-scope
  braid stream list demo
  braid stream describe demo/flights -o yaml
  braid stream truncate demo/flights --at -7d       # drop what is older than a week
  braid read demo/flights --from \"$(braid stream cut demo/flights)\"")]
pub(crate) struct Args {
    #[command(flatten)]
    noun: Noun<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Create a stream
    Create {
        #[arg(value_name = "SCOPE/STREAM")]
        stream: ScopedStream,
        /// Segments: how many parts can be written and read side by side [default: the server's]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=SEGMENTS_MAX))]
        segments: Option<u32>,
        /// Create the scope, too, where it does not exist
        #[arg(long)]
        create_scope: bool,
        /// Succeed where the stream exists already, whatever its segments
        #[arg(long)]
        if_not_exists: bool,
    },
    /// List the streams of a scope, or of all scopes
    List { scope: Option<ScopeName> },
    /// Show what a stream is, how much it holds, and how full the server's log is
    Describe {
        #[arg(value_name = "SCOPE/STREAM")]
        stream: ScopedStream,
    },
    /// End a stream: it takes no more events, and readers come to its end
    Seal {
        #[arg(value_name = "SCOPE/STREAM")]
        stream: ScopedStream,
    },
    /// Drop everything before a place, which frees space
    Truncate {
        #[arg(value_name = "SCOPE/STREAM")]
        stream: ScopedStream,
        /// What comes before this place is dropped: head, tail, a stream cut, a time (RFC 3339,
        /// or seconds or milliseconds since 1970), or back from now (-5m)
        #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
        at: Place,
    },
    /// Delete a stream and its events for good
    Delete {
        #[arg(value_name = "SCOPE/STREAM")]
        stream: ScopedStream,
    },
    /// Print the stream cut of a place, which --from, --until and --at understand
    Cut {
        #[arg(value_name = "SCOPE/STREAM")]
        stream: ScopedStream,
        /// The place: head, tail, a time (RFC 3339, or seconds or milliseconds since 1970), or
        /// back from now (-5m)
        #[arg(long, value_name = "PLACE", default_value = "tail", allow_hyphen_values = true)]
        at: Place,
    },
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let Noun { verb, connect, output } = &args.noun;
    let format = output.output;
    let client = connect.open().await?;
    let streams = client.streams();
    match verb {
        Verb::Create { stream, segments, create_scope, if_not_exists } => {
            let config =
                StreamConfig { segments: segments.unwrap_or(0), create_scope: *create_scope };
            let created = streams.create_stream(stream, config).await?.created;
            done(format, creation(created, *if_not_exists, "stream", stream)?, stream)
        }
        Verb::List { scope } => list(&streams, scope.as_ref(), format).await,
        Verb::Describe { stream } => {
            let description = streams.describe(stream).await?;
            let places = streams.segments(stream, SegmentSet::Tail).await?.segments;
            let infos = streams.segment_infos(&places).await?;
            let server = client.server_info().await?;
            output::print_one(format, &DescriptionRow::new(&description, &infos, &server))
        }
        Verb::Seal { stream } => {
            streams.seal(stream).await?;
            done(format, "sealed", stream)
        }
        Verb::Truncate { stream, at } => {
            if let Some(time) = at.in_the_future() {
                return Err(Failure::usage(format!(
                    "{time} has not come yet: everything would be dropped; if that is wanted, use \
                     --at tail"
                )));
            }
            let cut = cut_of(&streams, stream, at).await?;
            streams.truncate(stream, &cut).await?;
            let row = CutRow::new(stream, &cut);
            output::print_done(format, &format!("truncated stream {stream} at {cut}"), &row)
        }
        Verb::Delete { stream } => {
            streams.delete(stream).await?;
            done(format, "deleted", stream)
        }
        Verb::Cut { stream, at } => {
            let cut = cut_of(&streams, stream, at).await?;
            output::print_done(format, &cut.to_string(), &CutRow::new(stream, &cut))
        }
    }
}

fn done(format: Format, verb: &str, stream: &ScopedStream) -> Result<()> {
    output::print_done(format, &format!("{verb} stream {stream}"), &NameRow::new(stream))
}

async fn list(streams: &StreamManager, scope: Option<&ScopeName>, format: Format) -> Result<()> {
    let scopes = match scope {
        Some(scope) => vec![scope.clone()],
        None => streams.list_scopes().try_collect().await?,
    };
    let mut rows = Vec::new();
    for scope in scopes {
        let found: Vec<_> = streams.list_streams(&scope).try_collect().await?;
        rows.extend(found.iter().map(StreamRow::new));
    }
    output::print_list(format, &rows)
}

async fn cut_of(streams: &StreamManager, stream: &ScopedStream, at: &Place) -> Result<StreamCut> {
    Ok(match at {
        Place::Head => streams.head_cut(stream).await?,
        Place::Tail => streams.tail_cut(stream).await?,
        Place::Time(time) => streams.cut_at_time(stream, *time).await?,
        Place::Cut(cut) => cut.clone(),
    })
}
