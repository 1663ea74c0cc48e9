//! What apply decided about an operation. Every replica comes to the same outcome.

use std::sync::Arc;

use common::{EventNumber, Fence, Offset, SegmentId, WriterSession};
use proto::v1::Reason;

use crate::identity::Successor;
use crate::operation::EventSum;

/// The outcome of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The block is stored; the segment ends behind it.
    Appended {
        last_number: EventNumber,
        length: Offset,
    },
    /// The block was stored before; nothing was stored now.
    Duplicate {
        last_number: EventNumber,
        length: Offset,
    },
    /// Nothing was changed but what the refusal itself says.
    Refused(Box<Refusal>),
    /// One answer per segment of the `Open`, in its order.
    Opened(Vec<Result<Opened, Refusal>>),
    Done(Done),
    Expired(Expired),
    Closed,
}

/// A session that is current now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The last number stored for the writer; `NONE` where there is none.
    pub last_number: EventNumber,
    /// As the block that brought `last_number` had it.
    pub sum: EventSum,
    pub length: Offset,
    /// Of a sealed segment.
    pub successors: Option<Arc<[Successor]>>,
}

/// What a command of the controller did, or had done before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    Created,
    Sealed { length: Offset },
    Truncated { start_offset: Offset },
    Deleted,
    Forgotten,
    AttributesUpdated,
    WriterDeleted,
}

/// What an expire operation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expired {
    /// Entries of which only the session number is left.
    pub forgotten: u32,
    /// Session numbers that were forgotten, too.
    pub removed: u32,
}

/// Why an operation was refused. The messages say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "segment `{segment}` does not exist (any more); ask the controller for the stream's segments"
    )]
    SegmentNotFound { segment: SegmentId },
    #[error(
        "a newer session {current} of this writer exists; raise the attempt, or give up where its epoch is higher"
    )]
    WriterFenced { current: WriterSession },
    #[error(
        "the segment has forgotten this writer, so what is in flight may be stored or not; decide in the application"
    )]
    WriterExpired,
    #[error(
        "the segment knows nothing of a writer that says it has sent to it: it expired long ago, or what it stored is lost; compare what is stored with what was sent"
    )]
    WriterAbsent,
    #[error(
        "the segment has {count} named writers with stored events and takes no more writers; delete names that are not used any more (`braid writer list`, `braid writer delete`)"
    )]
    TooManyWriters { count: usize },
    #[error("the segment is sealed; go on in its successors")]
    SegmentSealed { last_number: EventNumber, length: Offset, successors: Arc<[Successor]> },
    #[error(
        "the block does not continue what is stored, event {last_number}; open the session again"
    )]
    SessionBroken { last_number: EventNumber, length: Offset },
    #[error(
        "the segment's length is {length}, {expected} was expected; read up to it and try again"
    )]
    OffsetMismatch { expected: Offset, length: Offset, last_number: EventNumber },
    #[error("the command is of a controller that was replaced; the newest fence is {newest}")]
    StaleFence { newest: Fence },
    #[error(
        "segment `{segment}` exists with another description; this is a defect of the controller"
    )]
    SegmentExists { segment: SegmentId },
    #[error(
        "segment `{segment}` is sealed with other successors; this is a defect of the controller"
    )]
    SealedOtherwise { segment: SegmentId },
    #[error("segment `{segment}` is not deleted; delete it before it is forgotten")]
    NotDeleted { segment: SegmentId },
    #[error("offset {offset} is beyond the segment's length {length}")]
    OutOfRange { offset: Offset, length: Offset },
    #[error("attribute `{name}` is not what was expected; read it and try again")]
    AttributeMismatch { name: String },
    #[error("a segment has at most {max} attributes; remove one first")]
    TooManyAttributes { max: usize },
}

impl Refusal {
    /// The stable reason on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            Refusal::SegmentNotFound { .. } => Reason::SegmentNotFound,
            Refusal::WriterFenced { .. } => Reason::WriterFenced,
            Refusal::WriterExpired => Reason::WriterExpired,
            Refusal::WriterAbsent => Reason::WriterAbsent,
            Refusal::TooManyWriters { .. } => Reason::TooManyWriters,
            Refusal::TooManyAttributes { .. } => Reason::ResourceExhausted,
            Refusal::SegmentSealed { .. } => Reason::SegmentSealed,
            Refusal::SessionBroken { .. } => Reason::SessionBroken,
            Refusal::OffsetMismatch { .. } | Refusal::AttributeMismatch { .. } => {
                Reason::OffsetMismatch
            }
            Refusal::StaleFence { .. } => Reason::StaleFence,
            Refusal::SegmentExists { .. }
            | Refusal::SealedOtherwise { .. }
            | Refusal::NotDeleted { .. } => Reason::Internal,
            Refusal::OutOfRange { .. } => Reason::OutOfRange,
        }
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Outcome::Refused(Box::new(refusal))
    }
}

impl Outcome {
    /// What replicas must agree on: the decision and the positions it led to.
    pub fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        match self {
            Outcome::Appended { last_number, length } => digest.add(&[1, last_number.0, length.0]),
            Outcome::Duplicate { last_number, length } => digest.add(&[2, last_number.0, length.0]),
            Outcome::Refused(refusal) => {
                digest.add(&[3]);
                refusal.digest_into(&mut digest);
            }
            Outcome::Opened(answers) => {
                digest.add(&[4, answers.len() as u64]);
                for answer in answers {
                    match answer {
                        Ok(opened) => digest.add(&[
                            1,
                            opened.last_number.0,
                            opened.length.0,
                            opened.sum.sum,
                            opened.sum.after.0,
                        ]),
                        Err(refusal) => refusal.digest_into(&mut digest),
                    }
                }
            }
            Outcome::Done(done) => match done {
                Done::Created => digest.add(&[5]),
                Done::Sealed { length } => digest.add(&[6, length.0]),
                Done::Truncated { start_offset } => digest.add(&[7, start_offset.0]),
                Done::Deleted => digest.add(&[8]),
                Done::Forgotten => digest.add(&[9]),
                Done::AttributesUpdated => digest.add(&[10]),
                Done::WriterDeleted => digest.add(&[12]),
            },
            Outcome::Closed => digest.add(&[13]),
            Outcome::Expired(expired) => {
                digest.add(&[11, expired.forgotten.into(), expired.removed.into()]);
            }
        }
        digest.0
    }
}

impl Refusal {
    fn digest_into(&self, digest: &mut Digest) {
        digest.add(&[self.reason() as u64]);
        match self {
            Refusal::WriterFenced { current } => {
                digest.add(&[current.epoch.0, current.attempt.0.into()]);
            }
            Refusal::SegmentSealed { last_number, length, .. }
            | Refusal::SessionBroken { last_number, length }
            | Refusal::OffsetMismatch { last_number, length, .. } => {
                digest.add(&[last_number.0, length.0]);
            }
            _ => {}
        }
    }
}

/// Mixes numbers, the same on every machine and in every build: replicas compare the result.
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn add(&mut self, values: &[u64]) {
        for value in values {
            self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
}
