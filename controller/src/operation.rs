//! The controller's operations: what stands in the headers of its log entries.
//!
//! Format: version u8, kind u8, then the kind's fields (see [`crate::codec`]). A kind is never
//! given to another operation; `operation/tests.rs` holds one example of each, byte for byte.

use bytes::Bytes;
use common::{
    ContainerId, Fence, Incarnation, KeyRange, Offset, ScopeName, ScopedStream, SegmentId,
    SegmentNumber, StreamEpoch, StreamId, Term, WriterEpoch, WriterName,
};

use crate::codec::{Decoder, Encoder, Malformed};
use crate::machine::{SegmentKey, WriterMode};
use crate::stores::JobId;

const VERSION: u8 = 1;

/// A process that holds containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u64);

/// A place in one stream: an offset for each of some segments.
pub type CutOffsets = Vec<(StreamEpoch, SegmentNumber, Offset)>;

/// A segment as its container describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptedSegment {
    pub key: SegmentKey,
    pub range: KeyRange,
    pub container: ContainerId,
    pub predecessors: Vec<SegmentKey>,
    /// The length, where it is sealed.
    pub sealed: Option<Offset>,
}

/// Where a segment begins and ends in its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundSegment {
    pub key: SegmentKey,
    pub start: Offset,
    pub length: Offset,
    /// Sealed with nothing that follows it, as the segments of a stream that ends are.
    pub sealed: bool,
    /// Only its tombstone is there.
    pub deleted: bool,
}

/// One change to the controller's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Gives the cluster its identity; the first one counts, later ones change nothing.
    Initialize {
        cluster: u128,
        incarnation: Incarnation,
    },
    /// Makes a store, its endpoint and its containers known.
    RegisterStore {
        store: StoreId,
        endpoint: String,
        containers: Vec<ContainerId>,
    },
    CreateScope {
        scope: ScopeName,
    },
    DeleteScope {
        scope: ScopeName,
    },
    CreateStream {
        stream: ScopedStream,
        segments: u32,
        create_scope: bool,
        /// The same in each repetition of one request; 0: none.
        token: u64,
    },
    SealStream {
        stream: ScopedStream,
    },
    /// By id, so that a cut never reaches a stream that was made later under the same name.
    TruncateStream {
        stream: StreamId,
        cut: CutOffsets,
    },
    DeleteStream {
        stream: ScopedStream,
    },
    /// By id, so that a request that is repeated never reaches a stream made later.
    DeleteStreamById {
        stream: StreamId,
    },
    RegisterWriter {
        stream: ScopedStream,
        writer: WriterName,
        create: bool,
        mode: WriterMode,
    },
    DeleteWriter {
        stream: ScopedStream,
        writer: WriterName,
        /// Not where the name was registered anew behind this epoch; 0: in any case.
        epoch: WriterEpoch,
    },
    /// Containers obey this fence, which is above all that this history of the controller gives:
    /// later ones are to be above it.
    RaiseFence {
        above: Fence,
    },
    /// The cluster was brought back from its bucket: ids and fences are led by this incarnation
    /// from now on, and `streams_made` streams may have been made before.
    Recover {
        incarnation: Incarnation,
        streams_made: u64,
    },
    /// Makes a stream that is not known from what its segments say of themselves.
    AdoptStream {
        stream: StreamId,
        name: ScopedStream,
        segments: Vec<AdoptedSegment>,
    },
    /// Brings the records of a stream in line with its segments, one thing at a time: it is given
    /// again, with what is found then, until it changes nothing.
    ReconcileStream {
        stream: StreamId,
        found: Vec<FoundSegment>,
    },
    /// What earlier builds gave instead, without seals; replayed as they decided it.
    ReconcilePlaces {
        stream: StreamId,
        found: Vec<FoundSegment>,
    },
    /// Every command of this step of the job has been carried out.
    StepDone {
        job: JobId,
        step: u32,
        lengths: Vec<(SegmentId, Offset)>,
    },
    /// This step of the job can never be carried out.
    StepFailed {
        job: JobId,
        step: u32,
        message: String,
    },
}

mod kind {
    pub(super) const INITIALIZE: u8 = 1;
    pub(super) const REGISTER_STORE: u8 = 2;
    pub(super) const CREATE_SCOPE: u8 = 3;
    pub(super) const DELETE_SCOPE: u8 = 4;
    pub(super) const CREATE_STREAM: u8 = 5;
    pub(super) const SEAL_STREAM: u8 = 6;
    pub(super) const TRUNCATE_STREAM: u8 = 7;
    pub(super) const DELETE_STREAM: u8 = 8;
    pub(super) const REGISTER_WRITER: u8 = 9;
    pub(super) const STEP_DONE: u8 = 10;
    pub(super) const STEP_FAILED: u8 = 11;
    pub(super) const RECOVER: u8 = 12;
    pub(super) const ADOPT_STREAM: u8 = 13;
    pub(super) const RECONCILE_PLACES: u8 = 14;
    pub(super) const RECONCILE_STREAM: u8 = 15;
    pub(super) const RAISE_FENCE: u8 = 16;
    pub(super) const DELETE_WRITER: u8 = 17;
    pub(super) const DELETE_STREAM_BY_ID: u8 = 18;
}

impl Operation {
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::versioned(VERSION);
        match self {
            Self::Initialize { cluster, incarnation } => {
                out.u8(kind::INITIALIZE).u128(*cluster).u16(incarnation.0);
            }
            Self::RegisterStore { store, endpoint, containers } => {
                out.u8(kind::REGISTER_STORE).u64(store.0).text(endpoint).count(containers.len());
                containers.iter().for_each(|container| _ = out.u64(container.0));
            }
            Self::CreateScope { scope } => _ = out.u8(kind::CREATE_SCOPE).text(scope.as_str()),
            Self::DeleteScope { scope } => _ = out.u8(kind::DELETE_SCOPE).text(scope.as_str()),
            Self::CreateStream { stream, segments, create_scope, token } => {
                stream_name(out.u8(kind::CREATE_STREAM), stream).u32(*segments);
                out.bool(*create_scope).u64(*token);
            }
            Self::SealStream { stream } => _ = stream_name(out.u8(kind::SEAL_STREAM), stream),
            Self::TruncateStream { stream, cut } => {
                out.u8(kind::TRUNCATE_STREAM).u64(stream.0).count(cut.len());
                for (epoch, number, offset) in cut {
                    out.u32(epoch.0).u32(number.0).u64(offset.0);
                }
            }
            Self::DeleteStream { stream } => _ = stream_name(out.u8(kind::DELETE_STREAM), stream),
            Self::DeleteStreamById { stream } => {
                out.u8(kind::DELETE_STREAM_BY_ID).u64(stream.0);
            }
            Self::RegisterWriter { stream, writer, create, mode } => {
                stream_name(out.u8(kind::REGISTER_WRITER), stream).text(writer.as_str());
                out.bool(*create).u8(mode.ordinal());
            }
            Self::DeleteWriter { stream, writer, epoch } => {
                let out = stream_name(out.u8(kind::DELETE_WRITER), stream);
                out.text(writer.as_str()).u64(epoch.0);
            }
            Self::RaiseFence { above } => {
                out.u8(kind::RAISE_FENCE).u16(above.incarnation.0).u64(above.term.0);
            }
            Self::Recover { incarnation, streams_made } => {
                out.u8(kind::RECOVER).u16(incarnation.0).u64(*streams_made);
            }
            Self::AdoptStream { stream, name, segments } => {
                stream_name(out.u8(kind::ADOPT_STREAM).u64(stream.0), name).count(segments.len());
                segments.iter().for_each(|segment| segment.put(&mut out));
            }
            Self::ReconcileStream { stream, found } => {
                out.u8(kind::RECONCILE_STREAM).u64(stream.0).count(found.len());
                for segment in found {
                    segment.put_place(&mut out).bool(segment.sealed).bool(segment.deleted);
                }
            }
            Self::ReconcilePlaces { stream, found } => {
                out.u8(kind::RECONCILE_PLACES).u64(stream.0).count(found.len());
                for segment in found {
                    segment.put_place(&mut out).bool(segment.deleted);
                }
            }
            Self::StepDone { job, step, lengths } => {
                out.u8(kind::STEP_DONE).u64(job.0).u32(*step).count(lengths.len());
                for (segment, length) in lengths {
                    out.segment(*segment).u64(length.0);
                }
            }
            Self::StepFailed { job, step, message } => {
                out.u8(kind::STEP_FAILED).u64(job.0).u32(*step).text(message);
            }
        }
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::versioned(bytes, VERSION, "controller operation")?;
        let operation = match input.u8()? {
            kind::INITIALIZE => {
                Self::Initialize { cluster: input.u128()?, incarnation: input.u16()?.into() }
            }
            kind::REGISTER_STORE => Self::RegisterStore {
                store: StoreId(input.u64()?),
                endpoint: input.text()?.to_owned(),
                containers: list(&mut input, 8, |input| Ok(ContainerId(input.u64()?)))?,
            },
            kind::CREATE_SCOPE => Self::CreateScope { scope: input.name()? },
            kind::DELETE_SCOPE => Self::DeleteScope { scope: input.name()? },
            kind::CREATE_STREAM => Self::CreateStream {
                stream: decode_stream_name(&mut input)?,
                segments: input.u32()?,
                create_scope: input.bool()?,
                token: input.u64()?,
            },
            kind::SEAL_STREAM => Self::SealStream { stream: decode_stream_name(&mut input)? },
            kind::TRUNCATE_STREAM => Self::TruncateStream {
                stream: StreamId(input.u64()?),
                cut: list(&mut input, 16, |input| {
                    Ok((input.u32()?.into(), input.u32()?.into(), input.offset()?))
                })?,
            },
            kind::DELETE_STREAM => Self::DeleteStream { stream: decode_stream_name(&mut input)? },
            kind::DELETE_STREAM_BY_ID => Self::DeleteStreamById { stream: StreamId(input.u64()?) },
            kind::REGISTER_WRITER => Self::RegisterWriter {
                stream: decode_stream_name(&mut input)?,
                writer: input.name()?,
                create: input.bool()?,
                mode: WriterMode::of_ordinal(input.u8()?).ok_or_else(|| input.malformed())?,
            },
            kind::DELETE_WRITER => Self::DeleteWriter {
                stream: decode_stream_name(&mut input)?,
                writer: input.name()?,
                epoch: WriterEpoch(input.u64()?),
            },
            kind::RAISE_FENCE => {
                let (incarnation, term) = (input.u16()?.into(), Term(input.u64()?));
                Self::RaiseFence { above: Fence { incarnation, term } }
            }
            kind::RECOVER => {
                Self::Recover { incarnation: input.u16()?.into(), streams_made: input.u64()? }
            }
            kind::ADOPT_STREAM => Self::AdoptStream {
                stream: StreamId(input.u64()?),
                name: decode_stream_name(&mut input)?,
                segments: list(&mut input, AdoptedSegment::BYTES_MIN, AdoptedSegment::take)?,
            },
            kind::RECONCILE_STREAM => Self::ReconcileStream {
                stream: StreamId(input.u64()?),
                found: list(&mut input, FoundSegment::BYTES, |input| {
                    let place = FoundSegment::take_place(input)?;
                    Ok(FoundSegment { sealed: input.bool()?, deleted: input.bool()?, ..place })
                })?,
            },
            kind::RECONCILE_PLACES => Self::ReconcilePlaces {
                stream: StreamId(input.u64()?),
                found: list(&mut input, FoundSegment::BYTES - 1, |input| {
                    let place = FoundSegment::take_place(input)?;
                    Ok(FoundSegment { deleted: input.bool()?, ..place })
                })?,
            },
            kind::STEP_DONE => Self::StepDone {
                job: JobId(input.u64()?),
                step: input.u32()?,
                lengths: list(&mut input, 24, |input| Ok((input.segment()?, input.offset()?)))?,
            },
            kind::STEP_FAILED => Self::StepFailed {
                job: JobId(input.u64()?),
                step: input.u32()?,
                message: input.text()?.to_owned(),
            },
            _ => return Err(input.malformed()),
        };
        input.finish()?;
        Ok(operation)
    }
}

impl AdoptedSegment {
    const BYTES_MIN: usize = 8 + 16 + 8 + 4 + 1 + 8;

    fn put(&self, out: &mut Encoder) {
        segment_key(out, self.key).range(self.range).u64(self.container.0);
        out.count(self.predecessors.len());
        self.predecessors.iter().for_each(|key| _ = segment_key(out, *key));
        out.bool(self.sealed.is_some()).u64(self.sealed.unwrap_or(Offset::ZERO).0);
    }

    fn take(input: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let (key, range) = (take_key(input)?, input.range()?);
        let container = ContainerId(input.u64()?);
        let predecessors = list(input, 8, take_key)?;
        let (sealed, length) = (input.bool()?, input.offset()?);
        Ok(Self { key, range, container, predecessors, sealed: sealed.then_some(length) })
    }
}

impl FoundSegment {
    const BYTES: usize = 8 + 8 + 8 + 1 + 1;

    fn put_place<'a>(&self, out: &'a mut Encoder) -> &'a mut Encoder {
        segment_key(out, self.key).u64(self.start.0).u64(self.length.0)
    }

    fn take_place(input: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let (key, start, length) = (take_key(input)?, input.offset()?, input.offset()?);
        Ok(Self { key, start, length, sealed: false, deleted: false })
    }
}

fn segment_key(out: &mut Encoder, (epoch, number): SegmentKey) -> &mut Encoder {
    out.u32(epoch.0).u32(number.0)
}

fn take_key(input: &mut Decoder<'_>) -> Result<SegmentKey, Malformed> {
    Ok((input.u32()?.into(), input.u32()?.into()))
}

fn stream_name<'a>(out: &'a mut Encoder, name: &ScopedStream) -> &'a mut Encoder {
    out.text(name.scope.as_str()).text(name.stream.as_str())
}

fn decode_stream_name(input: &mut Decoder<'_>) -> Result<ScopedStream, Malformed> {
    Ok(ScopedStream { scope: input.name()?, stream: input.name()? })
}

fn list<T>(
    input: &mut Decoder<'_>,
    item_bytes: usize,
    mut item: impl FnMut(&mut Decoder<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = input.count(item_bytes)?;
    (0..count).map(|_| item(input)).collect()
}

#[cfg(test)]
mod tests;
