//! How an event lies in a segment. Only clients frame and parse; the store never does.
//!
//! ```text
//! length u32 | crc32 u32 | flags u8 | [key: varint length, bytes] | [time: i64 µs] | [headers] |
//!     payload
//! headers: varint length of what follows |
//!     (name: varint length, UTF-8 | value: varint length, bytes)*
//! ```
//!
//! Little-endian. `length` counts what follows the crc; the crc (IEEE) covers the same bytes.
//! Flags say which optional parts are there. An unknown flag bit is an error: the event was framed
//! by a newer client, and guessing would hand out wrong bytes.

mod headers;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use common::limits::{
    EVENT_BYTES_MAX, HEADER_NAME_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, ROUTING_KEY_BYTES_MAX,
};

pub use headers::{Header, Headers};

/// Bytes in front of what `length` counts.
pub const PREFIX_BYTES: usize = 8;

const FLAG_KEY: u8 = 1 << 0;
const FLAG_TIME: u8 = 1 << 1;
const FLAG_HEADERS: u8 = 1 << 2;
/// Reserved for batches of compressed events.
#[cfg(test)]
const FLAG_COMPRESSED: u8 = 1 << 3;
/// Reserved for schema ids.
#[cfg(test)]
const FLAG_SCHEMA: u8 = 1 << 4;
const FLAGS_KNOWN: u8 = FLAG_KEY | FLAG_TIME | FLAG_HEADERS;

/// An event as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRef<'a> {
    pub key: Option<&'a str>,
    /// The event's own time, microseconds since the Unix epoch.
    pub time_micros: Option<i64>,
    pub headers: &'a [Header<'a>],
    pub payload: &'a [u8],
}

/// An event as it is read; its parts share the memory they were read into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FramedEvent {
    pub key: Option<Bytes>,
    pub time_micros: Option<i64>,
    pub headers: Headers,
    pub payload: Bytes,
    /// Bytes of the whole frame: the next event starts this much further on.
    pub frame_bytes: usize,
}

impl FramedEvent {
    /// The routing key as text. Writers take `&str` only and the crc holds, so that other bytes
    /// can only come from a foreign client: they read as no text.
    pub fn key_text(&self) -> Option<&str> {
        self.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())
    }
}

/// Why bytes are not an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("frame length `{0}` is impossible")]
    BadLength(u32),
    #[error("checksum mismatch: stored {stored:#010x}, computed {computed:#010x}")]
    BadChecksum { stored: u32, computed: u32 },
    #[error("flags {0:#04x} are not known to this version; use a newer client")]
    UnknownFlags(u8),
    #[error("the frame's parts do not fit its length")]
    BadParts,
}

/// Why an event cannot be framed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error(
        "event of {bytes} bytes is too large; at most {EVENT_BYTES_MAX} bytes are allowed, framing included"
    )]
    TooLarge { bytes: usize },
    #[error(
        "routing key of {bytes} bytes is too long; at most {ROUTING_KEY_BYTES_MAX} bytes are allowed"
    )]
    KeyTooLong { bytes: usize },
    #[error("{count} headers are too many; at most {HEADERS_MAX} are allowed")]
    TooManyHeaders { count: usize },
    #[error(
        "the name of header `{name}` has {} bytes; 1 to {HEADER_NAME_BYTES_MAX} are allowed",
        name.len()
    )]
    HeaderName { name: String },
    #[error(
        "headers of {bytes} bytes are too large; names and values together may have \
         {HEADERS_BYTES_MAX} bytes"
    )]
    HeadersTooLarge { bytes: usize },
}

impl<'a> EventRef<'a> {
    /// An event with nothing but a payload.
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { key: None, time_micros: None, headers: &[], payload }
    }

    /// Bytes that the framed event takes, or why it cannot be framed.
    pub fn frame_bytes(&self) -> Result<usize, EventError> {
        let key_bytes = match self.key {
            Some(key) if key.len() > ROUTING_KEY_BYTES_MAX => {
                return Err(EventError::KeyTooLong { bytes: key.len() });
            }
            Some(key) => varint_bytes(key.len()) + key.len(),
            None => 0,
        };
        let time_bytes = if self.time_micros.is_some() { 8 } else { 0 };
        let headers_bytes = match self.headers {
            [] => 0,
            some => headers::part_bytes(some)?,
        };
        let bytes = PREFIX_BYTES + 1 + key_bytes + time_bytes + headers_bytes + self.payload.len();
        if bytes > EVENT_BYTES_MAX {
            return Err(EventError::TooLarge { bytes });
        }
        Ok(bytes)
    }

    /// Appends the framed event to `out` and returns its size in bytes.
    pub fn frame_into(&self, out: &mut BytesMut) -> Result<usize, EventError> {
        let bytes = self.frame_bytes()?;
        out.reserve(bytes);
        let start = out.len();
        out.put_u32_le((bytes - PREFIX_BYTES) as u32);
        out.put_u32_le(0);
        let has_key = if self.key.is_some() { FLAG_KEY } else { 0 };
        let has_time = if self.time_micros.is_some() { FLAG_TIME } else { 0 };
        let has_headers = if self.headers.is_empty() { 0 } else { FLAG_HEADERS };
        out.put_u8(has_key | has_time | has_headers);
        if let Some(key) = self.key {
            put_varint(out, key.len());
            out.put_slice(key.as_bytes());
        }
        if let Some(time) = self.time_micros {
            out.put_i64_le(time);
        }
        if !self.headers.is_empty() {
            headers::put(out, self.headers);
        }
        out.put_slice(self.payload);
        let crc = crc32fast::hash(&out[start + PREFIX_BYTES..]);
        out[start + 4..start + PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }
}

/// Bytes of the frame at the beginning of `bytes`, once its length field is there. Errs where the
/// length is impossible, before anything is waited for or allocated.
pub fn frame_length(bytes: &[u8]) -> Result<Option<usize>, FramingError> {
    let Some(prefix) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix);
    if length == 0 || length as usize > EVENT_BYTES_MAX - PREFIX_BYTES {
        return Err(FramingError::BadLength(length));
    }
    Ok(Some(length as usize + PREFIX_BYTES))
}

/// Takes the next event off the front of `bytes`; `None` where it is not complete yet, and then
/// nothing is taken. On an error nothing is taken either.
pub fn take_event(bytes: &mut Bytes) -> Result<Option<FramedEvent>, FramingError> {
    let Some(frame_bytes) = frame_length(bytes)? else { return Ok(None) };
    if bytes.len() < frame_bytes {
        return Ok(None);
    }
    let stored = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let computed = crc32fast::hash(&bytes[PREFIX_BYTES..frame_bytes]);
    if stored != computed {
        return Err(FramingError::BadChecksum { stored, computed });
    }
    let mut body = bytes.slice(PREFIX_BYTES..frame_bytes);
    let event = parse_body(&mut body, frame_bytes)?;
    bytes.advance(frame_bytes);
    Ok(Some(event))
}

fn parse_body(body: &mut Bytes, frame_bytes: usize) -> Result<FramedEvent, FramingError> {
    let flags = body.get_u8();
    if flags & !FLAGS_KNOWN != 0 {
        return Err(FramingError::UnknownFlags(flags));
    }
    let key = if flags & FLAG_KEY != 0 { Some(take_part(body)?) } else { None };
    let time_micros = if flags & FLAG_TIME != 0 {
        if body.len() < 8 {
            return Err(FramingError::BadParts);
        }
        Some(body.get_i64_le())
    } else {
        None
    };
    let headers = if flags & FLAG_HEADERS != 0 {
        Headers::parse(take_part(body)?).ok_or(FramingError::BadParts)?
    } else {
        Headers::default()
    };
    Ok(FramedEvent { key, time_micros, headers, payload: body.split_to(body.len()), frame_bytes })
}

/// A part with its length in front.
fn take_part(body: &mut Bytes) -> Result<Bytes, FramingError> {
    let length = take_varint(body).ok_or(FramingError::BadParts)?;
    if length > body.len() {
        return Err(FramingError::BadParts);
    }
    Ok(body.split_to(length))
}

const fn varint_bytes(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn take_varint(body: &mut impl Buf) -> Option<usize> {
    let mut value = 0_usize;
    for shift in (0..35).step_by(7) {
        if !body.has_remaining() {
            return None;
        }
        let byte = body.get_u8();
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
