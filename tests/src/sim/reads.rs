//! Reading segments, meanwhile and at the end, through the segment store's readers.

use bytes::BytesMut;
use common::{ContainerId, Offset, SegmentId};
use segmentstore::{ReadError, ReadRange, SegmentStore};

use super::streams::{Effect, Phase, Stream};
use super::world::{Event, World};
use crate::history::{Answer, Operation, SegmentRef, What};
use crate::payload;

impl World {
    /// Somebody reads a segment.
    pub(super) fn on_look(&mut self) {
        let delay = self.random.workload.between(2_000, 30_000);
        if self.chaos {
            self.schedule.after(delay, Event::Look);
        }
        let live = |s: &Stream| !s.places.is_empty() && s.phase != Phase::Deleted;
        let streams: Vec<usize> =
            (0..self.streams.len()).filter(|s| live(&self.streams[*s])).collect();
        // A machine made anew serves nobody before it has taken over all that was archived.
        if streams.is_empty() || self.node.is_none() || self.machine_is_lost {
            return;
        }
        let rng = &mut self.random.workload;
        let stream = &self.streams[streams[rng.below(streams.len() as u64) as usize]];
        let segment = rng.below(stream.places.len() as u64) as u32;
        let edges = stream.edges.get(&segment).map_or(&[][..], Vec::as_slice);
        let edge = rng.below(edges.len() as u64) as usize;
        let from = if rng.chance(1, 2) { 0 } else { edges.get(edge).copied().unwrap_or(0) };
        let segment = SegmentRef { stream: stream.number, segment };
        self.read(segment, from, false);
    }

    pub(super) fn read(&mut self, segment: SegmentRef, from: u64, last: bool) {
        let Some(node) = &self.node else { return };
        let now = self.schedule.now();
        let reader = if last { u32::MAX - 1 } else { u32::MAX - 2 };
        let op = self.recorder.invoke(now, reader, Operation::Read { segment, from, last });
        let place = &self.streams[segment.stream as usize].places[segment.segment as usize];
        let (store, container, id) = (node.store.clone(), place.container, place.segment);
        self.tasks.spawn(async move {
            let found = read_all(&store, container, id, from).await;
            Effect::Read { op, segment, last, found }
        });
        self.wake();
    }

    pub(super) fn on_read(
        &mut self,
        op: u64,
        segment: SegmentRef,
        last: bool,
        found: Result<Answer, ReadError>,
    ) {
        let now = self.schedule.now();
        let what = match found {
            Ok(answer) => {
                self.note_edges(segment, &answer);
                What::Ok { answer }
            }
            Err(ReadError::SegmentNotFound { .. }) if !last => {
                What::Fail { reason: "SEGMENT_NOT_FOUND".to_owned() }
            }
            // What came to be in it was not archived.
            Err(ReadError::SegmentNotFound { .. }) if self.machine_is_lost => What::Ok {
                answer: Answer::Read { start: 0, next: 0, at_tail: true, events: vec![] },
            },
            // The server is down and has not noticed yet.
            Err(ReadError::Damaged { .. }) if self.machine.disk.crashed() => What::Unknown,
            // A bucket that answers short is believed to be damaged after a few times.
            Err(ReadError::Damaged { .. }) if self.bucket_misbehaves() => What::Unknown,
            Err(error @ ReadError::Damaged { .. }) => {
                self.problem(format!("read of {segment:?}: {error}"));
                return;
            }
            Err(error) if last => {
                self.problem(format!("last read of {segment:?}: {error}"));
                return;
            }
            Err(_) => What::Unknown,
        };
        self.recorder.end(now, 0, op, what);
        if last {
            self.last_reads_left -= 1;
            if self.last_reads_left == 0 {
                self.finished = true;
            }
        }
    }

    fn bucket_misbehaves(&self) -> bool {
        self.chaos && self.plan.bucket.as_ref().is_some_and(|plan| plan.faults > 0)
    }

    fn note_edges(&mut self, segment: SegmentRef, answer: &Answer) {
        let Answer::Read { next, events, .. } = answer else { return };
        self.trace.line(
            self.schedule.now(),
            format_args!("read {segment:?}: {} events to {next}", events.len()),
        );
        let edges = events.iter().map(|event| event.offset).chain([*next]).collect();
        self.streams[segment.stream as usize].edges.insert(segment.segment, edges);
    }
}

/// Everything from `from`, or from the start of what is left, to the length of that moment.
async fn read_all(
    store: &SegmentStore,
    container: ContainerId,
    segment: SegmentId,
    from: u64,
) -> Result<Answer, ReadError> {
    let mut start = from;
    loop {
        match read_from(store, container, segment, start).await {
            Err(ReadError::Truncated { start: now, .. }) => start = now.0,
            Ok((bytes, end)) => {
                let (events, next) = payload::parse(bytes.freeze(), start);
                let start = if start == from { 0 } else { start };
                let at_tail = next == end;
                return Ok(Answer::Read { start, next, at_tail, events });
            }
            Err(error) => return Err(error),
        }
    }
}

async fn read_from(
    store: &SegmentStore,
    container: ContainerId,
    segment: SegmentId,
    start: u64,
) -> Result<(BytesMut, u64), ReadError> {
    let range = ReadRange { offset: Offset(start), ..ReadRange::default() };
    let mut reader = store.read(container, segment, range).await?;
    let mut bytes = BytesMut::new();
    while let Some(chunk) = reader.next().await? {
        bytes.extend_from_slice(&chunk.data);
    }
    Ok((bytes, reader.offset().0))
}
