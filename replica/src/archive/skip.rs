//! A new beginning of the chain, behind entries that are lost.
//!
//! A repair of the log may give up entries that were not archived. No round can be made of them, and
//! no replay leads across them: only a state that includes them does. So the chain goes on behind
//! them once a checkpoint of such a state is in the bucket, and its next round says which checkpoint
//! that is. Whoever walks the chain back from a round behind the hole ends at that round, with that
//! checkpoint or a newer one; from one that does not reach the checkpoint yet nothing leads back.
//!
//! ```text
//! skip      = recovered u8 | first u64 | last u64 | last term u64 | checkpoint (as in
//!             `housekeeping.rs`)
//! beginning = first lost u64 | ref of the checkpoint
//! ```

use std::ops::RangeInclusive;

use bytes::BufMut;
use common::{LogIndex, Term};

use super::error::Problem;
use super::fields::Fields;
use super::frame::ObjectRef;
use super::housekeeping::CommittedCheckpoint;

/// The archive goes on behind entries that are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedSkip {
    /// From the first entry that is not archived to the last one that is lost.
    pub lost: RangeInclusive<LogIndex>,
    /// The term of the last entry, as far as those around it tell.
    pub last_term: Term,
    /// Of a state that includes them, and everything that the archive says until then.
    pub checkpoint: CommittedCheckpoint,
    /// Of before a recovery, as the round behind it tells.
    pub recovered: bool,
}

/// How a round says that it is a new beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// The entries from this one to the one before the round are lost.
    pub first_lost: LogIndex,
    /// What the round is of use with.
    pub checkpoint: ObjectRef,
}

impl CommittedSkip {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let (first, last) = self.lost.clone().into_inner();
        out.put_u8(u8::from(self.recovered));
        for number in [first.0, last.0, self.last_term.0] {
            out.put_u64_le(number);
        }
        self.checkpoint.put_fields(out);
    }

    pub(super) fn take(fields: &mut Fields<'_>) -> Result<Self, Problem> {
        let recovered = match fields.u8("whether it is recovered")? {
            0 => false,
            1 => true,
            other => return Err(Problem::impossible("whether it is recovered", other)),
        };
        let (first, last) = (fields.u64("first lost index")?, fields.u64("last lost index")?);
        if first == 0 || last < first {
            return Err(Problem::impossible("last lost index", last));
        }
        let last_term = Term(fields.u64("last term")?);
        let checkpoint = CommittedCheckpoint::take(fields)?;
        Ok(Self { lost: LogIndex(first)..=LogIndex(last), last_term, checkpoint, recovered })
    }
}

impl Beginning {
    pub(super) const BYTES: usize = 8 + ObjectRef::BYTES;

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.first_lost.0);
        self.checkpoint.put(out);
    }

    pub(super) fn take(fields: &mut Fields<'_>) -> Result<Self, Problem> {
        let first_lost = LogIndex(fields.u64("first lost index")?);
        let checkpoint = ObjectRef::take(fields, "checkpoint to begin with")?;
        Ok(Self { first_lost, checkpoint })
    }
}
