//! A node made anew from its bucket, when its log is gone.
//!
//! Each group gets a log that begins behind the last archived entry, and the state of its newest
//! checkpoint. Opening the group then replays the rounds in between, as for a node that lost its
//! state alone; a [`GroupSpec`](crate::GroupSpec) with `recover` makes its first entries raise the
//! incarnation and take over what the last rounds say, whose own entries are not archived.

use bytes::Bytes;
use common::{GroupId, LogIndex, Term};
use wal::{Batch, ConfRef, HardState, Log, Truncated};

use crate::conf;
use crate::kv::Kv;
use crate::restore::{Chain, Loss, RestoreFailure, Salvaged};
use crate::tiering::Storage;

/// What of a group was found in the bucket.
#[derive(Debug, Clone)]
pub struct Found {
    pub group: GroupId,
    /// The last archived entry; 0 where all that was archived is given up.
    pub end: LogIndex,
    pub term: Term,
    /// The checkpoint that it begins with.
    pub checkpoint: Option<LogIndex>,
    pub rounds: usize,
    /// What was damaged or missing, and could be done without.
    pub problems: Vec<String>,
    /// Because of what it ends before the last entry that was archived.
    pub losses: Vec<Loss>,
}

/// Lays the foundation of a group: `log` and `kv` have nothing of it yet. Durable when it returns.
/// A group that cannot come back as far as it was archived is refused, unless that is accepted.
pub fn prepare(
    storage: &Storage,
    group: GroupId,
    accept_loss: bool,
    log: &Log,
    kv: &dyn Kv,
) -> Result<Found, RestoreFailure> {
    let Salvaged { chain, losses } = Chain::salvage(storage, group)?;
    if let (Some(loss), false) = (losses.first(), accept_loss) {
        return Err(RestoreFailure::Broken(loss.what.clone()));
    }
    let Some(chain) = chain else {
        let (end, term) = (LogIndex(0), Term(0));
        let problems = Vec::new();
        return Ok(Found { group, end, term, checkpoint: None, rounds: 0, problems, losses });
    };
    chain.load_state(storage, kv)?;
    let (end, term) = chain.end();
    let members = raft::eraftpb::ConfState::from((vec![1], Vec::new()));
    let conf = Bytes::from(conf::encode(&members));
    let batch = Batch {
        group,
        reset: Some(Truncated { index: end, term }),
        hard_state: Some(HardState { term, vote: 0, commit: end }),
        conf: Some(ConfRef { index: end, bytes: &conf }),
        ..Batch::default()
    };
    log.append(&batch).map_err(|error| RestoreFailure::Log(error.to_string()))?;
    while let Some(mut write) = log.begin_write() {
        let result = write.perform();
        let finished = log.finish_write(write, result);
        finished.map_err(|stopped| RestoreFailure::Log(stopped.to_string()))?;
    }
    let checkpoint = chain.checkpoint.as_ref().map(|(committed, _)| committed.index);
    let rounds = chain.footers.len();
    Ok(Found { group, end, term, checkpoint, rounds, problems: chain.problems, losses })
}
