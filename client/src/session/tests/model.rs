//! A small store that keeps its side of the chain (design, section 6), as the reference that
//! writers are tested against.

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{
    ContainerId, CutCoverage, KeyRange, SegmentId, SegmentNumber, StreamEpoch, StreamId, WallTime,
    WriterId, WriterSession,
};
use proto::convert::{SegmentPlace, writer_id};
use proto::error::Reason;
use proto::framing;
use proto::v1;
use proto::v1::append_request::Message;

/// Successors that an answer tells; all of them have to be asked for where there are more.
const SUCCESSORS_TOLD: usize = 2;

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) key: Option<String>,
    pub(crate) payload: Bytes,
    /// The checksum of its frame.
    pub(crate) checksum: u32,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Entry {
    session: WriterSession,
    pub(crate) last: u64,
    pub(crate) sum: u64,
    /// Only the session is left.
    pub(crate) forgotten: bool,
}

#[derive(Debug)]
pub(crate) struct ModelSegment {
    pub(crate) place: SegmentPlace,
    pub(crate) events: Vec<Stored>,
    pub(crate) bytes: Vec<u8>,
    /// The first readable byte.
    pub(crate) start: u64,
    /// Truncated away: a tombstone, which can be opened, but takes and gives nothing.
    pub(crate) truncated: bool,
    /// When all of it was stored, as far as the model has times.
    pub(crate) newest: WallTime,
    /// Set when it is sealed; no successors: the stream is sealed.
    pub(crate) successors: Option<Vec<SegmentPlace>>,
    pub(crate) writers: BTreeMap<WriterId, Entry>,
}

/// The segments of one stream.
#[derive(Debug, Default)]
pub(crate) struct ModelStore {
    pub(crate) segments: BTreeMap<SegmentId, ModelSegment>,
    next_number: u32,
    epoch: u32,
    endpoints: Vec<String>,
    /// What it says how long it keeps writers; 0: nothing.
    pub(crate) writer_kept_micros: u64,
}

/// What a connection remembers of its sessions.
#[derive(Debug, Default)]
pub(crate) struct ModelConnection {
    slots: BTreeMap<u32, (WriterId, WriterSession, SegmentId)>,
}

impl ModelConnection {
    pub(crate) fn segment_of(&self, slot: u32) -> Option<SegmentId> {
        self.slots.get(&slot).map(|(_, _, segment)| *segment)
    }
}

impl ModelStore {
    /// A stream of `count` segments, spread over `endpoints`.
    pub(crate) fn new(count: u32, endpoints: &[&str]) -> Self {
        let endpoints = endpoints.iter().map(|&e| e.to_owned()).collect();
        let mut store = Self { endpoints, ..Self::default() };
        KeyRange::tile(count).into_iter().for_each(|range| {
            let place = store.create(range, Vec::new());
            store.insert(place);
        });
        store
    }

    fn create(&mut self, range: KeyRange, predecessors: Vec<SegmentId>) -> SegmentPlace {
        let number = self.next_number;
        self.next_number += 1;
        let segment = SegmentId {
            stream: StreamId(7),
            epoch: StreamEpoch(self.epoch),
            number: SegmentNumber(number),
        };
        let endpoint = self.endpoints[number as usize % self.endpoints.len()].clone();
        SegmentPlace { segment, range, container: ContainerId(2), endpoint, predecessors }
    }

    fn insert(&mut self, place: SegmentPlace) {
        let segment = ModelSegment {
            place: place.clone(),
            events: Vec::new(),
            bytes: Vec::new(),
            start: 0,
            truncated: false,
            newest: WallTime(0),
            successors: None,
            writers: BTreeMap::new(),
        };
        self.segments.insert(place.segment, segment);
    }

    /// Segments that are not sealed, by range.
    pub(crate) fn active(&self) -> Vec<SegmentPlace> {
        let active = self.segments.values().filter(|segment| segment.successors.is_none());
        let mut places: Vec<_> = active.map(|segment| segment.place.clone()).collect();
        places.sort_by_key(|place| place.range);
        places
    }

    /// The segments of the first epoch.
    pub(crate) fn first(&self) -> Vec<SegmentPlace> {
        let first = |place: &&SegmentPlace| place.segment.epoch == StreamEpoch(0);
        self.segments.values().map(|segment| &segment.place).filter(first).cloned().collect()
    }

    /// The oldest segments that are not truncated away.
    pub(crate) fn head(&self) -> Vec<SegmentPlace> {
        let kept: Vec<_> = self.segments.values().filter(|segment| !segment.truncated).collect();
        let follows_one = |segment: &&&ModelSegment| {
            let predecessors = &segment.place.predecessors;
            kept.iter().any(|kept| predecessors.contains(&kept.place.segment))
        };
        let head = kept.iter().filter(|segment| !follows_one(segment));
        head.map(|segment| segment.place.clone()).collect()
    }

    /// Whether a cut is a place in the stream, as far as the model goes: what it covers lies in
    /// segments of the stream, each key in one.
    pub(crate) fn check_cut(
        &self,
        cut: &[(SegmentId, u64)],
        covers: CutCoverage,
    ) -> Result<(), tonic::Status> {
        let misfit = |problem| Err(proto::error::status(Reason::OutOfRange, problem));
        let mut clipped = Vec::new();
        let whole = match covers {
            CutCoverage::Keys(range) => range,
            CutCoverage::Everything | CutCoverage::Segments => KeyRange::ALL,
        };
        for (id, offset) in cut {
            let Some(segment) = self.segments.get(id) else {
                return misfit(format!("segment {id} is not of this stream"));
            };
            let length = segment.bytes.len() as u64;
            if *offset > length {
                return misfit(format!("offset {offset} is beyond its length {length}"));
            }
            let range = segment.place.range;
            let range = (range.low().max(whole.low()), range.high().min(whole.high()));
            clipped.extend(KeyRange::new(range.0, range.1));
        }
        let fits = covers == CutCoverage::Segments || KeyRange::tiles(whole, &clipped);
        if fits { Ok(()) } else { misfit("it does not cover its keys exactly once".to_owned()) }
    }

    /// Truncates the stream to the segments that take appends.
    pub(crate) fn truncate_to_active(&mut self) {
        for segment in self.segments.values_mut() {
            segment.truncated = segment.successors.as_ref().is_some_and(|s| !s.is_empty());
        }
    }

    pub(crate) fn seal(&mut self, segment: SegmentId, successors: Vec<SegmentPlace>) {
        let sealed = self.segments.get_mut(&segment).expect("a segment that exists");
        sealed.successors = Some(successors);
    }

    /// Creates `count` successors over the joint range of `old`, which are to be sealed with them.
    pub(crate) fn successors(&mut self, old: &[SegmentPlace], count: u32) -> Vec<SegmentPlace> {
        self.epoch += 1;
        let low = old.iter().map(|place| place.range.low()).min().expect("old segments");
        let high = old.iter().map(|place| place.range.high()).max().expect("old segments");
        let width = (high - low) / u64::from(count);
        let mut made = Vec::new();
        for i in 0..count {
            let from = if i == 0 { low } else { low + width * u64::from(i) + 1 };
            let to = if i + 1 == count { high } else { low + width * u64::from(i + 1) };
            let range = KeyRange::new(from, to).expect("a range");
            let before = old.iter().filter(|place| place.range.overlaps(range));
            let before = before.map(|place| place.segment).collect();
            let place = self.create(range, before);
            self.insert(place.clone());
            made.push(place);
        }
        made
    }

    /// Lets another store lead the segment's container.
    pub(crate) fn relocate(&mut self, segment: SegmentId) {
        let endpoints = self.endpoints.clone();
        let place = &mut self.segments.get_mut(&segment).expect("a segment that exists").place;
        let now = endpoints.iter().position(|e| *e == place.endpoint).unwrap_or(0);
        place.endpoint = endpoints[(now + 1) % endpoints.len()].clone();
    }

    /// Everything that was stored of writers is forgotten, or even that there were any.
    pub(crate) fn forget_writers(&mut self, trace: bool) {
        for segment in self.segments.values_mut() {
            if !trace {
                segment.writers.clear();
            }
            for entry in segment.writers.values_mut() {
                *entry = Entry { session: entry.session, forgotten: true, ..Entry::default() };
            }
        }
    }

    /// What the store `at` an endpoint, or any, does with a request: it has only the segments that
    /// are placed there.
    pub(crate) fn handle(
        &mut self,
        connection: &mut ModelConnection,
        request: v1::AppendRequest,
        at: Option<&str>,
    ) -> v1::AppendResponse {
        let elsewhere = |store: &Self, id: &SegmentId| {
            let segment = store.segments.get(id);
            segment.is_some_and(|segment| at.is_some_and(|at| segment.place.endpoint != at))
        };
        let mut response = v1::AppendResponse::default();
        match request.message.expect("a message") {
            Message::Hello(hello) => {
                let writer_kept_micros = self.writer_kept_micros;
                response.hello = Some(v1::Hello { writer_kept_micros, ..hello });
            }
            Message::Close(close) => {
                for slot in close.slots {
                    if let Some((writer, session, id)) = connection.slots.get(&slot)
                        && let Some(segment) = self.segments.get_mut(id)
                        && let Some(entry) = segment.writers.get_mut(writer)
                        && entry.session == *session
                    {
                        *entry = Entry { session: *session, forgotten: true, ..Entry::default() };
                    }
                    response.closed.push(slot);
                }
            }
            Message::Open(open) => {
                let writer = writer_id(&open.writer).expect("a writer id");
                let session = open.session.expect("a session").into();
                for segment in open.segments {
                    let id = segment.segment.expect("a segment").into();
                    let fresh = connection.slots.insert(segment.slot, (writer, session, id));
                    assert!(fresh.is_none(), "slot {} is used twice", segment.slot);
                    if elsewhere(self, &id) {
                        response.failures.push(failure(segment.slot, Reason::NotLeader, None));
                        continue;
                    }
                    self.open(writer, session, &segment, id, &mut response);
                }
            }
            Message::Blocks(blocks) => {
                for block in blocks.blocks {
                    let known = connection.slots.get(&block.slot).copied();
                    let (writer, session, id) = known.expect("blocks come behind their open");
                    if elsewhere(self, &id) {
                        response.failures.push(failure(block.slot, Reason::NotLeader, None));
                        continue;
                    }
                    self.append(writer, session, id, block, &mut response);
                }
            }
        }
        response
    }

    fn open(
        &mut self,
        writer: WriterId,
        session: WriterSession,
        open: &v1::OpenSegment,
        id: SegmentId,
        response: &mut v1::AppendResponse,
    ) {
        let Some(segment) = self.segments.get_mut(&id) else {
            response.failures.push(failure(open.slot, Reason::SegmentNotFound, None));
            return;
        };
        let forgotten = match segment.writers.get(&writer) {
            None => Some(Reason::WriterAbsent),
            Some(entry) => entry.forgotten.then_some(Reason::WriterExpired),
        };
        if let (true, Some(reason)) = (open.resuming, forgotten) {
            response.failures.push(failure(open.slot, reason, None));
            return;
        }
        if segment.truncated && !segment.writers.contains_key(&writer) {
            response.opened.push(segment.opened(open.slot, Entry::default()));
            return;
        }
        let entry = segment.writers.entry(writer).or_default();
        if session <= entry.session {
            response.failures.push(failure(open.slot, Reason::WriterFenced, Some(entry.session)));
            return;
        }
        entry.session = session;
        entry.forgotten = false;
        let entry = *entry;
        response.opened.push(segment.opened(open.slot, entry));
    }

    fn append(
        &mut self,
        writer: WriterId,
        session: WriterSession,
        id: SegmentId,
        block: v1::AppendBlock,
        response: &mut v1::AppendResponse,
    ) {
        let Some(segment) = self.segments.get_mut(&id).filter(|segment| !segment.truncated) else {
            response.failures.push(failure(block.slot, Reason::SegmentNotFound, None));
            return;
        };
        let Some(entry) = segment.writers.get_mut(&writer) else {
            response.failures.push(failure(block.slot, Reason::SessionBroken, None));
            return;
        };
        let refused = if entry.forgotten {
            Some(Reason::WriterExpired)
        } else if session != entry.session {
            Some(Reason::WriterFenced)
        } else if block.last_number <= entry.last {
            None
        } else if segment.successors.is_some() {
            Some(Reason::SegmentSealed)
        } else if block.previous_number != entry.last {
            Some(Reason::SessionBroken)
        } else if block.expected_offset.is_some_and(|e| e != segment.bytes.len() as u64) {
            Some(Reason::OffsetMismatch)
        } else {
            entry.last = block.last_number;
            entry.sum = block.sum;
            segment.bytes.extend_from_slice(&block.data);
            segment.events.extend(events_of(block.data));
            None
        };
        match refused {
            Some(reason) => {
                let mut failure = failure(block.slot, reason, Some(entry.session));
                failure.length = segment.bytes.len() as u64;
                response.failures.push(failure);
            }
            None => response.acks.push(v1::BlockAck {
                slot: block.slot,
                last_number: block.last_number,
                length: segment.bytes.len() as u64,
            }),
        }
    }
}

impl ModelSegment {
    fn opened(&self, slot: u32, entry: Entry) -> v1::SessionOpened {
        let successors = self.successors.iter().flatten().cloned().map(Into::into);
        let total = successors.clone().count();
        v1::SessionOpened {
            slot,
            last_number: entry.last,
            length: self.bytes.len() as u64,
            sealed: self.successors.is_some(),
            successors: successors.take(SUCCESSORS_TOLD).collect(),
            has_more_successors: total > SUCCESSORS_TOLD,
            sum: entry.sum,
            sum_after: 0,
        }
    }
}

pub(crate) fn failure(
    slot: u32,
    reason: Reason,
    current: Option<WriterSession>,
) -> v1::SessionFailure {
    v1::SessionFailure {
        slot,
        reason: reason as i32,
        message: format!("the model says {}", reason.as_str_name()),
        current: current.map(Into::into),
        ..v1::SessionFailure::default()
    }
}

fn events_of(mut data: Bytes) -> Vec<Stored> {
    let mut events = Vec::new();
    loop {
        let prefix = data.first_chunk::<8>().copied().unwrap_or_default();
        // Raw appends are no events.
        let Ok(Some(event)) = framing::take_event(&mut data) else { return events };
        let key = event.key_text().map(str::to_owned);
        let checksum = u32::from_le_bytes(*prefix.last_chunk().expect("eight bytes"));
        events.push(Stored { key, payload: event.payload, checksum });
    }
}
