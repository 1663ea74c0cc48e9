//! What a state machine sees of a log entry: where it stands, when it was made, its operations.

use std::ops::Range;

use bytes::Bytes;
use common::{GroupId, LogIndex, Term, WallTime};

use crate::envelope::{self, EnvelopeError};

/// The leader's word on when an entry was made: the only time a state machine knows.
///
/// `wall` never decreases along a log; it labels (time index, retention, what people read).
/// `up_micros` counts the time during which the group had a leader; expiry and leases use it, so
/// that nothing expires because nobody served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp {
    pub wall: WallTime,
    pub up_micros: u64,
}

impl Stamp {
    /// The later of both, each clock by itself.
    pub(crate) fn max_of(self, other: Stamp) -> Stamp {
        Stamp { wall: self.wall.max(other.wall), up_micros: self.up_micros.max(other.up_micros) }
    }
}

/// A committed log entry on its way through [`crate::StateMachine::apply`].
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub group: GroupId,
    pub index: LogIndex,
    pub term: Term,
    pub stamp: Stamp,
    /// The payloads of all operations, one after the other. Apply never looks into them; slices
    /// of it are shared, not copied. `None` where the entry is replayed from long-term storage,
    /// whose rounds keep the payload apart.
    pub payload: Option<&'a Bytes>,
    context: &'a Bytes,
    operations: u32,
}

/// One operation of an entry.
#[derive(Debug, Clone)]
pub struct Operation<'a> {
    /// What apply decodes.
    pub header: &'a [u8],
    /// Where the operation's payload lies in [`Entry::payload`].
    pub payload: Range<usize>,
}

impl<'a> Entry<'a> {
    /// Reads the envelope in `context` and checks that every operation lies within its bounds.
    pub fn decode(
        group: GroupId,
        index: LogIndex,
        term: Term,
        context: &'a Bytes,
        payload: &'a Bytes,
    ) -> Result<Self, EnvelopeError> {
        let head = envelope::check(context, payload.len())?;
        Ok(Self::checked(group, (index, term), head, context, Some(payload)))
    }

    /// The same for an entry whose `payload_bytes` bytes of payload rest in long-term storage.
    pub fn archived(
        group: GroupId,
        index: LogIndex,
        term: Term,
        context: &'a Bytes,
        payload_bytes: usize,
    ) -> Result<Self, EnvelopeError> {
        let head = envelope::check(context, payload_bytes)?;
        Ok(Self::checked(group, (index, term), head, context, None))
    }

    fn checked(
        group: GroupId,
        (index, term): (LogIndex, Term),
        head: envelope::Head,
        context: &'a Bytes,
        payload: Option<&'a Bytes>,
    ) -> Self {
        let (stamp, operations) = (head.stamp, head.operations);
        Self { group, index, term, stamp, payload, context, operations }
    }

    /// How many operations the entry holds; 0 for a leader's empty entry.
    pub fn len(&self) -> usize {
        self.operations as usize
    }

    pub fn is_empty(&self) -> bool {
        self.operations == 0
    }

    /// The operations in the order in which they take effect.
    pub fn operations(&self) -> impl ExactSizeIterator<Item = Operation<'a>> + use<'a> {
        envelope::Operations::new(self.context, self.operations)
    }

    /// An operation's header as shared bytes.
    pub fn header_bytes(&self, operation: &Operation<'_>) -> Bytes {
        self.context.slice_ref(operation.header)
    }

    /// An operation's payload as shared bytes; `None` where the entry is replayed without it.
    pub fn payload_bytes(&self, operation: &Operation<'_>) -> Option<Bytes> {
        Some(self.payload?.slice(operation.payload.clone()))
    }
}
