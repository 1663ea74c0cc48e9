//! What can be wrong with an object.

use common::LogIndex;
use lts::ObjectName;

use crate::envelope::EnvelopeError;

/// An object cannot be used; the text names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("object `{object}` {problem}")]
pub struct ObjectError {
    pub object: ObjectName,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("has version {0}, which is unknown to this build; run a newer one")]
    Version(u8),
    #[error("is damaged: it has {have} bytes of {declared}")]
    Length { have: u64, declared: u64 },
    #[error("is damaged: its checksum is {recorded:08x}, its bytes have {computed:08x}")]
    Checksum { recorded: u32, computed: u32 },
    #[error("is damaged: the checksum of {what} is {recorded:08x}, the bytes have {computed:08x}")]
    PartChecksum { what: &'static str, recorded: u32, computed: u32 },
    #[error("is another object: it calls itself `{0}`")]
    OtherName(ObjectName),
    #[error("is not {expected} but of kind {found}")]
    Kind { expected: &'static str, found: u8 },
    #[error(
        "was replaced: {length} bytes with checksum {checksum:08x} were stored, {found_length} with \
         {found_checksum:08x} are there"
    )]
    Replaced { length: u64, checksum: u32, found_length: u64, found_checksum: u32 },
    #[error("ends within its {0}")]
    Short(&'static str),
    #[error("has {value} as its {field}, which cannot be")]
    Impossible { field: &'static str, value: u64 },
    #[error("has {0} bytes behind its last field")]
    Trailing(usize),
    #[error("holds entry {index}, whose {error}")]
    Envelope { index: LogIndex, error: EnvelopeError },
    #[error("holds a record of what is applied that cannot be read: {0}")]
    Applied(String),
}

impl Problem {
    pub(super) fn of(self, object: ObjectName) -> ObjectError {
        ObjectError { object, problem: self }
    }

    pub(super) fn impossible(field: &'static str, value: impl Into<u64>) -> Self {
        Self::Impossible { field, value: value.into() }
    }
}
