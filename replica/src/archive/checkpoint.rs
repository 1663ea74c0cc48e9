//! Checkpoints in long-term storage: a group's state at a log index.
//!
//! ```text
//! chunk      = frame | { key length u32 | value length u32 | key | value }* | frame
//! checkpoint = frame | form u8 | applied 41 | feature level u16
//!              | membership length u32 | membership | pairs u64 | chunks u32
//!              | { sequence u64 | length u32 | crc32 u32 | pairs u32 | first key length u32
//!                  | first key }* | frame
//! ```
//!
//! Keys are in strictly rising order through all chunks. The form is 1: a base, which holds the
//! whole state (others are for differences to come). `applied` is the record of the local
//! checkpoint (`kv.rs`). Chunks share incarnation, group and term with the checkpoint and have lower
//! sequences, not necessarily without gaps: rounds may be made meanwhile. The checkpoint is put
//! last: a chunk that none names is garbage.

use bytes::{BufMut, Bytes};
use common::{ByteSize, LogIndex};
use lts::{OBJECT_BYTES_MAX, ObjectName};

use super::error::{ObjectError, Problem};
use super::fields::{Fields, word};
use super::footer::MEMBERSHIP_BYTES_MAX;
use super::frame::{self, BODY_BYTES_MAX, FRAME_BYTES, Kind, ObjectRef, Sealed};
use super::header::FeatureLevel;
use crate::kv::{APPLIED_BYTES, Applied};

/// The whole state.
const BASE: u8 = 1;
/// Bytes of a pair beside key and value.
const PAIR_BYTES: usize = 4 + 4;
/// Bytes of a checkpoint's body without its chunks, at most.
const FIXED_BYTES_MAX: usize = 1 + APPLIED_BYTES + 2 + 4 + MEMBERSHIP_BYTES_MAX + 8 + 4;
/// Bytes of a chunk in the checkpoint beside its first key.
const CHUNK_BYTES: usize = ObjectRef::ROW_BYTES + 4 + 4;

/// How a checkpoint is cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// Bytes of a chunk that is not made larger; at most 64 MiB, because objects are put whole.
    pub chunk_bytes: ByteSize,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self { chunk_bytes: ByteSize::mib(32) }
    }
}

/// Why pairs do not make a checkpoint. None of them comes of a healthy store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("the key {0:02x?} does not come behind the one before it")]
    Order(Bytes),
    #[error("the pair of key {key:02x?} has {bytes} bytes, an object holds {BODY_BYTES_MAX}")]
    TooLarge { key: Bytes, bytes: usize },
    #[error("the state has more chunks than a checkpoint can name; make chunks larger")]
    TooMany,
    #[error("the membership has {0} bytes")]
    Membership(usize),
    #[error(
        "`{name}` cannot be the next name: it does not come behind `{before}`, or differs in more than the sequence"
    )]
    Name { name: ObjectName, before: ObjectName },
}

/// What a checkpoint says of itself beside its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointDraft {
    pub applied: Applied,
    pub feature_level: FeatureLevel,
    /// The membership at that place, opaque here.
    pub membership: Bytes,
}

/// Turns sorted pairs into objects as they come, so that at most one chunk is in memory.
#[derive(Debug)]
pub struct CheckpointWriter {
    target: usize,
    draft: CheckpointDraft,
    chunk: Vec<u8>,
    pairs: u32,
    first_key: Bytes,
    last_key: Option<Bytes>,
    chunks: Vec<ChunkRef>,
    chunk_table_bytes: usize,
    pairs_in_all: u64,
}

impl CheckpointWriter {
    pub fn new(
        settings: CheckpointSettings,
        draft: CheckpointDraft,
    ) -> Result<Self, CheckpointError> {
        if draft.membership.len() > MEMBERSHIP_BYTES_MAX {
            return Err(CheckpointError::Membership(draft.membership.len()));
        }
        let target = settings.chunk_bytes.bytes().min(OBJECT_BYTES_MAX) as usize;
        Ok(Self {
            target: target.saturating_sub(FRAME_BYTES),
            draft,
            chunk: Vec::new(),
            pairs: 0,
            first_key: Bytes::new(),
            last_key: None,
            chunks: Vec::new(),
            chunk_table_bytes: 0,
            pairs_in_all: 0,
        })
    }

    /// Takes the next pair. Where it does not fit any more, the chunk so far is returned, to be
    /// put under the name that `name` chose.
    pub fn push(
        &mut self,
        key: &Bytes,
        value: &[u8],
        name: impl FnOnce() -> ObjectName,
    ) -> Result<Option<Sealed>, CheckpointError> {
        if self.last_key.as_ref().is_some_and(|last| last >= key) {
            return Err(CheckpointError::Order(key.clone()));
        }
        let bytes = PAIR_BYTES + key.len() + value.len();
        if bytes > BODY_BYTES_MAX {
            return Err(CheckpointError::TooLarge { key: key.clone(), bytes });
        }
        let full = self.pairs > 0 && self.chunk.len() + bytes > self.target;
        let sealed = if full { Some(self.close(name())?) } else { None };
        if self.pairs == 0 {
            self.first_key = key.clone();
        }
        self.chunk.put_u32_le(word(key.len()));
        self.chunk.put_u32_le(word(value.len()));
        self.chunk.put_slice(key);
        self.chunk.put_slice(value);
        self.pairs += 1;
        self.pairs_in_all += 1;
        self.last_key = Some(key.clone());
        Ok(sealed)
    }

    /// The last chunk, if there is one, and the checkpoint itself.
    pub fn finish(
        mut self,
        mut name: impl FnMut() -> ObjectName,
    ) -> Result<(Option<Sealed>, Sealed), CheckpointError> {
        let last = if self.pairs > 0 { Some(self.close(name())?) } else { None };
        let name = name();
        self.check_name(name)?;
        let CheckpointDraft { applied, feature_level, membership } = &self.draft;
        let mut out = Vec::new();
        out.put_u8(BASE);
        out.put_slice(&applied.encode());
        out.put_u16_le(feature_level.0);
        out.put_u32_le(word(membership.len()));
        out.put_slice(membership);
        out.put_u64_le(self.pairs_in_all);
        out.put_u32_le(word(self.chunks.len()));
        self.chunks.iter().for_each(|chunk| chunk.put(&mut out));
        Ok((last, frame::seal(Kind::Checkpoint, name, [out.into()])))
    }

    fn close(&mut self, name: ObjectName) -> Result<Sealed, CheckpointError> {
        self.check_name(name)?;
        self.chunk_table_bytes += CHUNK_BYTES + self.first_key.len();
        if FIXED_BYTES_MAX + self.chunk_table_bytes > BODY_BYTES_MAX {
            return Err(CheckpointError::TooMany);
        }
        let body = std::mem::take(&mut self.chunk);
        let sealed = frame::seal(Kind::Chunk, name, [body.into()]);
        let pairs = std::mem::take(&mut self.pairs);
        let first_key = std::mem::take(&mut self.first_key);
        self.chunks.push(ChunkRef { object: sealed.reference, pairs, first_key });
        Ok(sealed)
    }

    fn check_name(&self, name: ObjectName) -> Result<(), CheckpointError> {
        let Some(chunk) = self.chunks.last() else { return Ok(()) };
        let before = chunk.object.name;
        let sequence = before.sequence;
        if name.sequence > sequence && before == (ObjectName { sequence, ..name }) {
            return Ok(());
        }
        Err(CheckpointError::Name { name, before })
    }
}

/// A chunk as the checkpoint names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRef {
    pub object: ObjectRef,
    pub pairs: u32,
    pub first_key: Bytes,
}

impl ChunkRef {
    fn put(&self, out: &mut Vec<u8>) {
        self.object.put_row(out);
        out.put_u32_le(self.pairs);
        out.put_u32_le(word(self.first_key.len()));
        out.put_slice(&self.first_key);
    }

    fn take(fields: &mut Fields<'_>, body: &Bytes, of: ObjectName) -> Result<Self, Problem> {
        let object = ObjectRef::take_row(fields, of, "chunks")?;
        let pairs = fields.u32("pairs of a chunk")?;
        let first_key = body.slice_ref(fields.counted("first key of a chunk")?);
        Ok(Self { object, pairs, first_key })
    }
}

/// A checkpoint without its state.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub reference: ObjectRef,
    pub applied: Applied,
    pub feature_level: FeatureLevel,
    pub membership: Bytes,
    pub pairs: u64,
    pub chunks: Vec<ChunkRef>,
}

impl Checkpoint {
    pub fn decode(name: ObjectName, bytes: &Bytes) -> Result<Self, ObjectError> {
        Self::read(name, bytes).map_err(|problem| problem.of(name))
    }

    /// The log index up to which the state includes the log.
    pub fn index(&self) -> LogIndex {
        self.applied.index
    }

    /// Reads the chunk number `ordinal`, and refuses another one in its place.
    pub fn chunk(&self, ordinal: usize, bytes: &Bytes) -> Result<Chunk, ObjectError> {
        let chunk = &self.chunks[ordinal];
        let before = self.chunks.get(ordinal + 1).map(|next| &next.first_key);
        let name = chunk.object.name;
        let (found, body) =
            frame::open(Kind::Chunk, name, bytes).map_err(|problem| problem.of(name))?;
        chunk.object.expect(&found)?;
        Chunk::check(body, chunk, before).map_err(|problem| problem.of(name))
    }

    fn read(name: ObjectName, bytes: &Bytes) -> Result<Self, Problem> {
        let (reference, body) = frame::open(Kind::Checkpoint, name, bytes)?;
        let mut fields = Fields::new(&body);
        let form = fields.u8("form")?;
        if form != BASE {
            return Err(Problem::impossible("form", form));
        }
        let applied = Applied::decode(fields.bytes(APPLIED_BYTES, "applied")?)
            .map_err(|error| Problem::Applied(error.to_string()))?;
        let feature_level = FeatureLevel(fields.u16("feature level")?);
        let membership = body.slice_ref(fields.counted("membership")?);
        let pairs = fields.u64("pairs")?;
        let count = fields.u32("chunks")?;
        // Of a body that is whole; still no list is made before its rows are there.
        let mut chunks: Vec<ChunkRef> = Vec::new();
        for _ in 0..count {
            let chunk = ChunkRef::take(&mut fields, &body, name)?;
            let rises = |last: &ChunkRef| {
                last.first_key < chunk.first_key
                    && last.object.name.sequence < chunk.object.name.sequence
            };
            if chunk.pairs == 0 || !chunks.last().is_none_or(rises) {
                return Err(Problem::impossible("chunk", chunk.object.name.sequence));
            }
            chunks.push(chunk);
        }
        fields.end()?;
        if chunks.iter().map(|chunk| u64::from(chunk.pairs)).sum::<u64>() != pairs {
            return Err(Problem::impossible("number of pairs", pairs));
        }
        Ok(Self { reference, applied, feature_level, membership, pairs, chunks })
    }
}

/// A part of a checkpoint's state.
#[derive(Debug, Clone)]
pub struct Chunk {
    body: Bytes,
}

impl Chunk {
    /// Walks all pairs, so that iterating afterwards cannot fail: they begin with the key that the
    /// checkpoint says, rise, and end before the next chunk's first.
    fn check(body: Bytes, chunk: &ChunkRef, before: Option<&Bytes>) -> Result<Self, Problem> {
        let mut fields = Fields::new(&body);
        let mut pairs = 0_u32;
        let mut last: Option<&[u8]> = None;
        while !fields.is_empty() {
            let (key, _) = take_pair(&mut fields)?;
            let rises = match last {
                Some(last) => last < key,
                None => key == chunk.first_key,
            };
            if !rises || before.is_some_and(|before| key >= before) {
                return Err(Problem::impossible("pair", pairs));
            }
            last = Some(key);
            pairs += 1;
        }
        if pairs != chunk.pairs {
            return Err(Problem::impossible("number of pairs", pairs));
        }
        Ok(Self { body })
    }

    /// Keys and values in order of keys, shared.
    pub fn pairs(&self) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        let mut fields = Fields::new(&self.body);
        std::iter::from_fn(move || {
            if fields.is_empty() {
                return None;
            }
            let (key, value) =
                take_pair(&mut fields).expect("the chunk was walked when it was read");
            Some((self.body.slice_ref(key), self.body.slice_ref(value)))
        })
    }
}

fn take_pair<'a>(fields: &mut Fields<'a>) -> Result<(&'a [u8], &'a [u8]), Problem> {
    let key = fields.u32("key length")? as usize;
    let value = fields.u32("value length")? as usize;
    Ok((fields.bytes(key, "key")?, fields.bytes(value, "value")?))
}
