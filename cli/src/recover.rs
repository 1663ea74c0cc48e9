//! `braid recover`: a node made anew from its cluster's long-term storage.

use std::path::PathBuf;

use lts::StoreUrl;
use server::{RecoveryReport, RecoveryStep, StreamReport};

use crate::failure::Result;
use crate::moment;
use crate::output::{self, OutputArgs};
use crate::settings::SettingsArgs;

/// Make a node anew from long-term storage, when its log is gone
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  braid recover --from-lts file:///srv/braid-lts --data /srv/braid-new
  braid recover --from-lts s3://bucket/prefix --data braid-new -o json
  braid dev --lts s3://bucket/prefix --data braid-new

Brings back what was tiered, and says where every segment ends: what was acknowledged behind that
was not tiered, and is lost. No event's bytes are copied; they stay where they are. The bucket
belongs to the recovered cluster from then on: a node of the lost one that still lives stops, so
first make sure that its log is really gone. A node that lost only its `state` folder needs no
recovery; it brings that back by itself when it starts.

Where objects are missing or damaged, so that a part of the cluster cannot come back as far as it
was tiered, nothing is done: the message says which objects, and what would be lost. Restore them from
a copy of the bucket, or accept the loss with --accept-loss.

The data folder is made, or is empty; a recovery that was interrupted begins anew in its folder.
What the lost cluster left as garbage stays in the bucket until `braid lts adopt`.")]
pub(crate) struct Args {
    /// The bucket of the lost cluster: file:///DIR, s3://BUCKET/PREFIX, gs://… or az://…
    #[arg(long, value_name = "URL")]
    from_lts: StoreUrl,

    /// The new data folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// A settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Address of the server of long-term storage, for stores other than the provider's own
    #[arg(long, value_name = "URL")]
    lts_endpoint: Option<String>,

    /// Give up, for good, what missing or damaged objects of the bucket keep from coming back
    #[arg(long)]
    accept_loss: bool,

    /// Use folders on a file system that does not keep data across a power cut
    #[arg(long)]
    allow_volatile: bool,

    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let settings = SettingsArgs::of_recovery(
        args.data.clone(),
        args.from_lts.to_string(),
        args.lts_endpoint.clone(),
        args.allow_volatile,
    );
    let resolved = settings.resolve(args.config.clone())?;
    let report = server::recover(&resolved.settings, &args.from_lts, args.accept_loss, &mut tell)?;
    output::print_done(args.output.output, text(&report).trim_end(), &report)
}

fn tell(step: RecoveryStep) {
    if !output::progress_is_seen() {
        return;
    }
    match step {
        RecoveryStep::Reading { group, groups } => {
            output::note(format_args!("reading what there is of group {group} of {groups}"));
        }
        RecoveryStep::Claiming { incarnation } => {
            output::note(format_args!("claiming the bucket as incarnation {incarnation}"));
        }
        RecoveryStep::Replaying { group, groups } => {
            output::note(format_args!("bringing back group {group} of {groups}"));
        }
        RecoveryStep::Reconciling => output::note(format_args!("bringing all of them in line")),
        RecoveryStep::Saving => output::note(format_args!("saving")),
    }
}

/// What people read: streams with their ends, what was changed, what to do next.
fn text(report: &RecoveryReport) -> String {
    let mut text = format!(
        "recovered `{}` into `{}`: incarnation {} follows {}\n",
        report.url,
        report.data.display(),
        report.incarnation,
        report.incarnation_before
    );
    for group in &report.groups {
        let from = match group.checkpoint {
            Some(index) => format!("a checkpoint at entry {index}"),
            None => "nothing".to_owned(),
        };
        text += &format!(
            "group {}: up to entry {}, from {from} and {} rounds\n",
            group.group, group.end, group.rounds
        );
        for problem in &group.problems {
            text += &format!("  done without: {problem}\n");
        }
        for (first, last) in &group.lost {
            text += &format!(
                "  entries {first} to {last} had been given up by a repair of the log before they were \
                 tiered: events in them cannot be read\n"
            );
        }
        if let Some(loss) = &group.loss {
            text += &format!("given up: {loss}\n");
        }
    }
    report.streams.iter().for_each(|stream| text += &stream_text(stream));
    for change in &report.changes {
        text += &format!("changed: {}: {}\n", change.stream, change.what);
    }
    if report.unarchived_extents > 0 {
        text += &format!(
            "{} pieces had been truncated before they were tiered; their segments begin behind them\n",
            report.unarchived_extents
        );
    }
    text += "what was acknowledged behind these ends was not tiered, and is lost\n";
    text += &format!(
        "start it with: braid dev --data {} --lts {}\n",
        report.data.display(),
        report.url
    );
    text
}

fn stream_text(stream: &StreamReport) -> String {
    let mut text = format!("stream {} ({})\n", stream.stream, stream.state);
    for segment in &stream.segments {
        let newest = match segment.newest_micros {
            Some(micros) => format!(", newest of {}", moment::show_micros(micros as i64)),
            None => String::new(),
        };
        text +=
            &format!("  {}: {} to {}{newest}\n", segment.segment, segment.start, segment.length);
    }
    text
}
