//! Facts about an event, beside its payload: names and values, in order.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use common::limits::{HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX};

use super::{EventError, put_varint, take_varint, varint_bytes};

/// A fact about an event: a name, which is text, and a value of any bytes. A name may stand more
/// than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header<'a> {
    /// 1 to 255 bytes.
    pub name: &'a str,
    /// Any bytes, none as well.
    pub value: &'a [u8],
}

impl<'a> Header<'a> {
    /// A header of this name and value.
    pub fn new(name: &'a str, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { name, value: value.as_ref() }
    }
}

/// The headers of an event that was read. They share the memory that it was read into, and are
/// looked at when asked for.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// As they lie in the event, known to be whole. Behind a pointer: most events have none, and
    /// are moved around.
    encoded: Option<Box<Bytes>>,
}

impl Headers {
    /// All of them, in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = Header<'_>> + '_ {
        let mut rest: &[u8] = self.encoded.as_deref().map_or(&[], |encoded| encoded);
        std::iter::from_fn(move || take_header(&mut rest))
    }

    /// The value of the first header of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|header| header.name == name).map(|header| header.value)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_none()
    }

    /// `None` where the bytes are not headers.
    pub(super) fn parse(encoded: Bytes) -> Option<Self> {
        let mut rest = &encoded[..];
        while !rest.is_empty() {
            take_header(&mut rest)?;
        }
        Some(Self { encoded: (!encoded.is_empty()).then(|| Box::new(encoded)) })
    }
}

/// Headers as an event would have them when it is read; refused as where an event is framed.
impl<'a> TryFrom<&[Header<'a>]> for Headers {
    type Error = EventError;

    fn try_from(headers: &[Header<'a>]) -> Result<Self, EventError> {
        let bytes = entries_bytes(headers)?;
        let mut out = BytesMut::with_capacity(bytes);
        put_entries(&mut out, headers);
        Ok(Self { encoded: (!out.is_empty()).then(|| Box::new(out.freeze())) })
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|header| (header.name, header.value))).finish()
    }
}

/// Bytes of the part that holds `headers`, its length included, or which limit they break.
pub(super) fn part_bytes(headers: &[Header<'_>]) -> Result<usize, EventError> {
    let bytes = entries_bytes(headers)?;
    Ok(varint_bytes(bytes) + bytes)
}

/// Appends the part that holds `headers`, which keep to the limits.
pub(super) fn put(out: &mut BytesMut, headers: &[Header<'_>]) {
    put_varint(out, headers.iter().map(entry_bytes).sum());
    put_entries(out, headers);
}

fn put_entries(out: &mut BytesMut, headers: &[Header<'_>]) {
    for header in headers {
        for part in [header.name.as_bytes(), header.value] {
            put_varint(out, part.len());
            out.put_slice(part);
        }
    }
}

fn entries_bytes(headers: &[Header<'_>]) -> Result<usize, EventError> {
    if headers.len() > HEADERS_MAX {
        return Err(EventError::TooManyHeaders { count: headers.len() });
    }
    let bad_name = |header: &&Header<'_>| !(1..=HEADER_NAME_BYTES_MAX).contains(&header.name.len());
    if let Some(header) = headers.iter().find(bad_name) {
        return Err(EventError::HeaderName { name: header.name.to_owned() });
    }
    let bytes: usize = headers.iter().map(|header| header.name.len() + header.value.len()).sum();
    if bytes > HEADERS_BYTES_MAX {
        return Err(EventError::HeadersTooLarge { bytes });
    }
    Ok(headers.iter().map(entry_bytes).sum())
}

fn entry_bytes(header: &Header<'_>) -> usize {
    let (name, value) = (header.name.len(), header.value.len());
    varint_bytes(name) + name + varint_bytes(value) + value
}

/// The next header; `None` where there is none, or none that is whole and has a name.
fn take_header<'a>(rest: &mut &'a [u8]) -> Option<Header<'a>> {
    let name = take_bytes(rest)?;
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    Some(Header { name, value: take_bytes(rest)? })
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_varint(rest)?;
    let (bytes, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(bytes)
}
