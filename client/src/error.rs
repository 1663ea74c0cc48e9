//! Errors of the client: what happened, in words that say what to do, and a small [`ErrorKind`]
//! that prescribes the reaction.

use std::time::Duration;

use common::{EventNumber, Offset, ScopedStream, SegmentId, WriterSession};
use proto::error::{Reason, fact_of, reason_of};
use proto::framing::{EventError, FramingError};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The result of a client call.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// How to react to an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Try again after a pause: the server is there, but busy or full.
    Retry,
    /// Nobody answers: check that the server runs and can be reached.
    Unavailable,
    /// Change the request: it can never succeed as it is.
    InvalidRequest,
    /// What the request names does not exist.
    NotFound,
    /// What the request wants does not fit the present state (exists already, sealed, another
    /// offset).
    Conflict,
    /// The caller may not do this.
    Denied,
    /// Another process has taken this writer over: stop.
    Fenced,
    /// Whether the events in flight are stored is not known: compare with what is stored.
    OutcomeUnknown,
    /// The source that a named writer replays is not the one that it stored: give it that one, or
    /// use another name.
    OtherSource,
    /// There is no room for another writer: delete names that are not used any more.
    TooManyWriters,
    /// Stored bytes are damaged or missing: a person should look.
    DataDamaged,
    /// The writer or client was closed before.
    Closed,
    /// A defect of the client or the server: report it.
    Bug,
}

/// A refusal by the server, as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable reason.
    pub reason: Reason,
    /// What is wrong and what to do, in the server's words.
    pub message: String,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
    /// The job that the server works on, and how far it is.
    pub(crate) work: Option<String>,
}

/// Why a client call failed. Match on [`ClientError::kind`] to decide what to do; the text is for
/// people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The configured endpoint cannot be used.
    #[error("endpoint `{endpoint}` is not valid ({problem}); write HOST:PORT or http://HOST:PORT")]
    BadEndpoint {
        /// The endpoint as it was given.
        endpoint: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nobody answers.
    #[error(
        "no answer from `{endpoint}` ({problem}); check that a server runs there (`braid dev` \
         starts one) and that the address is right"
    )]
    Unreachable {
        /// Who was asked.
        endpoint: String,
        /// What the last attempt ran into.
        problem: String,
    },
    /// The server said no.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The event breaks a limit; nothing of it was written.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The atomic batch breaks a rule; nothing of it was written.
    #[error("atomic batch refused: {problem}")]
    Batch {
        /// Which rule.
        problem: String,
    },
    /// A newer process uses this writer's name.
    #[error(
        "writer fenced: a newer process registered this writer (its session is {current}); stop \
         this one, or give it a name of its own"
    )]
    Fenced {
        /// The session that is current now.
        current: WriterSession,
    },
    /// A newer process of the writer exists, as the controller says.
    #[error("writer fenced: {message}")]
    FencedAtRegistration {
        /// The controller's words.
        message: String,
    },
    /// The segment forgot what the writer stored while events were in flight.
    #[error(
        "segment {segment} forgot this writer while events after number {acknowledged} were in \
         flight: whether they are stored is unknown; read the stream to find out before sending \
         them again"
    )]
    WriterExpired {
        /// The segment.
        segment: SegmentId,
        /// The last number known to be stored there.
        acknowledged: EventNumber,
    },
    /// A segment acknowledged nothing for as long as the writer was to try. The writer goes on with
    /// other segments; later events for the same keys fail in the same way.
    #[error(
        "segment {segment} acknowledged nothing for {patience:?} ({trouble}): whether events behind \
         number {acknowledged} that belong there are stored is unknown; read the stream to find \
         out before sending them again"
    )]
    Stalled {
        /// The segment.
        segment: SegmentId,
        /// The last number known to be stored there.
        acknowledged: EventNumber,
        /// The deadline that was set.
        patience: Duration,
        /// What stood in the way the last time that something did.
        trouble: String,
    },
    /// What was appended is not durable yet when the time for it is over. The writer goes on.
    #[error(
        "not everything is durable after {waited:?}: events up to number {acknowledged} are, of \
         {last} ({trouble}); wait again, or give up"
    )]
    NotFlushed {
        /// How long was waited.
        waited: Duration,
        /// Every event up to this number is durable.
        acknowledged: EventNumber,
        /// The last event that was appended.
        last: EventNumber,
        /// What stands in the way.
        trouble: String,
    },
    /// The source that is replayed has other events than were stored under the writer's name.
    #[error(
        "this is not the input that was stored under the writer's name: segment {segment} has \
         other events up to number {number} than this input has up to there ({elsewhere}); append \
         the input that the name was first used for, or use another writer name for this one"
    )]
    SourceDiffers {
        /// The first segment that was found to have other events.
        segment: SegmentId,
        /// The last number stored there; the first event that differs is this one or one before.
        number: EventNumber,
        /// What of this source was sent meanwhile, in words.
        elsewhere: String,
    },
    /// The source that is replayed has not come to everything that was stored under the writer's
    /// name.
    #[error(
        "the input ends behind event {end}, but under the writer's name events up to number \
         {number} are stored, in segment {segment}: nothing proves that it is the same input \
         ({elsewhere}); append all of the input that the name was first used for, or use another \
         writer name for this one"
    )]
    SourceEnds {
        /// The segment that stored the highest number.
        segment: SegmentId,
        /// That number.
        number: EventNumber,
        /// The last number that the source has come to.
        end: EventNumber,
        /// What of this source was sent meanwhile, in words.
        elsewhere: String,
    },
    /// The server has less than it acknowledged.
    #[error(
        "segment {segment} lost acknowledged data: events up to number {acknowledged} were \
         acknowledged, but it has them only up to {stored}; restore the server's data, or append \
         the missing events under a new writer name"
    )]
    DataLost {
        /// The segment.
        segment: SegmentId,
        /// What was acknowledged.
        acknowledged: EventNumber,
        /// What is there.
        stored: EventNumber,
    },
    /// The stream takes no more events.
    #[error("stream `{stream}` is sealed and takes no more events; create another stream")]
    StreamSealed {
        /// The stream.
        stream: ScopedStream,
    },
    /// A raw append expected another offset.
    #[error(
        "segment {segment} is {length} bytes long, not {expected} as the append expects; read on \
         from there and decide anew"
    )]
    OffsetMismatch {
        /// The segment.
        segment: SegmentId,
        /// What the append expects.
        expected: Offset,
        /// What is there.
        length: Offset,
    },
    /// The position was truncated away.
    #[error(
        "offset {offset} of segment {segment} was truncated away; the segment starts at \
         {start_offset}: read from the head of the stream, or let the reader go on behind what is \
         gone (`--on-truncated skip`)"
    )]
    Truncated {
        /// The segment.
        segment: SegmentId,
        /// What was asked for.
        offset: Offset,
        /// Where the segment starts now.
        start_offset: Offset,
    },
    /// The segment that was to be read was truncated away as a whole.
    #[error(
        "segment {segment} was truncated away: read from the head of the stream, or let the reader \
         go on behind what is gone (`--on-truncated skip`)"
    )]
    TruncatedAway {
        /// The segment.
        segment: SegmentId,
    },
    /// Stored bytes are not the event that was written.
    #[error(
        "segment {segment} is damaged at offset {offset}: {source}; run `braid wal inspect` on the \
         server's data"
    )]
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// Where the event begins.
        offset: Offset,
        /// What is wrong with the bytes.
        source: FramingError,
    },
    /// What was asked for contradicts itself or the stream.
    #[error("{message}")]
    Invalid {
        /// What is wrong and what to do.
        message: String,
    },
    /// The writer or client was closed.
    #[error("the {what} is closed; open another one")]
    Closed {
        /// What was closed.
        what: &'static str,
    },
    /// The peer broke the protocol, or the client an invariant.
    #[error("protocol error: {message}; report this as a bug")]
    Protocol {
        /// What was not as it must be.
        message: String,
    },
}

impl ClientError {
    /// How to react.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } | Self::NotFlushed { .. } => ErrorKind::Unavailable,
            Self::Refused(refusal) => kind_of(refusal.reason),
            Self::BadEndpoint { .. }
            | Self::Event(_)
            | Self::Batch { .. }
            | Self::Invalid { .. } => ErrorKind::InvalidRequest,
            Self::Fenced { .. } | Self::FencedAtRegistration { .. } => ErrorKind::Fenced,
            Self::WriterExpired { .. } | Self::Stalled { .. } => ErrorKind::OutcomeUnknown,
            Self::SourceDiffers { .. } | Self::SourceEnds { .. } => ErrorKind::OtherSource,
            Self::DataLost { .. } | Self::Damaged { .. } => ErrorKind::DataDamaged,
            Self::StreamSealed { .. }
            | Self::OffsetMismatch { .. }
            | Self::Truncated { .. }
            | Self::TruncatedAway { .. } => ErrorKind::Conflict,
            Self::Closed { .. } => ErrorKind::Closed,
            Self::Protocol { .. } => ErrorKind::Bug,
        }
    }

    /// The server's reason, where the server refused.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason),
            _ => None,
        }
    }

    /// Whether the same request may succeed later without anybody changing it.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind(), ErrorKind::Retry | ErrorKind::Unavailable)
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::Protocol { message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into() }
    }

    pub(crate) fn refused(reason: Reason, message: impl Into<String>) -> Self {
        Self::Refused(Refusal { reason, message: message.into(), retry_after: None, work: None })
    }

    /// A status as it came from `endpoint`.
    pub(crate) fn from_status(status: &Status, endpoint: &str) -> Self {
        let reason = reason_of(status);
        let retry_after = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
        let refused = |reason| {
            let message = status.message().to_owned();
            let fact = |name| fact_of(status, name);
            let work = fact("job").zip(fact("step")).map(|(job, step)| format!("{job} at {step}"));
            Self::Refused(Refusal { reason, message, retry_after, work })
        };
        if reason == Reason::WriterFenced {
            return Self::FencedAtRegistration { message: status.message().to_owned() };
        }
        if reason != Reason::Unspecified {
            return refused(reason);
        }
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                Self::Unreachable { endpoint: endpoint.to_owned(), problem: innermost(status) }
            }
            // Made on this side from a connection that broke, not sent by a server.
            Code::Internal if std::error::Error::source(status).is_some() => {
                Self::Unreachable { endpoint: endpoint.to_owned(), problem: innermost(status) }
            }
            Code::Unimplemented => Self::invalid(format!(
                "the server at `{endpoint}` does not know this call; use versions of client and \
                 server that are at most one apart"
            )),
            Code::ResourceExhausted => refused(Reason::ResourceExhausted),
            Code::InvalidArgument => refused(Reason::InvalidArgument),
            code => Self::protocol(format!("`{endpoint}` answered {code:?}: {}", status.message())),
        }
    }
}

impl From<proto::convert::FieldError> for ClientError {
    fn from(error: proto::convert::FieldError) -> Self {
        Self::protocol(error.to_string())
    }
}

/// The start offset that a `TRUNCATED` status tells.
pub(crate) fn start_offset_of(status: &Status) -> Option<Offset> {
    fact_of(status, "start_offset")?.parse().ok().map(Offset)
}

/// The innermost cause of a transport failure: "connection refused" says more than "transport
/// error".
fn innermost(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

const fn kind_of(reason: Reason) -> ErrorKind {
    match reason {
        Reason::ResourceExhausted | Reason::NotLeader | Reason::SessionBroken => ErrorKind::Retry,
        Reason::Unavailable => ErrorKind::Unavailable,
        Reason::ScopeNotFound
        | Reason::StreamNotFound
        | Reason::SegmentNotFound
        | Reason::WriterNotFound => ErrorKind::NotFound,
        Reason::SegmentSealed
        | Reason::ScopeExists
        | Reason::StreamExists
        | Reason::ScopeNotEmpty
        | Reason::StreamSealed
        | Reason::OffsetMismatch
        | Reason::Truncated
        | Reason::WriterMode
        | Reason::StreamNotMade
        | Reason::LimitReached
        | Reason::StaleFence => ErrorKind::Conflict,
        Reason::WriterFenced => ErrorKind::Fenced,
        Reason::WriterExpired | Reason::WriterAbsent => ErrorKind::OutcomeUnknown,
        Reason::TooManyWriters => ErrorKind::TooManyWriters,
        Reason::DataLost => ErrorKind::DataDamaged,
        Reason::InvalidArgument
        | Reason::TooLarge
        | Reason::OutOfRange
        | Reason::ProtocolUnsupported => ErrorKind::InvalidRequest,
        Reason::Internal | Reason::Unspecified => ErrorKind::Bug,
    }
}

#[cfg(test)]
mod tests {
    use proto::error::status_with;

    use super::*;

    #[test]
    fn a_refusal_keeps_its_reason_and_prescribes_the_reaction() {
        let wait = Some(Duration::from_millis(250));
        let cases = [
            (Reason::StreamNotFound, ErrorKind::NotFound),
            (Reason::ResourceExhausted, ErrorKind::Retry),
            (Reason::ScopeNotEmpty, ErrorKind::Conflict),
            (Reason::WriterMode, ErrorKind::Conflict),
            (Reason::TooManyWriters, ErrorKind::TooManyWriters),
            (Reason::InvalidArgument, ErrorKind::InvalidRequest),
        ];
        for (reason, kind) in cases {
            let status = status_with(reason, "because", [], wait);
            let error = ClientError::from_status(&status, "here:1");
            assert_eq!((error.kind(), error.reason()), (kind, Some(reason)));
            let ClientError::Refused(refusal) = &error else { panic!("{error}") };
            assert_eq!(refusal.retry_after, wait);
        }
    }

    #[test]
    fn a_transport_failure_names_the_endpoint_and_what_to_do() {
        let error = ClientError::from_status(&Status::unavailable("connection refused"), "here:1");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = error.to_string();
        assert!(text.contains("`here:1`") && text.contains("braid dev"), "{text}");
    }
}
