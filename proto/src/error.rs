//! Errors on the wire: a gRPC status with a `google.rpc.ErrorInfo` whose reason is stable, and
//! facts (offsets, limits) as its metadata.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub use crate::v1::Reason;

/// The domain of Braid's reasons in `ErrorInfo`.
pub const DOMAIN: &str = "braid";

/// The status code that goes with a reason.
pub const fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::Unspecified | Reason::Internal => Code::Internal,
        Reason::ScopeNotFound
        | Reason::StreamNotFound
        | Reason::SegmentNotFound
        | Reason::WriterNotFound => Code::NotFound,
        Reason::ScopeExists | Reason::StreamExists => Code::AlreadyExists,
        Reason::ScopeNotEmpty
        | Reason::StreamSealed
        | Reason::SegmentSealed
        | Reason::OffsetMismatch
        | Reason::StaleFence
        | Reason::WriterExpired
        | Reason::WriterAbsent
        | Reason::WriterMode
        | Reason::StreamNotMade
        | Reason::LimitReached
        | Reason::ProtocolUnsupported => Code::FailedPrecondition,
        Reason::WriterFenced | Reason::SessionBroken => Code::Aborted,
        Reason::DataLost => Code::DataLoss,
        Reason::Truncated | Reason::OutOfRange => Code::OutOfRange,
        Reason::ResourceExhausted | Reason::TooManyWriters => Code::ResourceExhausted,
        Reason::InvalidArgument | Reason::TooLarge => Code::InvalidArgument,
        Reason::NotLeader | Reason::Unavailable => Code::Unavailable,
    }
}

/// A status with its reason; the message says what is wrong and what to do.
pub fn status(reason: Reason, message: impl Into<String>) -> Status {
    status_with(reason, message, [], None)
}

/// A status with its reason, facts and, where waiting helps, when to try again.
pub fn status_with<const N: usize>(
    reason: Reason,
    message: impl Into<String>,
    facts: [(&str, String); N],
    retry_after: Option<Duration>,
) -> Status {
    let facts: HashMap<String, String> =
        facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut details = ErrorDetails::with_error_info(reason.as_str_name(), DOMAIN, facts);
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    Status::with_error_details(code_of(reason), message, details)
}

/// The reason in a status, `Unspecified` where it carries none of ours.
pub fn reason_of(status: &Status) -> Reason {
    status
        .get_error_details()
        .error_info()
        .filter(|info| info.domain == DOMAIN)
        .and_then(|info| Reason::from_str_name(&info.reason))
        .unwrap_or(Reason::Unspecified)
}

/// A fact in a status, for example `start_offset` of `TRUNCATED`.
pub fn fact_of(status: &Status, name: &str) -> Option<String> {
    status.get_error_details().error_info().and_then(|info| info.metadata.get(name).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_and_its_facts_survive_the_status() {
        let facts = [("start_offset", "42".to_owned())];
        let status = status_with(Reason::Truncated, "gone", facts, None);
        assert_eq!(status.code(), Code::OutOfRange);
        assert_eq!(reason_of(&status), Reason::Truncated);
        assert_eq!(fact_of(&status, "start_offset").as_deref(), Some("42"));
    }

    #[test]
    fn a_foreign_status_has_no_reason() {
        assert_eq!(reason_of(&Status::unavailable("connection refused")), Reason::Unspecified);
    }
}
