//! Bytes on their way into objects, against plain bytes: through rounds and compactions that are
//! made while entries are applied, saves, restarts, and a rebuild from long-term storage.

use std::collections::{BTreeMap, BTreeSet};

use lts::ObjectName;
use proptest::prelude::*;
use replica::{Change, Compacted, OwnedRun, Slice, StateMachine, Tiered};

use crate::operation::{Command, Operation};
use crate::testing::{Driver, append, command, identity, open, segment, session};

#[derive(Debug, Clone)]
enum Step {
    /// To which segments, as bits, and how many bytes.
    Append(u8, u8),
    /// So many rounds of one append each: what makes small extents.
    Trickle(u8, u8),
    Truncate(u32, u8),
    /// Deletes and creates another one.
    Delete(u32),
    /// Whose the bytes are, up to which part of what is not archived.
    Ask(u8),
    /// Commits the round of the last answer, in objects of so many bytes.
    Tier(u8),
    Plan,
    Compact,
    Freeze,
    Copy(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0_u32..3;
    prop_oneof![
        8 => (1_u8..8, 1_u8..40).prop_map(|(which, bytes)| Step::Append(which, bytes)),
        2 => (1_u8..8, 1_u8..80).prop_map(|(which, rounds)| Step::Trickle(which, rounds)),
        2 => (number.clone(), any::<u8>()).prop_map(|(number, part)| Step::Truncate(number, part)),
        1 => number.prop_map(Step::Delete),
        3 => any::<u8>().prop_map(Step::Ask),
        3 => any::<u8>().prop_map(Step::Tier),
        2 => Just(Step::Plan),
        2 => Just(Step::Compact),
        2 => Just(Step::Freeze),
        4 => (1_u8..6).prop_map(Step::Copy),
        1 => Just(Step::Restart),
    ]
}

#[derive(Debug, Clone)]
enum Event {
    Entry(Vec<(Operation, Vec<u8>)>),
    Tiered(Tiered),
    Compacted(Compacted),
}

/// The machine under test, and a twin that is never restarted.
struct World {
    tested: Driver,
    twin: Driver,
    /// Of the segments that are not deleted, by their number: start and all bytes.
    model: BTreeMap<u32, (u64, Vec<u8>)>,
    /// The numbers that the three segments have now.
    numbers: [u32; 3],
    sent: u64,
    /// All entries from index 1 on, and the objects that died with each.
    events: Vec<(Event, Vec<ObjectName>)>,
    asked: Option<(u64, Vec<OwnedRun>)>,
    planned: Option<Compacted>,
    /// The index up to which the saved state reaches, and the set being copied.
    saved: u64,
    frozen: Option<(u64, Vec<Change>)>,
    known: BTreeSet<ObjectName>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            tested: Driver::new(),
            twin: Driver::new(),
            model: BTreeMap::new(),
            numbers: [1, 2, 3],
            sent: 0,
            events: Vec::new(),
            asked: None,
            planned: None,
            saved: 0,
            frozen: None,
            known: BTreeSet::new(),
        };
        [1, 2, 3].into_iter().for_each(|number| world.create(number));
        world
    }

    fn take(&mut self, event: Event) {
        let dead = take_event(&mut self.tested, &event, false);
        assert_eq!(take_event(&mut self.twin, &event, false), dead, "both say the same");
        let objects = match &event {
            Event::Entry(_) => &vec![],
            Event::Tiered(round) => &round.objects,
            Event::Compacted(compacted) => &compacted.objects,
        };
        self.known.extend(objects.iter().map(|object| object.name));
        let living = self.tested.machine.marks.objects.live();
        let died = self.known.extract_if(.., |name| !living.contains_key(name));
        assert!(died.eq(dead.iter().copied()), "an object is reported when nothing refers to it");
        self.events.push((event, dead));
    }

    fn entry(&mut self, operations: Vec<(Operation, Vec<u8>)>) {
        self.take(Event::Entry(operations));
    }

    fn give(&mut self, order: Command) {
        let id = command(1, self.events.len() as u64, 1);
        self.entry(vec![(Operation::Command(id, order), vec![])]);
    }

    fn create(&mut self, number: u32) {
        self.give(Command::Create(Box::new(identity(number))));
        self.entry(vec![(open(number, 1, session(1, 1), false), vec![])]);
        self.model.insert(number, (0, Vec::new()));
    }

    /// Twice to each segment in one entry, so that its bytes are side by side or not.
    fn append(&mut self, which: u8, bytes: u8) {
        let mut operations = Vec::new();
        for turn in 0..2 {
            for (bit, number) in self.numbers.into_iter().enumerate() {
                if which & 1 << bit == 0 {
                    continue;
                }
                let mut block = append(number, 1, session(1, 1), (0, 0));
                let sent = &mut self.model.get_mut(&number).unwrap().1;
                let payload: Vec<u8> =
                    (0..bytes).map(|at| (self.sent as u8).wrapping_mul(31) ^ at).collect();
                block.previous.0 = sent.len() as u64;
                sent.extend_from_slice(&payload);
                block.last.0 = sent.len() as u64;
                operations.push((Operation::Append(block), payload));
                self.sent += 1 + turn;
            }
        }
        self.entry(operations);
    }

    fn tier(&mut self, object_bytes: usize) {
        let Some((last, owned)) = self.asked.take() else { return };
        let round = self.tested.round(last, owned, object_bytes);
        self.take(Event::Tiered(round));
    }

    fn ask(&mut self, last: u64) {
        self.asked = Some((last, self.tested.owned(last)));
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Append(which, bytes) => self.append(which, bytes),
            Step::Trickle(which, rounds) => {
                for _ in 0..rounds {
                    self.append(which, 1);
                    self.ask(self.tested.index);
                    self.tier(1_000);
                }
            }
            Step::Truncate(which, part) => {
                let segment = segment(self.numbers[which as usize]);
                let (start, bytes) = self.model.get_mut(&self.numbers[which as usize]).unwrap();
                *start += (bytes.len() as u64 - *start) * u64::from(part) / 255;
                let offset = common::Offset(*start);
                self.give(Command::Truncate { segment, offset });
            }
            Step::Delete(which) => {
                let number = &mut self.numbers[which as usize];
                let segment = segment(std::mem::replace(number, *number + 3));
                let next = *number;
                self.model.remove(&segment.number.0);
                self.give(Command::Delete { segment });
                self.give(Command::Forget { segment });
                self.create(next);
            }
            Step::Ask(part) => {
                let open = self.tested.index - self.tested.archived;
                if open > 0 {
                    self.ask(self.tested.archived + 1 + (open - 1) * u64::from(part) / 255);
                }
            }
            Step::Tier(object_bytes) => self.tier(object_bytes.into()),
            Step::Plan => {
                if let Some(plan) = self.tested.machine.compaction() {
                    self.planned = Some(self.tested.copied(&plan));
                }
            }
            Step::Compact => {
                if let Some(compacted) = self.planned.take() {
                    self.take(Event::Compacted(compacted));
                }
            }
            Step::Freeze => {
                while self.frozen.is_some() {
                    self.copy(usize::MAX);
                }
                self.tested.machine.freeze();
                self.frozen = Some((self.tested.index, Vec::new()));
            }
            Step::Copy(room) => self.copy(room.into()),
            Step::Restart => self.restart(),
        }
    }

    fn copy(&mut self, room: usize) {
        let Some((index, mut changes)) = self.frozen.take() else { return };
        let mut slice = Slice::of(room);
        let all = self.tested.machine.copy_frozen(&mut slice);
        changes.extend_from_slice(slice.changes());
        if !all {
            self.frozen = Some((index, changes));
            return;
        }
        for Change { key, value } in changes {
            match value {
                Some(value) => self.tested.saved.insert(key, value),
                None => self.tested.saved.remove(&key),
            };
        }
        self.saved = index;
    }

    fn restart(&mut self) {
        self.frozen = None;
        let index = std::mem::replace(&mut self.tested.index, self.saved);
        self.tested.machine = self.tested.restored();
        for (event, dead) in &self.events[self.saved as usize..] {
            assert_eq!(take_event(&mut self.tested, event, false), *dead, "replayed otherwise");
        }
        assert_eq!(self.tested.index, index);
    }

    /// The bytes, and that all that is derived is what it is derived from.
    fn check(&mut self) {
        self.twin.objects.clone_from(&self.tested.objects);
        for (number, (start, bytes)) in &self.model {
            for driver in [&self.tested, &self.twin] {
                let (found_start, found) = driver.bytes_of(*number);
                assert_eq!((found_start.0, &found[..]), (*start, &bytes[*start as usize..]));
            }
            let record = &self.tested.machine.segments[&segment(*number)].record;
            assert_eq!((record.start.0, record.length.0), (*start, bytes.len() as u64));
            let shared = |driver: &Driver| driver.machine.view(segment(*number)).unwrap().shared;
            let (tested, twin) = (shared(&self.tested), shared(&self.twin));
            let (tested, twin) = (tested.lock(), twin.lock());
            assert_eq!(tested.objects.items(), twin.objects.items());
            assert_eq!(tested.extents.items(), twin.extents.items());
            assert!(tested.small_pairs_are_right() && twin.small_pairs_are_right());
            assert_eq!(tested.log_bytes() + tested.object_bytes(), bytes.len() as u64 - start);
        }
        let (tested, twin) = (&self.tested.machine, &self.twin.machine);
        let (tested_marks, twin_marks) = (&tested.marks, &twin.marks);
        assert_eq!(tested_marks.objects.live(), twin_marks.objects.live());
        assert!(tested_marks.in_log.keys().eq(twin_marks.in_log.keys()));
        assert_eq!(tested_marks.scattered, twin_marks.scattered);
        assert_eq!(tested.oldest_live_index(), twin.oldest_live_index());
    }

    /// What a machine comes to that has the rounds alone, and then the rest of the log.
    fn rebuild(&self) {
        let mut rebuilt = Driver::new();
        rebuilt.objects.clone_from(&self.tested.objects);
        let archived = self.tested.archived;
        for (event, _) in &self.events[..archived as usize] {
            take_event(&mut rebuilt, event, true);
        }
        let rounds = self.events[archived as usize..].iter().filter_map(|(event, _)| match event {
            Event::Tiered(round) => Some(round),
            _ => None,
        });
        rounds.for_each(|round| rebuilt.machine.taken_over(round));
        assert_eq!(rebuilt.machine.oldest_live_index(), None, "all of it rests");
        rebuilt.save();
        rebuilt.machine = rebuilt.restored();
        for number in self.numbers {
            let Some(view) = rebuilt.machine.view(segment(number)) else { continue };
            let (start, found) = rebuilt.bytes_of(number);
            let (now, bytes) = &self.model[&number];
            assert!(start.0 <= *now, "nothing is lost that is there now");
            assert_eq!(found, bytes[start.0 as usize..view.bounds.length.0 as usize]);
        }
        for (event, _) in &self.events[archived as usize..] {
            match event {
                Event::Tiered(_) => rebuilt.index += 1,
                event => drop(take_event(&mut rebuilt, event, false)),
            }
        }
        for (number, (start, bytes)) in &self.model {
            let (found_start, found) = rebuilt.bytes_of(*number);
            assert_eq!((found_start.0, &found[..]), (*start, &bytes[*start as usize..]));
        }
    }
}

/// Applies the next entry; the objects that died with it.
fn take_event(driver: &mut Driver, event: &Event, archived: bool) -> Vec<ObjectName> {
    match event {
        Event::Entry(operations) => {
            let operations: Vec<_> =
                operations.iter().map(|(operation, p)| (operation.clone(), &p[..])).collect();
            match archived {
                true => driver.archived_entry(&operations),
                false => driver.entry(&operations),
            };
        }
        Event::Tiered(round) => {
            driver.index += 1;
            driver.machine.tiered(round).unwrap();
        }
        Event::Compacted(compacted) => {
            driver.index += 1;
            driver.machine.compacted(compacted);
        }
    }
    driver.machine.take_dead_objects()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn bytes_stay_the_same_wherever_they_rest(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new();
        for step in steps.into_iter().chain([Step::Restart]) {
            world.run(step);
            world.check();
        }
        world.rebuild();
    }
}
