//! The controller's binary encoding: little-endian numbers, texts with their length before them.
//!
//! Every encoded value begins with one byte that is its version (operations: version and kind).
//! Decoding checks every bound and refuses bytes that are left over, so that a value of another
//! version is an error, never a wrong value.

use bytes::Bytes;
use common::{KeyRange, Offset, SegmentId, StreamId};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot be decoded; it was written by a newer version or is damaged")]
pub struct Malformed {
    pub what: &'static str,
}

#[derive(Debug, Default)]
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    pub(crate) fn versioned(version: u8) -> Self {
        Self(vec![version])
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(value.into())
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn u128(&mut self, value: u128) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A text of at most 65 535 bytes; what is beyond is cut off at a character's edge.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
        self.u16(text.len() as u16).raw(text.as_bytes())
    }

    pub(crate) fn count(&mut self, count: usize) -> &mut Self {
        self.u32(u32::try_from(count).expect("lists are limited far below 2^32 items"))
    }

    pub(crate) fn segment(&mut self, id: SegmentId) -> &mut Self {
        self.u64(id.stream.0).u32(id.epoch.0).u32(id.number.0)
    }

    pub(crate) fn range(&mut self, range: KeyRange) -> &mut Self {
        self.u64(range.low()).u64(range.high())
    }

    pub(crate) fn finish(self) -> Bytes {
        self.0.into()
    }
}

#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// A decoder behind the version byte, which must be `version`.
    pub(crate) fn versioned(
        bytes: &'a [u8],
        version: u8,
        what: &'static str,
    ) -> Result<Self, Malformed> {
        let mut decoder = Self::new(bytes, what);
        if decoder.u8()? == version { Ok(decoder) } else { Err(Malformed { what }) }
    }

    pub(crate) fn malformed(&self) -> Malformed {
        Malformed { what: self.what }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("exactly N bytes were taken"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Malformed> {
        self.array().map(u128::from_le_bytes)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.u16()?;
        std::str::from_utf8(self.take(usize::from(length))?).map_err(|_| self.malformed())
    }

    /// A text that must be a name.
    pub(crate) fn name<N: std::str::FromStr>(&mut self) -> Result<N, Malformed> {
        self.text()?.parse().map_err(|_| self.malformed())
    }

    /// The length of a list whose items take at least `item_bytes` each.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        let fits = count.checked_mul(item_bytes).is_some_and(|bytes| bytes <= self.rest.len());
        if fits { Ok(count) } else { Err(self.malformed()) }
    }

    pub(crate) fn segment(&mut self) -> Result<SegmentId, Malformed> {
        Ok(SegmentId {
            stream: StreamId(self.u64()?),
            epoch: self.u32()?.into(),
            number: self.u32()?.into(),
        })
    }

    pub(crate) fn offset(&mut self) -> Result<Offset, Malformed> {
        self.u64().map(Offset)
    }

    pub(crate) fn range(&mut self) -> Result<KeyRange, Malformed> {
        let (low, high) = (self.u64()?, self.u64()?);
        KeyRange::new(low, high).ok_or_else(|| self.malformed())
    }

    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }
}
