//! Who writes, and what the numbers of its events mean.

use bytes::Bytes;
use common::{WriterEpoch, WriterId};

/// Who writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterIdentity {
    /// The id under which segments remember the writer.
    pub writer: WriterId,
    /// The epoch of a named writer's process; anonymous writers have one process only.
    pub epoch: WriterEpoch,
    /// What places events without a routing key: the name, or the random id of an anonymous
    /// writer.
    pub routing: Bytes,
    /// What the writer's event numbers mean.
    pub mode: Mode,
}

/// What the numbers of a writer's events mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nobody resumes the writer: nothing is stored of it yet.
    Anonymous,
    /// The n-th event is always the same one: those that are stored are not sent again.
    Replay,
    /// Numbers go on behind the highest stored one.
    Continue,
}

impl WriterIdentity {
    /// The epoch of all anonymous writers.
    const ANONYMOUS_EPOCH: WriterEpoch = WriterEpoch(1);

    /// A writer that nobody resumes, with the 128 random bits `id`.
    pub fn anonymous(id: u128) -> Self {
        Self {
            writer: WriterId(id),
            epoch: Self::ANONYMOUS_EPOCH,
            routing: Bytes::copy_from_slice(&id.to_be_bytes()),
            mode: Mode::Anonymous,
        }
    }

    /// Whether the writer has a name, so that its events may already be stored.
    pub(crate) fn is_named(&self) -> bool {
        self.mode != Mode::Anonymous
    }
}
