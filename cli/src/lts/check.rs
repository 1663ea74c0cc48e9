//! `braid lts check`: is everything there, whole, and needed?

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use server::{CheckReport, Checking, Finding, GroupReport};

use super::BucketArgs;
use super::progress::Progress;
use crate::failure::{Failure, Result};
use crate::output::{self, Format, bytes_text, counted};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each group is brought back in memory from its newest checkpoint and the rounds behind it, as a
recovery would; everything that it refers to is read and compared. A server may run meanwhile.

Nobody refers to an orphan and nobody ever will: its term is over, and the archived log does not
name it. That is certain whoever runs meanwhile, so that --delete-orphans asks for no stopped server;
what entries not yet archived may name is never taken for one. A server deletes orphans by itself.

Exit code 0: clean, 1: findings.")]
pub(super) struct Args {
    #[command(flatten)]
    bucket: BucketArgs,

    /// Age from which what nobody refers to is told, and leftovers of interrupted puts are
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    grace: Duration,

    /// Remove leftovers of interrupted puts
    #[arg(long)]
    repair: bool,

    /// Delete orphans
    #[arg(long)]
    delete_orphans: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    url: String,
    cluster: Option<String>,
    groups: Vec<Group>,
    findings: Vec<Found>,
    leftovers_removed: usize,
    orphans_deleted: usize,
}

#[derive(Debug, Serialize)]
struct Group {
    group: u64,
    incarnation: u16,
    archived_index: u64,
    archived_term: u64,
    rounds: usize,
    checkpoints: usize,
    payload_objects: usize,
    objects_read: u64,
    bytes_read: u64,
    dropped: usize,
    open: usize,
    kept_back: usize,
}

#[derive(Debug, Serialize)]
struct Found {
    subject: String,
    finding: String,
    advice: &'static str,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let bucket = args.bucket.open()?;
    let progress = Progress::new();
    let told = progress.clone();
    let observer: server::Observer = Arc::new(move |so_far: server::Progress| {
        told.say(|| {
            let server::Progress { group, objects, of, bytes } = so_far;
            format!("group {group}: {objects} of {of} objects, {}", bytes_text(bytes))
        });
    });
    let checking =
        Checking { grace: args.grace, repair: args.repair, delete_orphans: args.delete_orphans };
    let checked = bucket.check(checking, &observer);
    progress.finish();
    let report = Report {
        url: bucket.url().to_string(),
        cluster: bucket.marker().map(|marker| marker.to_string()),
        ..Report::from(checked?)
    };
    output::print_done(format, text(&report).trim_end(), &report)?;
    match report.findings.len() {
        0 => Ok(()),
        count => Err(Failure::general(format!(
            "{} in `{}`",
            counted(count as u64, "finding"),
            report.url
        ))),
    }
}

impl From<CheckReport> for Report {
    fn from(found: CheckReport) -> Self {
        Self {
            url: String::new(),
            cluster: None,
            groups: found.groups.iter().map(Group::from).collect(),
            findings: found.findings.into_iter().map(Found::from).collect(),
            leftovers_removed: found.leftovers_removed,
            orphans_deleted: found.orphans_deleted,
        }
    }
}

impl From<&GroupReport> for Group {
    fn from(found: &GroupReport) -> Self {
        Self {
            group: found.group.0,
            incarnation: found.incarnation.0,
            archived_index: found.end.0,
            archived_term: found.term.0,
            rounds: found.rounds,
            checkpoints: found.checkpoints,
            payload_objects: found.payload,
            objects_read: found.objects,
            bytes_read: found.bytes,
            dropped: found.dropped,
            open: found.open,
            kept_back: found.kept_back,
        }
    }
}

impl From<Finding> for Found {
    fn from(Finding { subject, what, advice }: Finding) -> Self {
        Self { subject, finding: what, advice }
    }
}

/// A line for each group and each finding.
fn text(report: &Report) -> String {
    let mut text = String::new();
    for group in &report.groups {
        text += &format!(
            "group {}: archived up to {}, {}, {}, {} read\n",
            group.group,
            group.archived_index,
            counted(group.rounds as u64, "round"),
            counted(group.objects_read, "object"),
            bytes_text(group.bytes_read)
        );
        text += &remarks(group);
    }
    for found in &report.findings {
        text += &format!("{}: {}; {}\n", found.subject, found.finding, found.advice);
    }
    for (count, what) in
        [(report.leftovers_removed, "leftover"), (report.orphans_deleted, "orphan")]
    {
        if count > 0 {
            text += &format!("{} gone\n", counted(count as u64, what));
        }
    }
    if report.findings.is_empty() {
        text += "clean\n";
    }
    text
}

/// What is no finding and may be asked about.
fn remarks(group: &Group) -> String {
    let mut text = String::new();
    let lines = [
        (group.dropped, "not needed any more, and waiting to be collected"),
        (group.open, "newer than the archived log, which may name them later"),
        (group.kept_back, "of before a recovery, kept until `braid lts adopt`"),
    ];
    for (count, what) in lines.into_iter().filter(|(count, _)| *count > 0) {
        text += &format!("  {} {what}\n", counted(count as u64, "object"));
    }
    text
}
