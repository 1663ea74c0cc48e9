//! What apply answers: an acceptance with its facts, or a refusal with its reason.

use common::{
    Offset, ScopeName, ScopedStream, SegmentId, StreamId, WriterEpoch, WriterId, WriterName,
};
use proto::error::Reason;

use crate::codec::Encoder;
use crate::machine::WriterMode;
use crate::settings::WRITERS_PER_STREAM_MAX;
use crate::stores::JobId;

/// The result of one operation.
pub type Outcome = Result<Accepted, Refusal>;

/// An operation that took effect, or had already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// The identity that counts, which may be an earlier one than the operation's.
    Initialized {
        cluster: u128,
    },
    StoreRegistered,
    ScopeCreated {
        created: bool,
    },
    ScopeDeleted,
    StreamCreated {
        stream: StreamId,
        created: bool,
        job: Option<JobId>,
    },
    /// A job that does what was asked; `None`: it was so already.
    Started {
        stream: StreamId,
        job: Option<JobId>,
    },
    WriterRegistered {
        stream: StreamId,
        writer: WriterId,
        epoch: WriterEpoch,
        created: bool,
        /// Whether segments may know something of it.
        may_be_stored: bool,
    },
    /// Whether fences are higher now; they were already where not.
    FenceRaised {
        raised: bool,
    },
    Recovered,
    Adopted {
        stream: StreamId,
    },
    /// So many records were changed to what the segments say.
    Reconciled {
        stream: StreamId,
        clamped: u32,
    },
    StepRecorded {
        job: JobId,
        finished: bool,
    },
    /// The job is not (any more) at this step: someone else recorded it.
    StepPassed {
        job: JobId,
    },
}

/// An operation that changed nothing, and why. Messages name the value and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the cluster has no identity yet; it is starting, try again shortly")]
    NotInitialized,
    #[error("no segment store has registered yet; the cluster is starting, try again shortly")]
    NoContainers,
    #[error("scope `{0}` does not exist; create it first")]
    ScopeNotFound(ScopeName),
    #[error(
        "scope `{scope}` still holds {streams} streams, `{first}` for one; delete them before it"
    )]
    ScopeNotEmpty { scope: ScopeName, streams: usize, first: String },
    #[error("stream `{0}` does not exist; create it first, or check the name")]
    StreamNotFound(ScopedStream),
    #[error("no stream has the id {0}; it was deleted, ask for the stream by its name again")]
    StreamIdNotFound(StreamId),
    #[error("stream `{0}` is sealed and takes no more events; create another stream")]
    StreamSealed(ScopedStream),
    #[error("the name `{0}` belongs to another stream")]
    NameTaken(ScopedStream),
    #[error(
        "stream `{0}` cannot be made from its segments: they do not cover the key space, or are in \
         containers that are not there"
    )]
    CannotAdopt(ScopedStream),
    #[error("stream `{0}` could not be made to the end; create it again, or delete it")]
    NotMade(ScopedStream),
    /// Another workflow of the stream runs; wait for it and try again.
    #[error("stream `{stream}` is busy with job {job}; try again when it is done")]
    Busy { stream: ScopedStream, job: JobId },
    #[error("`segments` is {0}; a stream has 1 to {max} segments", max = common::limits::SEGMENTS_PER_STREAM_MAX)]
    SegmentCount(u32),
    #[error(
        "the cluster has {max} streams, which is the limit; delete some, or put what belongs together \
         into one stream, told apart by routing keys",
        max = common::limits::STREAMS_MAX
    )]
    TooManyStreams,
    #[error(
        "`segments` is {asked} and the cluster has {there} segments already, {max} is the limit of all \
         streams together; ask for fewer, or delete streams",
        max = common::limits::SEGMENTS_MAX
    )]
    TooManySegments { asked: u32, there: u64 },
    #[error("segment {0} does not exist; it never did, or was truncated away")]
    SegmentNotFound(SegmentId),
    #[error("the cut does not fit stream `{stream}`: {problem}; take one from `braid stream cut`")]
    CutDoesNotFit { stream: ScopedStream, problem: CutProblem },
    #[error(
        "writer `{writer}` is not known on stream `{stream}`: `braid writer list` shows those that are"
    )]
    WriterNotFound { stream: ScopedStream, writer: String },
    #[error(
        "writer epoch {given} was replaced by {current}: another process took the writer's name; \
         stop this one"
    )]
    WriterFenced { given: WriterEpoch, current: WriterEpoch },
    #[error(
        "writer `{writer}` of stream `{stream}` was opened again since its deletion was asked for: look at \
         it (`braid writer describe`), and delete it again if that is still wanted"
    )]
    WriterOpenedSince { stream: ScopedStream, writer: WriterName },
    #[error(
        "writer `{writer}` of stream `{stream}` is used in the mode `{kept}`, not `{given}`: a name keeps \
         the mode that it was first used in; use another name, or delete this one first (`braid \
         writer delete`), which forgets what is stored under it"
    )]
    OtherMode { stream: ScopedStream, writer: WriterName, kept: WriterMode, given: WriterMode },
    #[error(
        "writer `{writer}` of stream `{stream}` is being deleted; try again when that is done, or delete \
         it again where that was given up"
    )]
    WriterDeleting { stream: ScopedStream, writer: WriterName },
    #[error(
        "stream `{0}` has {WRITERS_PER_STREAM_MAX} named writers, which is the limit; use names \
         again, delete those that are not used any more (`braid writer list`, `braid writer \
         delete`), or use anonymous writers"
    )]
    TooManyWriters(ScopedStream),
}

/// What is wrong with a stream cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CutProblem {
    #[error("it names no segment")]
    Empty,
    #[error("segment {0} stands in it twice")]
    Twice(SegmentId),
    #[error(
        "segment {0} is not of this stream, which may have been deleted and created again under \
         its name; take a cut from `braid stream cut`"
    )]
    Unknown(SegmentId),
    #[error("it covers only a part of the stream, and a stream is truncated as a whole")]
    OfPart,
    #[error("its segments do not cover the keys that it is of exactly once: there is {0}")]
    NotCovering(&'static str),
    #[error("segment {later} follows segment {earlier}, which the cut names, too")]
    Ordered { earlier: SegmentId, later: SegmentId },
    #[error("offset {offset} of segment {segment} is beyond its length {length}")]
    BeyondLength { segment: SegmentId, offset: Offset, length: Offset },
}

impl Refusal {
    /// The stable reason on the wire.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NotInitialized
            | Self::NoContainers
            | Self::Busy { .. }
            | Self::WriterDeleting { .. } => Reason::Unavailable,
            Self::NotMade(_) => Reason::StreamNotMade,
            Self::NameTaken(_) | Self::CannotAdopt(_) => Reason::Internal,
            Self::ScopeNotFound(_) => Reason::ScopeNotFound,
            Self::ScopeNotEmpty { .. } => Reason::ScopeNotEmpty,
            Self::StreamNotFound(_) | Self::StreamIdNotFound(_) => Reason::StreamNotFound,
            Self::StreamSealed(_) => Reason::StreamSealed,
            Self::SegmentCount(_) => Reason::InvalidArgument,
            Self::SegmentNotFound(_) => Reason::SegmentNotFound,
            Self::CutDoesNotFit { .. } => Reason::OutOfRange,
            Self::WriterNotFound { .. } => Reason::WriterNotFound,
            Self::WriterFenced { .. } | Self::WriterOpenedSince { .. } => Reason::WriterFenced,
            Self::TooManyStreams | Self::TooManySegments { .. } => Reason::LimitReached,
            Self::OtherMode { .. } => Reason::WriterMode,
            Self::TooManyWriters(_) => Reason::TooManyWriters,
        }
    }
}

/// What of an outcome all replicas must agree on.
pub(crate) fn digest(outcome: &Outcome) -> u64 {
    let mut out = Encoder::default();
    match outcome {
        Ok(accepted) => digest_accepted(accepted, &mut out),
        Err(refusal) => _ = out.u8(0).u32(refusal.reason() as u32),
    }
    xxhash_rust::xxh3::xxh3_64(&out.finish())
}

fn digest_accepted(accepted: &Accepted, out: &mut Encoder) {
    let job = |job: &Option<JobId>| job.map_or(0, |job| job.0);
    match accepted {
        Accepted::Initialized { cluster } => _ = out.u8(1).u128(*cluster),
        Accepted::StoreRegistered => _ = out.u8(2),
        Accepted::ScopeCreated { created } => _ = out.u8(3).bool(*created),
        Accepted::ScopeDeleted => _ = out.u8(4),
        Accepted::StreamCreated { stream, created, job: started } => {
            out.u8(5).u64(stream.0).bool(*created).u64(job(started));
        }
        Accepted::Started { stream, job: started } => {
            out.u8(6).u64(stream.0).u64(job(started));
        }
        Accepted::WriterRegistered { stream, writer, epoch, created, may_be_stored } => {
            out.u8(7).u64(stream.0).u128(writer.0).u64(epoch.0).bool(*created);
            out.bool(*may_be_stored);
        }
        Accepted::StepRecorded { job, finished } => _ = out.u8(8).u64(job.0).bool(*finished),
        Accepted::StepPassed { job } => _ = out.u8(9).u64(job.0),
        Accepted::FenceRaised { raised } => _ = out.u8(13).bool(*raised),
        Accepted::Recovered => _ = out.u8(10),
        Accepted::Adopted { stream } => _ = out.u8(11).u64(stream.0),
        Accepted::Reconciled { stream, clamped } => _ = out.u8(12).u64(stream.0).u32(*clamped),
    }
}
