//! What the tests of this crate share: names for things, and a machine with entries put to it.

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{
    Attempt, ContainerId, EventNumber, Fence, GroupId, Incarnation, KeyRange, LogIndex, Offset,
    ScopedStream, SegmentId, SegmentNumber, StreamEpoch, StreamId, Term, WallTime, WriterEpoch,
    WriterId, WriterSession,
};
use lts::ObjectName;
use replica::{Change, Entry, Stamp, StateMachine, envelope};

use crate::container::{ContainerMachine, Memory};
use crate::extent::ObjectExtent;
use crate::identity::{CommandId, SegmentIdentity, SegmentKind, Successor};
use crate::operation::{Append, Close, Command, EventSum, Open, OpenSegment, Operation};
use crate::outcome::{Opened, Outcome, Refusal};
use crate::settings::Settings;

pub(crate) const CONTAINER: ContainerId = ContainerId(2);
pub(crate) const SECOND: u64 = 1_000_000;
pub(crate) const HOUR: u64 = 3_600 * SECOND;

pub(crate) fn segment(number: u32) -> SegmentId {
    SegmentId {
        stream: StreamId::new(Incarnation(1), 7),
        epoch: StreamEpoch(0),
        number: SegmentNumber(number),
    }
}

pub(crate) fn session(epoch: u64, attempt: u32) -> WriterSession {
    WriterSession { epoch: WriterEpoch(epoch), attempt: Attempt(attempt) }
}

pub(crate) fn writer(number: u128) -> WriterId {
    WriterId(number)
}

pub(crate) fn identity(number: u32) -> SegmentIdentity {
    SegmentIdentity {
        segment: segment(number),
        stream: ScopedStream::new("demo", "hello").unwrap(),
        range: KeyRange::ALL,
        kind: SegmentKind::Stream,
        predecessors: vec![],
    }
}

pub(crate) fn successor(number: u32) -> Successor {
    Successor {
        segment: segment(number),
        range: KeyRange::ALL,
        container: CONTAINER,
        predecessors: vec![segment(1)],
    }
}

pub(crate) fn command(term: u64, job: u64, step: u32) -> CommandId {
    CommandId { fence: Fence { incarnation: Incarnation(1), term: Term(term) }, job, step }
}

pub(crate) fn append(number: u32, who: u128, as_of: WriterSession, numbers: (u64, u64)) -> Append {
    Append {
        segment: segment(number),
        writer: writer(who),
        session: as_of,
        previous: EventNumber(numbers.0),
        last: EventNumber(numbers.1),
        events: (numbers.1 - numbers.0) as u32,
        expected_offset: None,
        sum: EventSum::default(),
    }
}

pub(crate) fn open(number: u32, who: u128, as_of: WriterSession, resuming: bool) -> Operation {
    Operation::Open(Open {
        writer: writer(who),
        session: as_of,
        named: (100..1_000).contains(&who),
        segments: vec![OpenSegment { segment: segment(number), resuming }],
    })
}

pub(crate) fn close(number: u32, who: u128, as_of: WriterSession) -> Operation {
    let segments = vec![segment(number)];
    Operation::Close(Close { writer: writer(who), session: as_of, segments })
}

/// The log entries of a container, so that extents can be followed, and its machine.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) machine: ContainerMachine,
    pub(crate) index: u64,
    pub(crate) wall: u64,
    pub(crate) up: u64,
    pub(crate) log: BTreeMap<LogIndex, Bytes>,
    /// The objects that rounds and compactions made, and the last index that is in a round.
    pub(crate) objects: BTreeMap<ObjectName, Bytes>,
    pub(crate) archived: u64,
    /// The saved state.
    pub(crate) saved: BTreeMap<Vec<u8>, Bytes>,
}

impl Driver {
    pub(crate) fn new() -> Self {
        Self::with(&Settings::default())
    }

    pub(crate) fn with(settings: &Settings) -> Self {
        Self {
            machine: ContainerMachine::new(CONTAINER, Memory::new(settings)),
            index: 0,
            wall: 1_000 * SECOND,
            up: 0,
            log: BTreeMap::new(),
            objects: BTreeMap::new(),
            archived: 0,
            saved: BTreeMap::new(),
        }
    }

    /// With segment 1 created by step 1 of job 1.
    pub(crate) fn with_segment() -> Self {
        let mut driver = Self::new();
        driver.give(command(1, 1, 1), Command::Create(Box::new(identity(1)))).unwrap();
        driver
    }

    /// Applies one entry.
    pub(crate) fn entry(&mut self, operations: &[(Operation, &[u8])]) -> Vec<Outcome> {
        self.index += 1;
        let (context, payload) = self.encoded(operations);
        self.apply(&context, &payload)
    }

    /// The same as it comes from long-term storage, without its payload.
    pub(crate) fn archived_entry(&mut self, operations: &[(Operation, &[u8])]) -> Vec<Outcome> {
        self.index += 1;
        let (context, payload) = self.encoded(operations);
        let (group, index) = (GroupId(CONTAINER.0), LogIndex(self.index));
        let entry = Entry::archived(group, index, Term(1), &context, payload.len()).unwrap();
        self.apply_entry(&entry)
    }

    fn encoded(&self, operations: &[(Operation, &[u8])]) -> (Bytes, Bytes) {
        let headers: Vec<Bytes> = operations.iter().map(|(o, _)| o.encode()).collect();
        let parts: Vec<(&[u8], &[u8])> =
            headers.iter().zip(operations).map(|(h, (_, p))| (&h[..], *p)).collect();
        let stamp = Stamp { wall: WallTime(self.wall), up_micros: self.up };
        envelope::encode(stamp, &parts)
    }

    /// Applies the next entry as it stands in the log.
    pub(crate) fn apply(&mut self, context: &Bytes, payload: &Bytes) -> Vec<Outcome> {
        let index = LogIndex(self.index);
        let entry = Entry::decode(GroupId(CONTAINER.0), index, Term(1), context, payload).unwrap();
        self.log.insert(index, payload.clone());
        self.apply_entry(&entry)
    }

    fn apply_entry(&mut self, entry: &Entry<'_>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        self.machine.apply(entry, &mut outcomes).unwrap();
        assert_eq!(outcomes.len(), entry.len());
        self.machine.round_done();
        outcomes
    }

    pub(crate) fn one(&mut self, operation: Operation, payload: &[u8]) -> Outcome {
        self.entry(&[(operation, payload)]).remove(0)
    }

    pub(crate) fn append(&mut self, append: Append, payload: &[u8]) -> Outcome {
        self.one(Operation::Append(append), payload)
    }

    pub(crate) fn open(&mut self, operation: Operation) -> Result<Opened, Refusal> {
        match self.one(operation, b"") {
            Outcome::Opened(mut answers) => answers.remove(0),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn give(
        &mut self,
        id: CommandId,
        command: Command,
    ) -> Result<crate::outcome::Done, Refusal> {
        match self.one(Operation::Command(id, command), b"") {
            Outcome::Done(done) => Ok(done),
            Outcome::Refused(refusal) => Err(*refusal),
            other => panic!("{other:?}"),
        }
    }

    /// Saves what changed since the last time.
    pub(crate) fn save(&mut self) {
        for Change { key, value } in self.machine.freeze_whole() {
            match value {
                Some(value) => self.saved.insert(key, value),
                None => self.saved.remove(&key),
            };
        }
    }

    /// A machine that starts from what was saved.
    pub(crate) fn restored(&self) -> ContainerMachine {
        let mut machine = ContainerMachine::new(CONTAINER, Memory::new(&Settings::default()));
        let mut pairs =
            self.saved.iter().map(|(key, value)| (Bytes::from(key.clone()), value.clone()));
        machine.restore(&mut pairs).unwrap();
        machine
    }

    /// The bytes of a segment from its start, as its extents say.
    pub(crate) fn bytes_of(&self, number: u32) -> (Offset, Vec<u8>) {
        let view = self.machine.view(segment(number)).unwrap();
        let state = view.shared.lock();
        let (mut bytes, mut at) = (Vec::new(), None);
        for ObjectExtent { offset, bytes: length, rested } in state.objects.items() {
            assert_eq!(*offset, at.unwrap_or(*offset), "extents have no gaps");
            let end = (rested.offset + length) as usize;
            let found = &self.objects[&rested.object][rested.offset as usize..end];
            assert_eq!(crc32fast::hash(found), rested.crc);
            bytes.extend_from_slice(found);
            at = Some(offset.plus(u64::from(*length)));
        }
        for extent in state.extents.items() {
            assert_eq!(extent.offset, at.unwrap_or(extent.offset), "extents have no gaps");
            let entry = &self.log[&extent.index];
            let end = (extent.start + extent.bytes) as usize;
            bytes.extend_from_slice(&entry[extent.start as usize..end]);
            at = Some(extent.end());
        }
        let at = at.unwrap_or(view.bounds.start);
        let skip = bytes.len() - (view.bounds.length.0 - view.bounds.start.0) as usize;
        assert_eq!(at, view.bounds.length);
        (view.bounds.start, bytes.split_off(skip))
    }
}

mod container;
mod objects;
pub(crate) mod packed;
pub(crate) use container::{FakeContainer, FakeLog};
pub(crate) use objects::{object, reference};
