//! How a command fails: one exit code and one message that says what is wrong and what to do.
//!
//! A closed pipe is no failure: `braid read … | head -1` ends silently.

use std::fmt;
use std::process::ExitCode;

use client::{ClientError, ErrorKind};

/// The exit codes of `braid`. Scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Failure = 1,
    Usage = 2,
    NotFound = 3,
    Conflict = 4,
    Denied = 5,
    Unavailable = 6,
}

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Whoever read our output has gone: end without a word.
    OutputClosed,
    Told {
        exit: Exit,
        message: String,
    },
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure::Told { exit, message: message.into() }
    }

    /// Something went wrong that has no exit code of its own.
    pub(crate) fn general(message: impl Into<String>) -> Self {
        Self::new(Exit::Failure, message)
    }

    /// The command line asks for something impossible.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Puts what holds nevertheless behind the message.
    pub(crate) fn adding(self, remark: &str) -> Self {
        match self {
            Failure::OutputClosed => Failure::OutputClosed,
            Failure::Told { exit, message } => {
                Failure::Told { exit, message: format!("{message}; {remark}") }
            }
        }
    }

    /// Reports the failure on standard error and gives the process its exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Failure::OutputClosed => ExitCode::SUCCESS,
            Failure::Told { exit, message } => {
                crate::output::note(format_args!("error: {message}"));
                ExitCode::from(*exit as u8)
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::OutputClosed => f.write_str("output closed"),
            Failure::Told { message, .. } => f.write_str(message),
        }
    }
}

/// For errors that have no exit code of their own; those of standard output do not come this way
/// (see [`output_failed`]).
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::general(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(std::io::ErrorKind::BrokenPipe) => Failure::OutputClosed,
            _ => Failure::general(error.to_string()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Failure::new(exit_of(error.kind()), error.to_string())
    }
}

/// A write to standard output failed.
pub(crate) fn output_failed(error: std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return Failure::OutputClosed;
    }
    Failure::general(format!("write to standard output: {error}"))
}

const fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::NotFound => Exit::NotFound,
        ErrorKind::Conflict
        | ErrorKind::Fenced
        | ErrorKind::OtherSource
        | ErrorKind::TooManyWriters => Exit::Conflict,
        ErrorKind::Denied => Exit::Denied,
        ErrorKind::Retry | ErrorKind::Unavailable | ErrorKind::OutcomeUnknown => Exit::Unavailable,
        ErrorKind::InvalidRequest => Exit::Usage,
        _ => Exit::Failure,
    }
}
