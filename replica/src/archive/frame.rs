//! What every object begins and ends with.
//!
//! ```text
//! version u8 | kind u8 | name 26 | length u32 | body | crc32 u32
//! ```
//!
//! Little-endian but for the name, which is in its own encoding. The length is that of the whole
//! object, and the crc (CRC-32, IEEE) covers all bytes before it. It is this recorded crc that
//! others name an object by: the crc of the *whole* object would be the same number for all.

use bytes::{BufMut, Bytes};
use lts::{OBJECT_BYTES_MAX, ObjectName, Payload};

use super::error::{ObjectError, Problem};
use super::fields::{Fields, word};

/// The version written today.
const VERSION: u8 = 1;
/// Bytes before the body.
pub(super) const HEAD_BYTES: usize = 1 + 1 + ObjectName::ENCODED_BYTES + 4;
/// Bytes behind the body.
pub(super) const TAIL_BYTES: usize = 4;
/// Bytes of an object beside its body.
pub const FRAME_BYTES: usize = HEAD_BYTES + TAIL_BYTES;
/// Bytes of the largest body.
pub(super) const BODY_BYTES_MAX: usize = OBJECT_BYTES_MAX as usize - FRAME_BYTES;

/// What an object is. The numbers are persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Payload of a round.
    Packed = 1,
    /// A round's footer.
    Footer = 2,
    /// A part of a checkpoint's state.
    Chunk = 3,
    Checkpoint = 4,
}

impl Kind {
    /// First bytes of an object from which [`peek`](Self::peek) tells what it is.
    pub const PEEK_BYTES: usize = HEAD_BYTES;

    /// What an object says it is: for whoever lists a bucket and reads further only what is wanted.
    /// Only a hint, since nothing but version and name is checked.
    pub fn peek(name: ObjectName, first: &[u8]) -> Result<Self, ObjectError> {
        let read = || {
            let found = Head::take(&mut Fields::new(first))?;
            if found.name != name {
                return Err(Problem::OtherName(found.name));
            }
            [Self::Packed, Self::Footer, Self::Chunk, Self::Checkpoint]
                .into_iter()
                .find(|kind| *kind as u8 == found.kind)
                .ok_or_else(|| Problem::Impossible { field: "kind", value: found.kind.into() })
        };
        read().map_err(|problem| problem.of(name))
    }

    fn noun(self) -> &'static str {
        match self {
            Kind::Packed => "a packed object",
            Kind::Footer => "a round's footer",
            Kind::Chunk => "a chunk of a checkpoint",
            Kind::Checkpoint => "a checkpoint",
        }
    }
}

/// Names an object together with what it holds, so that another one in its place is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectRef {
    pub name: ObjectName,
    pub length: u32,
    /// The crc that the object ends with.
    pub checksum: u32,
}

impl ObjectRef {
    pub(super) const BYTES: usize = ObjectName::ENCODED_BYTES + Self::ROW_BYTES - 8;
    /// Bytes where all of the name but the sequence is known.
    pub(super) const ROW_BYTES: usize = 8 + 4 + 4;

    /// Whether what was found is what this names.
    pub fn expect(&self, found: &ObjectRef) -> Result<(), ObjectError> {
        if self == found {
            return Ok(());
        }
        let problem = match self.name == found.name {
            false => Problem::OtherName(found.name),
            true => Problem::Replaced {
                length: self.length.into(),
                checksum: self.checksum,
                found_length: found.length.into(),
                found_checksum: found.checksum,
            },
        };
        Err(problem.of(self.name))
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_slice(&self.name.encode());
        out.put_u32_le(self.length);
        out.put_u32_le(self.checksum);
    }

    pub(super) fn take(fields: &mut Fields<'_>, field: &'static str) -> Result<Self, Problem> {
        let name = ObjectName::decode(fields.array(field)?);
        Ok(Self { name, length: fields.u32(field)?, checksum: fields.u32(field)? })
    }

    pub(super) fn put_row(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.name.sequence);
        out.put_u32_le(self.length);
        out.put_u32_le(self.checksum);
    }

    /// A row in the object `of`, which shares all of the name but the sequence and comes later.
    pub(super) fn take_row(
        fields: &mut Fields<'_>,
        of: ObjectName,
        field: &'static str,
    ) -> Result<Self, Problem> {
        let sequence = fields.u64(field)?;
        if sequence >= of.sequence {
            return Err(Problem::impossible(field, sequence));
        }
        let name = ObjectName { sequence, ..of };
        Ok(Self { name, length: fields.u32(field)?, checksum: fields.u32(field)? })
    }
}

/// An object that is ready to be put.
#[derive(Debug, Clone)]
pub struct Sealed {
    pub reference: ObjectRef,
    pub payload: Payload,
}

/// The head of an object as it stands there.
struct Head {
    kind: u8,
    name: ObjectName,
    length: u32,
}

impl Head {
    fn take(fields: &mut Fields<'_>) -> Result<Self, Problem> {
        let version = fields.u8("version")?;
        if version != VERSION {
            return Err(Problem::Version(version));
        }
        let kind = fields.u8("kind")?;
        let name = ObjectName::decode(fields.array("name")?);
        Ok(Self { kind, name, length: fields.u32("length")? })
    }
}

pub(super) fn head(kind: Kind, name: ObjectName, length: u32) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    let mut head = &mut bytes[..];
    head.put_u8(VERSION);
    head.put_u8(kind as u8);
    head.put_slice(&name.encode());
    head.put_u32_le(length);
    bytes
}

/// Makes an object of a body, whose pieces are shared, not copied. Panics where it is too long:
/// whoever gathers a body counts.
pub(super) fn seal(kind: Kind, name: ObjectName, body: impl IntoIterator<Item = Bytes>) -> Sealed {
    let body: Vec<Bytes> = body.into_iter().collect();
    let body_bytes: usize = body.iter().map(Bytes::len).sum();
    assert!(body_bytes <= BODY_BYTES_MAX, "the body of `{name}` has {body_bytes} bytes");
    let length = word(body_bytes + FRAME_BYTES);
    let head = Bytes::copy_from_slice(&head(kind, name, length));
    let mut payload: Payload = std::iter::once(head).chain(body).collect();
    let checksum = payload.crc32();
    payload.push(Bytes::copy_from_slice(&checksum.to_le_bytes()));
    Sealed { reference: ObjectRef { name, length, checksum }, payload }
}

/// The body of an object that is whole, of this kind and of this name.
pub(super) fn open(
    kind: Kind,
    name: ObjectName,
    bytes: &Bytes,
) -> Result<(ObjectRef, Bytes), Problem> {
    let Head { kind: found, name: own_name, length } = Head::take(&mut Fields::new(bytes))?;
    if bytes.len() != length as usize || bytes.len() < FRAME_BYTES {
        return Err(Problem::Length { have: bytes.len() as u64, declared: length.into() });
    }
    let (covered, recorded) = bytes.split_at(bytes.len() - TAIL_BYTES);
    let recorded = Fields::new(recorded).u32("checksum")?;
    let computed = crc32fast::hash(covered);
    if recorded != computed {
        return Err(Problem::Checksum { recorded, computed });
    }
    if own_name != name {
        return Err(Problem::OtherName(own_name));
    }
    if found != kind as u8 {
        return Err(Problem::Kind { expected: kind.noun(), found });
    }
    let body = bytes.slice(HEAD_BYTES..bytes.len() - TAIL_BYTES);
    Ok((ObjectRef { name, length, checksum: recorded }, body))
}
