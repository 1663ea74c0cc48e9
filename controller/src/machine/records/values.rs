//! The values of saved records.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use common::{
    ContainerId, Offset, ScopedStream, SegmentId, SegmentNumber, StreamEpoch, StreamId, WallTime,
    WriterEpoch, WriterId,
};

use crate::codec::{Decoder, Encoder, Malformed};
use crate::machine::State;
use crate::machine::cluster::{Cluster, Container, Store};
use crate::machine::job::{Job, JobKind, Phase};
use crate::machine::records::Key;
use crate::machine::scopes::Scope;
use crate::machine::stream::{Epoch, Segment, SegmentKey, Stream, StreamState, Writer, WriterMode};
use crate::operation::StoreId;
use crate::stores::JobId;

/// The version of every value so far.
const VERSION: u8 = 1;

/// In the byte of a stream's state: the head has moved, and not everything before it is dropped.
const HEAD_IS_AHEAD: u8 = 128;

impl State {
    /// What a key's value is now; `None`: there is no such record.
    pub(crate) fn value(&self, key: &Key) -> Option<Bytes> {
        let mut out = Encoder::versioned(VERSION);
        match key {
            Key::Cluster => encode_cluster(self.cluster.as_ref()?, &mut out),
            Key::Store(id) => _ = out.text(&self.stores.get(id)?.endpoint),
            Key::Container(id) => _ = out.u64(self.containers.get(id)?.store.0),
            Key::Scope(name) => _ = out.u64(self.scopes.get(name)?.created.0),
            Key::Stream(id) => encode_stream(self.streams.get(id)?, &mut out),
            Key::Epoch(id, number) => {
                let epochs = &self.streams.get(id)?.epochs;
                encode_epoch(epochs.iter().find(|epoch| epoch.number == *number)?, &mut out);
            }
            Key::Segment(id) => {
                let segments = &self.streams.get(&id.stream)?.segments;
                encode_segment(segments.get(&Stream::key_of(*id))?, &mut out);
            }
            Key::Head(id) => {
                let head = &self.streams.get(&id.stream)?.head;
                out.u64(head.get(&Stream::key_of(*id))?.0);
            }
            Key::Removed(id) => {
                let removed = &self.streams.get(&id.stream)?.removed;
                encode_segment(removed.get(&Stream::key_of(*id))?, &mut out);
            }
            Key::Writer(id, name) => {
                encode_writer(self.streams.get(id)?.writers.get(name)?, &mut out);
            }
            Key::Job(id) => encode_job(self.jobs.get(id)?, &mut out),
            Key::Failure(id) => _ = out.text(self.failures.get(id)?),
        }
        Some(out.finish())
    }

    /// Takes a record over. What it belongs to was put before.
    pub(super) fn put(&mut self, key: Key, value: &[u8]) -> Result<(), Malformed> {
        let mut input = Decoder::versioned(value, VERSION, what(&key))?;
        let orphan = input.malformed();
        match key {
            Key::Cluster => self.cluster = Some(decode_cluster(&mut input)?),
            Key::Store(id) => {
                self.stores.insert(id, Store { endpoint: input.text()?.to_owned() });
            }
            Key::Container(id) => {
                let container = Container { store: StoreId(input.u64()?), segments: 0 };
                self.containers.insert(id, container);
            }
            Key::Scope(name) => {
                let scope = Scope { created: WallTime(input.u64()?), streams: BTreeMap::new() };
                self.scopes.insert(name, scope);
            }
            Key::Stream(id) => {
                self.streams.insert(id, decode_stream(id, &mut input)?);
            }
            Key::Epoch(id, number) => {
                let epoch = decode_epoch(number, &mut input)?;
                self.streams.get_mut(&id).ok_or(orphan)?.epochs.push(epoch);
            }
            Key::Segment(id) => {
                let segment = decode_segment(&mut input)?;
                self.holder(id).ok_or(orphan)?.segments.insert(Stream::key_of(id), segment);
            }
            Key::Head(id) => {
                let offset = input.offset()?;
                self.holder(id).ok_or(orphan)?.head.insert(Stream::key_of(id), offset);
            }
            Key::Removed(id) => {
                let removed = decode_segment(&mut input)?;
                self.holder(id).ok_or(orphan)?.removed.insert(Stream::key_of(id), removed);
            }
            Key::Writer(id, name) => {
                let writer = decode_writer(&mut input)?;
                self.streams.get_mut(&id).ok_or(orphan)?.writers.insert(name, writer);
            }
            Key::Job(id) => _ = self.jobs.insert(id, decode_job(&mut input)?),
            Key::Failure(id) => _ = self.failures.insert(id, input.text()?.to_owned()),
        }
        input.finish()
    }

    fn holder(&mut self, id: SegmentId) -> Option<&mut Stream> {
        self.streams.get_mut(&id.stream)
    }
}

fn what(key: &Key) -> &'static str {
    match key {
        Key::Cluster => "saved cluster record",
        Key::Store(_) => "saved store record",
        Key::Container(_) => "saved container record",
        Key::Scope(_) => "saved scope record",
        Key::Stream(_) => "saved stream record",
        Key::Epoch(..) => "saved epoch record",
        Key::Segment(_) => "saved segment record",
        Key::Head(_) => "saved head record",
        Key::Removed(_) => "saved record of a removed segment",
        Key::Writer(..) => "saved writer record",
        Key::Job(_) => "saved job record",
        Key::Failure(_) => "saved record of a failed job",
    }
}

fn encode_cluster(cluster: &Cluster, out: &mut Encoder) {
    out.u128(cluster.id).u16(cluster.incarnation.0);
    out.u64(cluster.streams_made).u64(cluster.jobs_made).u64(cluster.writer_epochs_made);
    out.u32(cluster.era).count(cluster.passed_over.len());
    cluster.passed_over.iter().for_each(|(first, last)| _ = out.u64(*first).u64(*last));
}

fn decode_cluster(input: &mut Decoder<'_>) -> Result<Cluster, Malformed> {
    let mut cluster = Cluster {
        id: input.u128()?,
        incarnation: input.u16()?.into(),
        streams_made: input.u64()?,
        jobs_made: input.u64()?,
        writer_epochs_made: input.u64()?,
        era: input.u32()?,
        passed_over: Vec::new(),
    };
    for _ in 0..input.count(16)? {
        cluster.passed_over.push((input.u64()?, input.u64()?));
    }
    Ok(cluster)
}

fn encode_stream(stream: &Stream, out: &mut Encoder) {
    out.text(stream.name.scope.as_str()).text(stream.name.stream.as_str());
    let state = match stream.state {
        StreamState::Creating => 1,
        StreamState::Active => 2,
        StreamState::Sealing => 3,
        StreamState::Sealed => 4,
        StreamState::Deleting => 5,
    };
    out.u8(state | if stream.head_is_ahead { HEAD_IS_AHEAD } else { 0 });
    out.u32(stream.segments_configured).u64(stream.created.0);
    out.u64(stream.job.map_or(0, |job| job.0)).u64(stream.token);
}

fn decode_stream(id: StreamId, input: &mut Decoder<'_>) -> Result<Stream, Malformed> {
    let name = ScopedStream { scope: input.name()?, stream: input.name()? };
    let state = input.u8()?;
    Ok(Stream {
        id,
        name,
        state: match state & !HEAD_IS_AHEAD {
            1 => StreamState::Creating,
            2 => StreamState::Active,
            3 => StreamState::Sealing,
            4 => StreamState::Sealed,
            5 => StreamState::Deleting,
            _ => return Err(input.malformed()),
        },
        segments_configured: input.u32()?,
        created: WallTime(input.u64()?),
        job: Some(JobId(input.u64()?)).filter(|job| job.0 != 0),
        token: input.u64()?,
        epochs: Vec::new(),
        segments: BTreeMap::new(),
        current: Vec::new(),
        first: Vec::new(),
        head_in_order: Vec::new(),
        head: BTreeMap::new(),
        head_is_ahead: state & HEAD_IS_AHEAD != 0,
        leaving: VecDeque::new(),
        removed: BTreeMap::new(),
        writers: BTreeMap::new(),
        writer_names: BTreeMap::new(),
    })
}

fn encode_keys(keys: &[SegmentKey], out: &mut Encoder) {
    out.count(keys.len());
    for (epoch, number) in keys {
        out.u32(epoch.0).u32(number.0);
    }
}

fn decode_keys(input: &mut Decoder<'_>) -> Result<Vec<SegmentKey>, Malformed> {
    let count = input.count(8)?;
    (0..count).map(|_| Ok((StreamEpoch(input.u32()?), SegmentNumber(input.u32()?)))).collect()
}

fn encode_epoch(epoch: &Epoch, out: &mut Encoder) {
    out.u64(epoch.created.0);
    encode_keys(&epoch.sealed, out);
}

fn decode_epoch(number: StreamEpoch, input: &mut Decoder<'_>) -> Result<Epoch, Malformed> {
    Ok(Epoch { number, created: WallTime(input.u64()?), sealed: decode_keys(input)? })
}

fn encode_segment(segment: &Segment, out: &mut Encoder) {
    out.range(segment.range).u64(segment.container.0);
    encode_keys(&segment.predecessors, out);
    out.bool(segment.sealed.is_some()).u64(segment.sealed.unwrap_or_default().0);
}

fn decode_segment(input: &mut Decoder<'_>) -> Result<Segment, Malformed> {
    let (range, container) = (input.range()?, ContainerId(input.u64()?));
    let predecessors = decode_keys(input)?;
    let (sealed, length) = (input.bool()?, Offset(input.u64()?));
    let sealed = sealed.then_some(length);
    Ok(Segment { range, container, predecessors, sealed, successors: Vec::new() })
}

fn encode_writer(writer: &Writer, out: &mut Encoder) {
    out.u128(writer.id.0).u64(writer.epoch.0).u8(writer.mode.ordinal());
    out.u64(writer.registered.0).bool(writer.deleting);
}

fn decode_writer(input: &mut Decoder<'_>) -> Result<Writer, Malformed> {
    Ok(Writer {
        id: WriterId(input.u128()?),
        epoch: WriterEpoch(input.u64()?),
        mode: WriterMode::of_ordinal(input.u8()?).ok_or_else(|| input.malformed())?,
        registered: WallTime(input.u64()?),
        deleting: input.bool()?,
    })
}

fn encode_job(job: &Job, out: &mut Encoder) {
    out.u64(job.stream.0).u8(match job.kind {
        JobKind::Create => 1,
        JobKind::Seal => 2,
        JobKind::Truncate => 3,
        JobKind::Delete { seal_first: false } => 4,
        JobKind::Delete { seal_first: true } => 5,
        JobKind::DeleteWriter { .. } => 6,
    });
    if let JobKind::DeleteWriter { writer } = job.kind {
        out.u128(writer.0);
    }
    out.u32(job.step).u32(job.batch).u64(job.started.0);
    out.u8(match job.phase {
        Phase::Create => 1,
        Phase::Seal => 2,
        Phase::Truncate => 3,
        Phase::DeleteEarlier => 4,
        Phase::DeleteAll => 5,
        Phase::Forget => 6,
        Phase::Drop => 7,
        Phase::DeleteWriter => 8,
    });
    let (epoch, number) = job.after.unwrap_or_default();
    out.bool(job.after.is_some()).u32(epoch.0).u32(number.0);
}

fn decode_job(input: &mut Decoder<'_>) -> Result<Job, Malformed> {
    let stream = StreamId(input.u64()?);
    let kind = match input.u8()? {
        1 => JobKind::Create,
        2 => JobKind::Seal,
        3 => JobKind::Truncate,
        4 => JobKind::Delete { seal_first: false },
        5 => JobKind::Delete { seal_first: true },
        6 => JobKind::DeleteWriter { writer: WriterId(input.u128()?) },
        _ => return Err(input.malformed()),
    };
    let (step, batch) = (input.u32()?, input.u32()?);
    if batch == 0 {
        return Err(input.malformed());
    }
    let started = WallTime(input.u64()?);
    let phase = match input.u8()? {
        1 => Phase::Create,
        2 => Phase::Seal,
        3 => Phase::Truncate,
        4 => Phase::DeleteEarlier,
        5 => Phase::DeleteAll,
        6 => Phase::Forget,
        7 => Phase::Drop,
        8 => Phase::DeleteWriter,
        _ => return Err(input.malformed()),
    };
    if !kind.phases().contains(&phase) {
        return Err(input.malformed());
    }
    let (has_after, epoch, number) = (input.bool()?, input.u32()?, input.u32()?);
    let after = has_after.then_some((StreamEpoch(epoch), SegmentNumber(number)));
    Ok(Job { stream, kind, step, phase, after, batch, started })
}
