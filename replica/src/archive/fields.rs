//! Little-endian fields off the front of bytes. Every read is bound-checked, and nothing is
//! allocated by a length that was read.

use super::error::Problem;

#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

macro_rules! integer {
    ($name:ident, $type:ty) => {
        pub(super) fn $name(&mut self, field: &'static str) -> Result<$type, Problem> {
            let (head, rest) = self.rest.split_first_chunk().ok_or(Problem::Short(field))?;
            self.rest = rest;
            Ok(<$type>::from_le_bytes(*head))
        }
    };
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    integer!(u8, u8);
    integer!(u16, u16);
    integer!(u32, u32);
    integer!(u64, u64);

    pub(super) fn bytes(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], Problem> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Problem::Short(field))?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], Problem> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Problem::Short(field))?;
        self.rest = rest;
        Ok(*head)
    }

    /// As many bytes as the length (u32) in front of them says.
    pub(super) fn counted(&mut self, field: &'static str) -> Result<&'a [u8], Problem> {
        let count = self.u32(field)? as usize;
        self.bytes(count, field)
    }

    /// `count` rows of `row_bytes` each.
    pub(super) fn rows(
        &mut self,
        count: u32,
        row_bytes: usize,
        field: &'static str,
    ) -> Result<&'a [u8], Problem> {
        let bytes = (count as usize).checked_mul(row_bytes).ok_or(Problem::Short(field))?;
        self.bytes(bytes, field)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Refuses bytes behind the last field.
    pub(super) fn end(self) -> Result<(), Problem> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(Problem::Trailing(more)),
        }
    }
}

/// A length that is known to fit, because an object has at most 64 MiB.
pub(super) fn word(length: usize) -> u32 {
    u32::try_from(length).expect("objects are far below 4 GiB")
}
