//! A controller that is killed anywhere in any workflow, and what comes of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{KeyRange, Offset, SegmentId, StreamId, Term, WriterEpoch, WriterId};
use replica::StateMachine;

use crate::jobs::pending_steps;
use crate::machine::{ControllerMachine, SegmentKey, State, WriterMode};
use crate::operation::Operation;
use crate::outcome::Accepted;
use crate::settings::SEGMENTS_PER_STEP;
use crate::stores::{StoreAction, StoreCommand, StoreError};
use crate::testing::{FakeSegment, FakeStores, NOW, create, introduction, name, scale};

/// More segments than one step takes.
const MANY: u32 = SEGMENTS_PER_STEP + 8;

/// What the workflows are tried on.
#[derive(Debug, Clone, Copy)]
enum Act {
    CreateMany,
    GrowAndTruncate,
    /// A store refuses, and does it when it is asked again.
    TruncateRefusedAndAgain,
    /// A name of a stream, and of one with segments that were truncated away.
    DeleteWriter(&'static str),
    Seal,
    TruncateSealed,
    DeleteSealed,
    CreateFew,
    ScaleAndTruncateAway,
    DeleteUnsealed,
}

const PLAY: [Act; 11] = [
    Act::CreateMany,
    Act::GrowAndTruncate,
    Act::TruncateRefusedAndAgain,
    Act::DeleteWriter("demo/many"),
    Act::Seal,
    Act::TruncateSealed,
    Act::DeleteSealed,
    Act::CreateFew,
    Act::ScaleAndTruncateAway,
    Act::DeleteWriter("demo/few"),
    Act::DeleteUnsealed,
];

/// What survives a controller: its log (operations, and the scales put in by hand between them)
/// and the stores.
struct World {
    log: Vec<Logged>,
    stores: FakeStores,
    machine: ControllerMachine,
    saved: BTreeMap<Vec<u8>, Bytes>,
    term: u64,
    /// How many moments have passed, and the one at which the controller is killed.
    moment: usize,
    kill_at: Option<usize>,
    /// The killed leader's last command, still on its way.
    late: Option<StoreCommand>,
    restore: bool,
}

enum Logged {
    Operation(Bytes),
    Scale,
}

impl World {
    fn new(kill_at: Option<usize>, restore: bool) -> Self {
        let mut world = Self {
            log: Vec::new(),
            stores: FakeStores::default(),
            machine: ControllerMachine::new(),
            saved: BTreeMap::new(),
            term: 1,
            moment: 0,
            kill_at,
            late: None,
            restore,
        };
        introduction().iter().for_each(|operation| _ = world.propose(operation));
        world
    }

    fn propose(&mut self, operation: &Operation) -> Accepted {
        self.log.push(Logged::Operation(operation.encode()));
        let accepted = self.machine.apply_operation(operation, NOW).unwrap();
        self.save();
        accepted
    }

    fn save(&mut self) {
        for change in self.machine.freeze_whole() {
            match change.value {
                Some(value) => _ = self.saved.insert(change.key, value),
                None => _ = self.saved.remove(&change.key),
            }
        }
    }

    /// A moment at which the controller may be killed; `true`: it was, and another one leads.
    fn killed(&mut self, in_flight: Option<&StoreCommand>) -> bool {
        self.moment += 1;
        if self.kill_at != Some(self.moment) {
            return false;
        }
        self.term += 1;
        self.late = in_flight.cloned();
        let before = self.machine.state().clone();
        self.machine = ControllerMachine::new();
        if self.restore {
            let pairs = self.saved.iter().map(|(k, v)| (Bytes::copy_from_slice(k), v.clone()));
            self.machine.restore(&mut pairs.collect::<Vec<_>>().into_iter()).unwrap();
        } else {
            self.replay();
        }
        assert_eq!(self.machine.state(), &before, "nothing that counts was in memory only");
        true
    }

    fn replay(&mut self) {
        for logged in &self.log {
            match logged {
                Logged::Operation(bytes) => {
                    let operation = Operation::decode(bytes).unwrap();
                    self.machine.apply_operation(&operation, NOW).unwrap();
                }
                Logged::Scale => _ = merge_all(&mut self.machine, None),
            }
        }
    }

    /// Drives every job to its end, killed or not.
    fn drive(&mut self) {
        while !self.machine.jobs().is_empty() {
            self.drive_once();
        }
    }

    fn drive_once(&mut self) {
        for step in pending_steps(&self.machine, Term(self.term), 8, |_| true) {
            let mut answers = Vec::new();
            for command in &step.commands {
                // Before the store hears of it: it arrives late, after the next leader's.
                if self.killed(Some(command)) {
                    return;
                }
                let answer = self.stores.carry_out(command);
                self.deliver_late(command);
                match answer {
                    Ok(answer) => answers.push(answer),
                    Err(StoreError::Refused(problem)) => {
                        self.propose(&step.failed(problem));
                        self.killed(None);
                        return;
                    }
                    Err(error) => panic!("{error}"),
                }
                // After the store did it, before anything is recorded.
                if self.killed(None) {
                    return;
                }
            }
            let done = step.done(&answers).unwrap();
            self.propose(&done);
            // After the step is recorded. What the deposed leader would record again is nothing.
            if self.killed(None) {
                let again = self.machine.apply_operation(&done, NOW).unwrap();
                assert!(matches!(again, Accepted::StepPassed { .. }), "{again:?}");
                return;
            }
        }
    }

    /// A deposed leader's command that reaches the store behind the new leader's.
    fn deliver_late(&mut self, newer: &StoreCommand) {
        let late = self.late.take_if(|late| late.container == newer.container);
        if let Some(late) = late {
            let refused = self.stores.carry_out(&late);
            assert!(matches!(refused, Err(StoreError::StaleFence { .. })), "{refused:?}");
        }
    }

    fn act(&mut self, act: Act) {
        let (many, few) = (name("demo/many"), name("demo/few"));
        match act {
            Act::CreateMany => _ = self.propose(&create("demo/many", MANY)),
            Act::CreateFew => _ = self.propose(&create("demo/few", 3)),
            Act::GrowAndTruncate => {
                let stream = self.machine.stream(&many).unwrap();
                let (id, keys) = (stream.id, stream.current.clone());
                let segments: Vec<_> = keys.iter().map(|key| stream.segment_id(*key)).collect();
                segments.iter().for_each(|segment| self.stores.grow(*segment, 100));
                self.truncate(id, &keys, 40);
            }
            Act::TruncateRefusedAndAgain => {
                let stream = self.machine.stream(&many).unwrap();
                let (id, keys) = (stream.id, stream.current.clone());
                let lost = stream.segment_id(keys[keys.len() / 2]);
                self.stores.grow(lost, 60);
                self.truncate(id, &keys, 70);
                self.killed(None);
                self.drive();
                self.stores.grow(lost, 100);
                self.truncate(id, &keys, 70);
            }
            Act::DeleteWriter(stream) => {
                for writer in ["kept", "w"] {
                    self.propose(&register(stream, writer));
                }
                self.propose(&delete_writer(stream, "w"));
                self.killed(None);
                self.drive();
                self.check_deleted(stream);
            }
            Act::Seal => _ = self.propose(&Operation::SealStream { stream: many }),
            Act::TruncateSealed => {
                let stream = self.machine.stream(&many).unwrap();
                let (id, keys) = (stream.id, stream.current.clone());
                self.truncate(id, &keys, 100);
            }
            Act::DeleteSealed => _ = self.propose(&Operation::DeleteStream { stream: many }),
            Act::ScaleAndTruncateAway => {
                let (id, merged) = merge_all(&mut self.machine, Some(&self.stores));
                self.log.push(Logged::Scale);
                self.save();
                self.truncate(id, &[merged], 0);
            }
            Act::DeleteUnsealed => _ = self.propose(&Operation::DeleteStream { stream: few }),
        }
        self.killed(None);
        self.drive();
        self.check_heads();
    }

    /// Where no job runs, nothing lies before a stream's head.
    fn check_heads(&self) {
        for stream in self.machine.state().streams() {
            for (key, offset) in &stream.head {
                let segment = self.stores.segment(stream.segment_id(*key)).unwrap();
                assert!(segment.start >= *offset, "bytes below {offset} are left");
            }
        }
    }

    /// The name is free, and every segment was told, those that were truncated away, too.
    fn check_deleted(&self, stream: &str) {
        let found = self.machine.stream(&name(stream)).unwrap();
        let names: Vec<_> = found.writers.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["kept"]);
        let id = WriterId::of_name(found.id, &"w".parse().unwrap());
        let told: std::collections::BTreeSet<_> = (found.segments.keys())
            .chain(found.removed.keys())
            .map(|key| self.stores.segment(found.segment_id(*key)).unwrap().writers[&id])
            .collect();
        let kept = found.writers.values().next().unwrap().epoch;
        assert!(told.len() == 1 && told.first() > Some(&kept), "one epoch, above all before");
    }

    fn truncate(&mut self, stream: StreamId, keys: &[SegmentKey], offset: u64) {
        let cut = keys.iter().map(|(epoch, number)| (*epoch, *number, Offset(offset))).collect();
        self.propose(&Operation::TruncateStream { stream, cut });
    }
}

fn register(stream: &str, writer: &str) -> Operation {
    let (create, mode) = (true, WriterMode::Replay);
    Operation::RegisterWriter {
        stream: name(stream),
        writer: writer.parse().unwrap(),
        create,
        mode,
    }
}

fn delete_writer(stream: &str, writer: &str) -> Operation {
    let (stream, writer) = (name(stream), writer.parse().unwrap());
    Operation::DeleteWriter { stream, writer, epoch: WriterEpoch(0) }
}

/// Merges the segments of `demo/few` into one.
fn merge_all(
    machine: &mut ControllerMachine,
    stores: Option<&FakeStores>,
) -> (StreamId, SegmentKey) {
    let stream = machine.stream(&name("demo/few")).unwrap();
    let (id, keys) = (stream.id, stream.current.clone());
    (id, scale(machine, stores, id, &keys, &[KeyRange::ALL], 3)[0])
}

/// The controller's state and the stores' after an act.
type End = (State, BTreeMap<SegmentId, FakeSegment>);

/// Plays everything; checks after each act that it ended as it does without a kill.
fn play(kill_at: Option<usize>, restore: bool) -> (usize, Vec<End>) {
    let mut world = World::new(kill_at, restore);
    let mut ends = Vec::new();
    for act in PLAY {
        world.act(act);
        let stores = world.stores.inner();
        ends.push((world.machine.state().clone(), stores.segments.clone()));
    }
    let inner = world.stores.inner();
    assert!(inner.segments.is_empty(), "everything was deleted and forgotten");
    assert_eq!(inner.forgotten.len(), MANY as usize + 4);
    (world.moment, ends)
}

#[test]
fn a_controller_killed_at_any_moment_of_any_workflow_completes_each_step_exactly_once() {
    let (moments, undisturbed) = play(None, false);
    assert!(moments > 60, "{moments} moments");
    for kill_at in 1..=moments {
        let (_, ends) = play(Some(kill_at), kill_at % 2 == 0);
        for ((act, end), expected) in PLAY.iter().zip(&ends).zip(&undisturbed) {
            assert!(end == expected, "{act:?} ends otherwise when killed at moment {kill_at}");
        }
    }
}

#[test]
fn a_step_names_each_segment_once_and_each_container_once() {
    let mut world = World::new(None, false);
    world.propose(&create("demo/many", MANY));
    let mut seen = std::collections::BTreeSet::new();
    let mut steps = 0;
    while let [step] = &pending_steps(&world.machine, Term(1), 8, |_| true)[..] {
        assert_eq!(step.step, steps);
        steps += 1;
        let containers: Vec<_> = step.commands.iter().map(|command| command.container).collect();
        assert!(containers.is_sorted() && containers.len() == 4, "{containers:?}");
        for command in &step.commands {
            let StoreAction::Create(segments) = &command.action else { panic!("{command:?}") };
            assert!(segments.iter().all(|new| seen.insert(new.segment)));
            assert_eq!((command.step, command.fence.term), (step.step, Term(1)));
        }
        let answers = vec![crate::stores::StoreAnswer::default(); step.commands.len()];
        world.propose(&step.done(&answers).unwrap());
    }
    assert_eq!((steps, seen.len()), (2, MANY as usize));
}

#[test]
fn a_seal_that_leaves_a_length_out_is_not_recorded() {
    let mut world = World::new(None, false);
    world.propose(&create("demo/few", 2));
    world.drive();
    world.propose(&Operation::SealStream { stream: name("demo/few") });
    let step = pending_steps(&world.machine, Term(1), 8, |_| true).remove(0);
    let answers = vec![crate::stores::StoreAnswer::default(); step.commands.len()];
    assert!(matches!(step.done(&answers), Err(StoreError::Unavailable(_))));
}

#[test]
fn a_new_leader_commands_with_a_higher_fence() {
    let mut world = World::new(None, false);
    world.propose(&create("demo/few", 1));
    let old = pending_steps(&world.machine, Term(7), 8, |_| true).remove(0);
    let new = pending_steps(&world.machine, Term(8), 8, |_| true).remove(0);
    assert!(old.commands[0].fence < new.commands[0].fence);
    world.stores.carry_out(&new.commands[0]).unwrap();
    let refused = world.stores.carry_out(&old.commands[0]);
    assert!(matches!(refused, Err(StoreError::StaleFence { .. })));
}

#[test]
fn steps_are_given_for_as_many_jobs_as_wanted_and_only_those() {
    let mut world = World::new(None, false);
    for stream in ["demo/a", "demo/b", "demo/c"] {
        world.propose(&create(stream, 1));
    }
    let first = pending_steps(&world.machine, Term(1), 2, |_| true);
    assert_eq!(first.len(), 2);
    let busy = first[0].job;
    let others = pending_steps(&world.machine, Term(1), 8, |job| job != busy);
    assert_eq!(others.len(), 2);
    assert!(others.iter().all(|step| step.job != busy));
}
