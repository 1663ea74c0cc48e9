//! The container's planted bugs: each is caught by a check that passes without it.

use common::{
    Attempt, ContainerId, EventNumber, Fence, Incarnation, KeyRange, LogIndex, ScopedStream,
    SegmentId, SegmentNumber, StreamEpoch, StreamId, Term, WriterEpoch, WriterId, WriterSession,
    planted,
};
use replica::{Entry, Stamp, StateMachine, envelope};
use segmentstore::{
    Append, Command, CommandId, ContainerMachine, EventSum, Memory, Open, OpenSegment, Operation,
    Outcome, SegmentIdentity, SegmentKind, Settings,
};

const CONTAINER: ContainerId = ContainerId(2);
const WRITER: WriterId = WriterId(1);

fn segment() -> SegmentId {
    let stream = StreamId::new(Incarnation(1), 1);
    SegmentId { stream, epoch: StreamEpoch(0), number: SegmentNumber(0) }
}

/// A container with one segment, and the entries put to it.
struct Container {
    machine: ContainerMachine,
    index: u64,
}

impl Container {
    fn new() -> Self {
        let memory = Memory::new(&Settings::default());
        let mut container = Self { machine: ContainerMachine::new(CONTAINER, memory), index: 0 };
        let identity = SegmentIdentity {
            segment: segment(),
            stream: ScopedStream::new("demo", "hello").unwrap(),
            range: KeyRange::ALL,
            kind: SegmentKind::Stream,
            predecessors: Vec::new(),
        };
        container.command(1, Command::Create(Box::new(identity)));
        container
    }

    fn apply(&mut self, operation: &Operation, payload: &[u8]) -> Outcome {
        self.index += 1;
        let header = operation.encode();
        let (context, data) = envelope::encode(Stamp::default(), &[(&header, payload)]);
        let index = LogIndex(self.index);
        let entry = Entry::decode(CONTAINER.group(), index, Term(1), &context, &data).unwrap();
        let mut outcomes = Vec::new();
        self.machine.apply(&entry, &mut outcomes).unwrap();
        outcomes.remove(0)
    }

    fn command(&mut self, step: u32, command: Command) {
        let fence = Fence { incarnation: Incarnation(1), term: Term(1) };
        let outcome =
            self.apply(&Operation::Command(CommandId { fence, job: 1, step }, command), b"");
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    fn open(&mut self, attempt: u32) -> u64 {
        let operation = Operation::Open(Open {
            writer: WRITER,
            session: session(attempt),
            named: true,
            segments: vec![OpenSegment { segment: segment(), resuming: attempt > 1 }],
        });
        match self.apply(&operation, b"") {
            Outcome::Opened(answers) => answers[0].as_ref().unwrap().last_number.0,
            other => panic!("{other:?}"),
        }
    }

    /// Appends a block with one byte per event; whether it is acknowledged.
    fn append(&mut self, attempt: u32, previous: u64, last: u64) -> bool {
        let append = Append {
            segment: segment(),
            writer: WRITER,
            session: session(attempt),
            previous: EventNumber(previous),
            last: EventNumber(last),
            events: (last - previous) as u32,
            expected_offset: None,
            sum: EventSum::default(),
        };
        let payload: Vec<u8> = (previous + 1..=last).map(|number| number as u8).collect();
        let outcome = self.apply(&Operation::Append(append), &payload);
        matches!(outcome, Outcome::Appended { .. } | Outcome::Duplicate { .. })
    }

    fn length(&self) -> u64 {
        self.machine.view(segment()).unwrap().bounds.length.0
    }
}

fn session(attempt: u32) -> WriterSession {
    WriterSession { epoch: WriterEpoch(1), attempt: Attempt(attempt) }
}

/// Of three pipelined blocks the second is lost with its proposal; the writer goes on as it is told
/// to, until all nine events are acknowledged. Each is stored once then.
fn a_lost_block_loses_no_event() -> bool {
    let mut container = Container::new();
    container.open(1);
    container.append(1, 0, 3);
    let mut acknowledged = container.append(1, 6, 9);
    let mut attempt = 1;
    while !acknowledged {
        attempt += 1;
        let stored = container.open(attempt);
        acknowledged = container.append(attempt, stored, 9);
    }
    container.length() == 9
}

/// What a sealed segment tells as its length stays its length.
fn a_sealed_segment_keeps_its_length() -> bool {
    let mut container = Container::new();
    container.open(1);
    container.append(1, 0, 3);
    container.command(2, Command::Seal { segment: segment(), successors: Vec::new() });
    let duplicate = container.append(1, 0, 3);
    let appended = container.append(1, 3, 4);
    duplicate && !appended && container.length() == 3
}

#[test]
fn dedup_by_comparison_instead_of_the_chain_is_caught() {
    assert!(a_lost_block_loses_no_event());
    let _bug = planted::plant("dedup-by-comparison");
    assert!(!a_lost_block_loses_no_event());
}

#[test]
fn a_sealed_segment_that_still_accepts_is_caught() {
    assert!(a_sealed_segment_keeps_its_length());
    let _bug = planted::plant("sealed-segment-accepts");
    assert!(!a_sealed_segment_keeps_its_length());
}
