//! A frozen set is that of its moment, whatever is applied while it is copied.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use replica::{Change, Slice, StateMachine};

use crate::identity::{AttributeUpdate, Expected};
use crate::operation::{Command, Operation};
use crate::testing::{
    Driver, HOUR, SECOND, append, command, identity, open, segment, session, writer,
};

type Pairs = BTreeMap<Vec<u8>, Bytes>;

#[derive(Debug, Clone)]
enum Step {
    Create(u32),
    Open(u32, u8),
    /// How many blocks.
    Append(u32, u8, u8),
    Truncate(u32, u8),
    Seal(u32),
    Delete(u32),
    Forget(u32),
    Attribute(u32, u8),
    Wait,
    Expire(u32, u8),
    Freeze,
    /// How many changes.
    Copy(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let (number, who) = (1_u32..4, 1_u8..5);
    prop_oneof![
        2 => number.clone().prop_map(Step::Create),
        4 => (number.clone(), who.clone()).prop_map(|(n, w)| Step::Open(n, w)),
        6 => (number.clone(), who.clone(), any::<u8>()).prop_map(|(n, w, c)| Step::Append(n, w, c)),
        2 => (number.clone(), any::<u8>()).prop_map(|(n, part)| Step::Truncate(n, part)),
        1 => number.clone().prop_map(Step::Seal),
        1 => number.clone().prop_map(Step::Delete),
        2 => number.clone().prop_map(Step::Forget),
        1 => (number.clone(), any::<u8>()).prop_map(|(n, v)| Step::Attribute(n, v)),
        1 => Just(Step::Wait),
        3 => (number, who).prop_map(|(n, w)| Step::Expire(n, w)),
        3 => Just(Step::Freeze),
        6 => (1_u8..6).prop_map(Step::Copy),
    ]
}

/// The machine under test, and a twin that copies each frozen set at once.
struct Twins {
    sliced: Driver,
    whole: Driver,
    /// What is copied of the set so far.
    copied: Vec<Change>,
    copying: bool,
    saved: Pairs,
    attempt: u32,
    sent: BTreeMap<(u32, u8), u64>,
    job: u64,
}

impl Twins {
    fn new() -> Self {
        Self {
            sliced: Driver::new(),
            whole: Driver::new(),
            copied: Vec::new(),
            copying: false,
            saved: Pairs::new(),
            attempt: 0,
            sent: BTreeMap::new(),
            job: 1,
        }
    }

    fn apply(&mut self, operations: &[(Operation, &[u8])]) {
        assert_eq!(self.sliced.entry(operations), self.whole.entry(operations));
    }

    fn give(&mut self, order: Command) {
        self.job += 1;
        self.apply(&[(Operation::Command(command(1, self.job, 1), order), b"")]);
    }

    fn append(&mut self, number: u32, who: u8, blocks: u8) {
        for _ in 0..blocks {
            let sent = self.sent.entry((number, who)).or_default();
            let numbers = (*sent, *sent + 1);
            *sent += 1;
            let as_of = session(1, self.attempt);
            let block = append(number, who.into(), as_of, numbers);
            self.apply(&[(Operation::Append(block), b"some bytes")]);
            for twin in [&mut self.sliced, &mut self.whole] {
                twin.wall += SECOND;
            }
        }
    }

    fn copy(&mut self, room: usize) {
        if !self.copying {
            return;
        }
        let mut slice = Slice::of(room);
        let all = self.sliced.machine.copy_frozen(&mut slice);
        let count = slice.changes().len();
        // A segment's own part: the record, the last chunk of both kinds of extents and of each level
        // of time.
        assert!(count <= room.saturating_add(4), "{count} changes in a slice for {room}");
        self.copied.extend_from_slice(slice.changes());
        if all {
            self.copying = false;
            put(&mut self.saved, std::mem::take(&mut self.copied));
            assert_eq!(self.saved, self.whole.saved, "the state of the freeze");
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Create(number) => self.give(Command::Create(Box::new(identity(number)))),
            Step::Open(number, who) => {
                self.attempt += 1;
                self.sent.insert((number, who), 0);
                self.apply(&[(open(number, who.into(), session(1, self.attempt), false), b"")]);
            }
            Step::Append(number, who, blocks) => self.append(number, who, blocks),
            Step::Truncate(number, part) => {
                let view = self.sliced.machine.view(segment(number));
                let Some(bounds) = view.map(|view| view.bounds) else { return };
                let living = bounds.length.0 - bounds.start.0;
                let offset = bounds.start.plus(living * u64::from(part) / 255);
                self.give(Command::Truncate { segment: segment(number), offset });
            }
            Step::Seal(number) => {
                self.give(Command::Seal { segment: segment(number), successors: vec![] });
            }
            Step::Delete(number) => self.give(Command::Delete { segment: segment(number) }),
            Step::Forget(number) => self.give(Command::Forget { segment: segment(number) }),
            Step::Attribute(number, value) => {
                let update = AttributeUpdate {
                    name: Bytes::from_static(b"k"),
                    expected: Expected::Anything,
                    value: Some(Bytes::copy_from_slice(&[value])),
                };
                let segment = segment(number);
                self.give(Command::UpdateAttributes { segment, updates: vec![update] });
            }
            Step::Wait => {
                for twin in [&mut self.sliced, &mut self.whole] {
                    twin.up += 2 * HOUR;
                }
            }
            Step::Expire(number, who) => {
                let writers = vec![(segment(number), writer(who.into()))];
                self.apply(&[(Operation::Expire(writers), b"")]);
            }
            Step::Freeze => {
                // Only once the set before was copied whole.
                self.copy(usize::MAX);
                self.sliced.machine.freeze();
                self.whole.save();
                self.copying = true;
            }
            Step::Copy(room) => self.copy(room.into()),
        }
    }
}

fn put(saved: &mut Pairs, changes: Vec<Change>) {
    for Change { key, value } in changes {
        match value {
            Some(value) => saved.insert(key, value),
            None => saved.remove(&key),
        };
    }
}

proptest! {
    #[test]
    fn what_is_applied_while_a_set_is_copied_does_not_reach_into_it(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut twins = Twins::new();
        for step in steps.into_iter().chain([Step::Freeze, Step::Copy(255)]) {
            twins.take(step);
        }
    }
}
