//! `braid lts ls`: what a bucket holds.

use std::collections::BTreeMap;

use common::{Clock as _, GroupId, SystemClock, WallTime};
use serde::Serialize;
use server::{ObjectKind, Survey, Surveyed, Tally};

use super::BucketArgs;
use super::progress::Progress;
use crate::failure::Result;
use crate::output::{self, Format, Row, bytes_text};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    bucket: BucketArgs,

    /// Only objects whose names begin with this
    #[arg(default_value = "")]
    prefix: String,

    /// List every object
    #[arg(long)]
    objects: bool,
}

/// What there is of a group.
#[derive(Debug, Serialize)]
struct GroupRow {
    group: u64,
    incarnations: Vec<u16>,
    /// The last archived entry and its term; absent where there is no round that can be read.
    archived_index: Option<u64>,
    archived_term: Option<u64>,
    rounds: Counted,
    payload: Counted,
    checkpoints: Counted,
    chunks: Counted,
    unreadable: Counted,
}

#[derive(Debug, Serialize)]
struct Counted {
    objects: u64,
    bytes: u64,
}

/// An object.
#[derive(Debug, Serialize)]
struct ObjectRow {
    object: String,
    kind: &'static str,
    bytes: u64,
    age_seconds: u64,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let bucket = args.bucket.open()?;
    let (progress, now) = (Progress::new(), SystemClock::new().wall());
    let (mut rows, mut listed) = (Vec::new(), 0);
    let surveyed = bucket.survey(&args.prefix, |page| {
        listed += page.len();
        progress.say(|| format!("{listed} objects"));
        if args.objects {
            rows.extend(page.iter().map(|object| ObjectRow::new(object, now)));
        }
    });
    progress.finish();
    let groups: BTreeMap<GroupId, Survey> = surveyed?;
    if args.objects {
        return output::print_list(format, &rows);
    }
    let rows: Vec<GroupRow> = groups.iter().map(|(id, found)| GroupRow::new(*id, found)).collect();
    output::print_list(format, &rows)
}

impl GroupRow {
    fn new(group: GroupId, found: &Survey) -> Self {
        let kinds = found.kinds;
        Self {
            group: group.0,
            incarnations: found.incarnations.iter().map(|incarnation| incarnation.0).collect(),
            archived_index: found.tip.map(|tip| tip.end.0),
            archived_term: found.tip.map(|tip| tip.term.0),
            rounds: kinds.rounds.into(),
            payload: kinds.payload.into(),
            checkpoints: kinds.checkpoints.into(),
            chunks: kinds.chunks.into(),
            unreadable: kinds.unreadable.into(),
        }
    }
}

impl From<Tally> for Counted {
    fn from(Tally { objects, bytes }: Tally) -> Self {
        Self { objects, bytes }
    }
}

impl Counted {
    fn text(&self) -> String {
        match self.objects {
            0 => "-".to_owned(),
            objects => format!("{objects} ({})", bytes_text(self.bytes)),
        }
    }
}

impl Row for GroupRow {
    const COLUMNS: &'static [&'static str] = &[
        "group",
        "incarnations",
        "archived to",
        "term",
        "rounds",
        "payload",
        "checkpoints",
        "chunks",
        "unreadable",
    ];

    fn cells(&self) -> Vec<String> {
        let incarnations: Vec<String> = self.incarnations.iter().map(u16::to_string).collect();
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        vec![
            self.group.to_string(),
            incarnations.join(","),
            number(self.archived_index),
            number(self.archived_term),
            self.rounds.text(),
            self.payload.text(),
            self.checkpoints.text(),
            self.chunks.text(),
            self.unreadable.text(),
        ]
    }
}

impl ObjectRow {
    fn new(object: &Surveyed, now: WallTime) -> Self {
        let age = now.0.saturating_sub(object.listed.modified.0) / 1_000_000;
        Self {
            object: object.listed.path.to_string(),
            kind: word(object.kind),
            bytes: object.listed.length,
            age_seconds: age,
        }
    }
}

fn word(kind: Option<ObjectKind>) -> &'static str {
    match kind {
        Some(ObjectKind::Packed) => "payload",
        Some(ObjectKind::Footer) => "round",
        Some(ObjectKind::Chunk) => "chunk",
        Some(ObjectKind::Checkpoint) => "checkpoint",
        None => "-",
    }
}

impl Row for ObjectRow {
    const COLUMNS: &'static [&'static str] = &["object", "kind", "bytes", "age"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.object.clone(),
            self.kind.to_owned(),
            self.bytes.to_string(),
            format!("{}s", self.age_seconds),
        ]
    }
}
