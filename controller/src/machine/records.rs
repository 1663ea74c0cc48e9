//! How the state is saved: one key per record, each value led by its own version.
//!
//! A key is a letter and the record's identity, numbers big-endian so that related keys lie
//! together. Letters are never given to another record; `records/tests.rs` holds one example of
//! each, byte for byte. Indexes are not saved but counted and filled in at restore.

mod values;

use bytes::Bytes;
use common::{ContainerId, KeyRange, ScopeName, SegmentId, StreamEpoch, StreamId, WriterName};
use replica::RestoreError;

use crate::codec::Malformed;
use crate::machine::State;
use crate::machine::job::JobKind;
use crate::machine::stream::{Stream, StreamState};
use crate::operation::StoreId;
use crate::stores::JobId;

/// Names one saved record. The order is the order of restoring: what is referred to comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Cluster,
    Store(StoreId),
    Container(ContainerId),
    Scope(ScopeName),
    Stream(StreamId),
    Epoch(StreamId, StreamEpoch),
    Segment(SegmentId),
    Head(SegmentId),
    Removed(SegmentId),
    Writer(StreamId, WriterName),
    Job(JobId),
    Failure(JobId),
}

impl Key {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let number = |letter: u8, number: u64| [&[letter][..], &number.to_be_bytes()].concat();
        let segment = |letter: u8, id: &SegmentId| [&[letter][..], &id.encode()].concat();
        match self {
            Self::Cluster => vec![b'c'],
            Self::Store(id) => number(b't', id.0),
            Self::Container(id) => number(b'o', id.0),
            Self::Scope(name) => [b"p", name.as_str().as_bytes()].concat(),
            Self::Stream(id) => number(b's', id.0),
            Self::Epoch(id, epoch) => {
                [&number(b'e', id.0)[..], &epoch.0.to_be_bytes()[..]].concat()
            }
            Self::Segment(id) => segment(b'g', id),
            Self::Head(id) => segment(b'h', id),
            Self::Removed(id) => segment(b'r', id),
            Self::Writer(id, name) => [&number(b'w', id.0)[..], name.as_str().as_bytes()].concat(),
            Self::Job(id) => number(b'j', id.0),
            Self::Failure(id) => number(b'f', id.0),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let malformed = Malformed { what: "key of a saved controller record" };
        let (letter, rest) = bytes.split_first().ok_or(malformed)?;
        let number = || rest.try_into().map(u64::from_be_bytes).map_err(|_| malformed);
        let segment = || rest.try_into().map(SegmentId::decode).map_err(|_| malformed);
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| malformed);
        let led = || {
            let (stream, rest) = rest.split_first_chunk::<8>().ok_or(malformed)?;
            Ok((StreamId(u64::from_be_bytes(*stream)), rest))
        };
        Ok(match letter {
            b'c' if rest.is_empty() => Self::Cluster,
            b't' => Self::Store(StoreId(number()?)),
            b'o' => Self::Container(ContainerId(number()?)),
            b'p' => Self::Scope(text(rest)?.parse().map_err(|_| malformed)?),
            b's' => Self::Stream(StreamId(number()?)),
            b'e' => {
                let (stream, epoch) = led()?;
                let epoch = epoch.try_into().map(u32::from_be_bytes).map_err(|_| malformed)?;
                Self::Epoch(stream, StreamEpoch(epoch))
            }
            b'g' => Self::Segment(segment()?),
            b'h' => Self::Head(segment()?),
            b'r' => Self::Removed(segment()?),
            b'w' => {
                let (stream, name) = led()?;
                Self::Writer(stream, text(name)?.parse().map_err(|_| malformed)?)
            }
            b'j' => Self::Job(JobId(number()?)),
            b'f' => Self::Failure(JobId(number()?)),
            _ => return Err(malformed),
        })
    }
}

impl State {
    /// The state that these records describe.
    pub(crate) fn restore(
        pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<State, RestoreError> {
        let broken = |malformed: Malformed| RestoreError::new(malformed.to_string());
        let mut records = Vec::new();
        for (key, value) in pairs {
            records.push((Key::decode(&key).map_err(broken)?, value));
        }
        records.sort_by(|a, b| a.0.cmp(&b.0));
        let mut state = State::default();
        for (key, value) in records {
            state.put(key, &value).map_err(broken)?;
        }
        state.fill_in()?;
        Ok(state)
    }

    /// Indexes and counts over the records, and the checks that they belong together.
    fn fill_in(&mut self) -> Result<(), RestoreError> {
        for stream in self.streams.values_mut() {
            if stream.epochs.is_empty() {
                return Err(RestoreError::new(format!("stream {} has no epoch", stream.id)));
            }
            stream.index();
            let scope = self.scopes.get_mut(&stream.name.scope);
            let scope = scope.ok_or_else(|| lacks(stream.id, "its scope"))?;
            scope.streams.insert(stream.name.stream.clone(), stream.id);
            if stream.job.is_some_and(|job| !self.jobs.contains_key(&job)) {
                return Err(lacks(stream.id, "its job"));
            }
            if !stream.covers_what_it_should() {
                return Err(lacks(stream.id, "a segment of its newest epoch"));
            }
            for segment in stream.segments.values() {
                let container = self.containers.get_mut(&segment.container);
                container.ok_or_else(|| lacks(stream.id, "a segment's container"))?.segments += 1;
            }
            let recorded = stream.segments.len() + stream.removed.len();
            self.segments += (recorded + stream.unrecorded()) as u64;
        }
        for job in self.jobs.values() {
            let stream = self.streams.get_mut(&job.stream);
            let stream = stream.ok_or_else(|| {
                RestoreError::new(format!("job of stream {} lacks it", job.stream))
            })?;
            if job.after.is_some_and(|after| stream.known_segment(after).is_none()) {
                return Err(lacks(stream.id, "the segment at which its job is"));
            }
            if let JobKind::DeleteWriter { writer } = job.kind
                && !stream.writer_names.contains_key(&writer)
            {
                return Err(lacks(stream.id, "the writer of its job"));
            }
            if job.kind == JobKind::Truncate {
                stream.leaving = stream.before_head();
            }
        }
        Ok(())
    }
}

impl Stream {
    /// Whether the segments of the newest epoch tile the key space, or as much of it as is recorded
    /// of a stream that is being made. Of one that is deleted any of them may be gone.
    fn covers_what_it_should(&self) -> bool {
        let mut ranges = self.current.iter().map(|key| self.segments[key].range);
        match self.state {
            StreamState::Deleting => true,
            StreamState::Creating => {
                let all = self.segments_configured;
                self.current.len() <= all as usize
                    && (0..)
                        .zip(ranges)
                        .all(|(number, range)| range == KeyRange::nth_tile(all, number))
            }
            _ => {
                let mut next = Some(0);
                ranges.all(|range| {
                    let follows = next == Some(range.low());
                    next = range.high().checked_add(1);
                    follows
                }) && next.is_none()
            }
        }
    }
}

fn lacks(stream: StreamId, what: &str) -> RestoreError {
    RestoreError::new(format!("stream {stream} lacks {what}"))
}

#[cfg(test)]
mod tests;
