//! Errors of long-term storage: a small kind that says how to react, and a message that names the
//! object, its bucket and what a person can do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How the caller should react.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is no such object. Where one is referenced, data is missing.
    NotFound,
    /// The name is taken by other bytes; nothing was stored.
    AlreadyExists,
    /// The credentials are missing, wrong or may not do this. Nothing changed; trying again does
    /// not help until a person acts.
    Denied,
    /// The store has no room, or the quota is used up. Reads and deletes work on.
    Full,
    /// The store could not be asked or did not answer. A put or delete may have happened all the
    /// same; try again.
    Unavailable,
    /// What was read is not what was stored: shorter, or with another checksum.
    Damaged,
    /// The store cannot do what is needed, or a setting is wrong.
    Unsupported,
}

impl ErrorKind {
    pub const ALL: [ErrorKind; 7] = [
        Self::NotFound,
        Self::AlreadyExists,
        Self::Denied,
        Self::Full,
        Self::Unavailable,
        Self::Damaged,
        Self::Unsupported,
    ];

    /// A stable word for metrics and histories.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Denied => "denied",
            Self::Full => "full",
            Self::Unavailable => "unavailable",
            Self::Damaged => "damaged",
            Self::Unsupported => "unsupported",
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::NotFound => {
                "if the object was never deleted on purpose, restore it and run `braid lts check`"
            }
            Self::AlreadyExists => "nothing was stored; a new name is needed",
            Self::Denied => "check the credentials and their rights, and that it is not read-only",
            Self::Full => "free space or raise the quota; what is stored stays readable",
            Self::Unavailable => "it is tried again; check the store and the way to it",
            Self::Damaged => "restore the object from a copy and run `braid lts check`",
            Self::Unsupported => "use a store or a setting that can do it",
        }
    }
}

/// What was asked of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    Put,
    Get,
    Head,
    List,
    Delete,
    /// Opening the bucket, or looking after what crashes left in it.
    Maintain,
}

impl Operation {
    pub const ALL: [Operation; 6] =
        [Self::Put, Self::Get, Self::Head, Self::List, Self::Delete, Self::Maintain];

    /// A stable word for metrics and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Maintain => "maintain",
        }
    }

    const fn phrase(self) -> &'static str {
        match self {
            Self::Put => "put object",
            Self::Get => "read object",
            Self::Head => "look up object",
            Self::List => "list objects under",
            Self::Delete => "delete object",
            Self::Maintain => "look after",
        }
    }
}

/// Why an operation on a bucket failed. Cheap to clone: one failure answers many that wait for it.
#[derive(Debug, Clone)]
pub struct Error(Arc<Facts>);

#[derive(Debug, Clone)]
struct Facts {
    kind: ErrorKind,
    operation: Operation,
    /// The object's path, a prefix, or a file.
    subject: String,
    bucket: String,
    reason: String,
    retry_after: Option<Duration>,
}

impl Error {
    pub fn new(
        kind: ErrorKind,
        operation: Operation,
        subject: impl fmt::Display,
        bucket: impl fmt::Display,
        reason: impl fmt::Display,
    ) -> Self {
        Self(Arc::new(Facts {
            kind,
            operation,
            subject: subject.to_string(),
            bucket: bucket.to_string(),
            reason: reason.to_string(),
            retry_after: None,
        }))
    }

    /// The same with what the store, or the circuit breaker, said about when to come back.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        Arc::make_mut(&mut self.0).retry_after = Some(after);
        self
    }

    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    pub fn operation(&self) -> Operation {
        self.0.operation
    }

    /// The path of the object, the prefix or the file that it was about.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// Not before this much time has passed is another attempt of use.
    pub fn after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { kind, operation, subject, bucket, reason, .. } = &*self.0;
        let phrase = operation.phrase();
        write!(
            f,
            "{phrase} `{subject}` in long-term storage `{bucket}`: {reason}; {}",
            kind.advice()
        )
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_names_the_object_the_bucket_the_reason_and_what_to_do() {
        for kind in ErrorKind::ALL {
            for operation in Operation::ALL {
                let error = Error::new(kind, operation, "0001/x", "s3://b/p", "no luck");
                let text = error.to_string();
                for part in ["`0001/x`", "`s3://b/p`", "no luck", kind.advice()] {
                    assert!(text.contains(part), "{text}");
                }
            }
        }
    }
}
