//! What an error of `object_store` means. The library tells the kinds that its callers usually
//! want; the rest is read from the status and the code that the store answered with, which it
//! gives as text only.

use std::fmt;

use object_store::Error as Source;

use crate::{Error, ErrorKind, Operation};

/// Bytes of a store's answer that a message repeats.
const REASON_BYTES_MAX: usize = 600;

pub(super) fn error(
    operation: Operation,
    subject: impl fmt::Display,
    bucket: impl fmt::Display,
    source: &Source,
) -> Error {
    let mut reason = chain(source);
    let kind = kind_of(operation, source, &reason);
    if reason.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|at| reason.is_char_boundary(*at));
        reason.truncate(end.unwrap_or(0));
        reason.push('…');
    }
    Error::new(kind, operation, subject, bucket, reason)
}

/// An error with its causes in one line, each once: many repeat the text of their cause.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn kind_of(operation: Operation, source: &Source, text: &str) -> ErrorKind {
    const NO_BUCKET: [&str; 4] = [
        "NoSuchBucket",
        "ContainerNotFound",
        "specified bucket does not exist",
        "AllAccessDisabled",
    ];
    const NO_ROOM: [&str; 3] = ["StorageFull", "QuotaExceeded", "InsufficientStorage"];
    if NO_BUCKET.iter().any(|code| text.contains(code)) {
        return ErrorKind::Unsupported;
    }
    if NO_ROOM.iter().any(|code| text.contains(code)) {
        return ErrorKind::Full;
    }
    match source {
        Source::NotFound { .. } => match operation {
            Operation::Get | Operation::Head | Operation::Delete => ErrorKind::NotFound,
            _ => ErrorKind::Unsupported,
        },
        Source::AlreadyExists { .. } => ErrorKind::AlreadyExists,
        Source::PermissionDenied { .. } | Source::Unauthenticated { .. } => ErrorKind::Denied,
        Source::NotImplemented { .. }
        | Source::NotSupported { .. }
        | Source::InvalidPath { .. }
        | Source::UnknownConfigurationKey { .. } => ErrorKind::Unsupported,
        _ => by_status(status(text), text),
    }
}

/// The status in the text `status code: 503 Service Unavailable`.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

fn by_status(status: Option<u16>, text: &str) -> ErrorKind {
    match status {
        Some(416) => ErrorKind::Damaged,
        Some(507) => ErrorKind::Full,
        Some(401 | 403) => ErrorKind::Denied,
        // S3 gives these codes with 400 for what is over when it is tried again.
        Some(400) if text.contains("RequestTimeout") || text.contains("IncompleteBody") => {
            ErrorKind::Unavailable
        }
        Some(400) if text.contains("ExpiredToken") || text.contains("InvalidToken") => {
            ErrorKind::Denied
        }
        Some(408 | 409 | 425 | 429) => ErrorKind::Unavailable,
        Some(501) => ErrorKind::Unsupported,
        Some(300..=499) => ErrorKind::Unsupported,
        None if text.contains("redirect without LOCATION") => ErrorKind::Unsupported,
        // The library's own words for a range that begins behind the end.
        None if text.contains("beyond length") || text.contains("larger than length") => {
            ErrorKind::Damaged
        }
        _ => ErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Source {
        Source::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn statuses_and_codes_of_stores_become_kinds_that_say_what_to_do() {
        let cases = [
            ("status code: 503 Service Unavailable: SlowDown", ErrorKind::Unavailable),
            ("status code: 500 Internal Server Error: ", ErrorKind::Unavailable),
            ("status code: 429 Too Many Requests: ", ErrorKind::Unavailable),
            ("status code: 400 Bad Request: <Code>RequestTimeout</Code>", ErrorKind::Unavailable),
            ("status code: 400 Bad Request: <Code>ExpiredToken</Code>", ErrorKind::Denied),
            ("status code: 400 Bad Request: AuthorizationHeaderMalformed", ErrorKind::Unsupported),
            ("status code: 301 Moved Permanently: ", ErrorKind::Unsupported),
            ("Received redirect without LOCATION, this normally …", ErrorKind::Unsupported),
            ("status code: 507 Insufficient Storage: ", ErrorKind::Full),
            ("status code: 403 Forbidden: <Code>XMinioStorageFull</Code>", ErrorKind::Full),
            ("status code: 404 Not Found: <Code>NoSuchBucket</Code>", ErrorKind::Unsupported),
            ("status code: 416 Range Not Satisfiable: ", ErrorKind::Damaged),
            ("status code: 501 Not Implemented: ", ErrorKind::Unsupported),
            ("error sending request: connection refused", ErrorKind::Unavailable),
            ("status code: x", ErrorKind::Unavailable),
        ];
        for (text, kind) in cases {
            let error = error(Operation::Put, "a", "s3://b", &generic(text));
            assert_eq!(error.kind(), kind, "{text}");
            assert!(error.reason().contains(text.trim_end()), "{error}");
        }
    }

    #[test]
    fn a_long_answer_is_cut_at_a_letter() {
        let error = error(Operation::Get, "a", "s3://b", &generic(&"ä".repeat(5_000)));
        assert!(error.reason().len() < REASON_BYTES_MAX + 10 && error.reason().ends_with('…'));
    }
}
