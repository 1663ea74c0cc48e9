//! Apply against a reference that is as simple as it can be, with the machine saved and restored
//! at any moment.

use std::collections::BTreeMap;

use common::{EventNumber, Offset, SegmentId, WriterEpoch, WriterId, WriterSession};
use proptest::prelude::*;
use replica::StateMachine;

use crate::limits::{WRITER_STUB_TTL, WRITER_TTL, micros};
use crate::operation::{Append, Command, Operation};
use crate::outcome::{Expired, Opened, Outcome, Refusal};
use crate::testing::{
    Driver, HOUR, append, close, command, identity, open, segment, session, successor, writer,
};

#[derive(Debug, Clone, Default)]
struct Reference {
    segments: BTreeMap<SegmentId, Segment>,
    up: u64,
}

#[derive(Debug, Clone, Default)]
struct Segment {
    start: u64,
    bytes: Vec<u8>,
    sealed: bool,
    /// It was sealed with successors.
    goes_on: bool,
    deleted: bool,
    writers: BTreeMap<WriterId, Writer>,
}

#[derive(Debug, Clone)]
struct Writer {
    session: WriterSession,
    /// `None` once it is forgotten.
    last: Option<u64>,
    /// Of a forgotten one: whether it had stored something.
    stored: bool,
    broken: bool,
    named: bool,
    used: u64,
}

impl Reference {
    fn append(&mut self, block: &Append, payload: &[u8]) -> Result<(u64, bool), &'static str> {
        let up = self.up;
        let segment = self.segments.get_mut(&block.segment).ok_or("not found")?;
        if segment.deleted {
            return Err("not found");
        }
        let writer = segment.writers.get_mut(&block.writer).ok_or("broken")?;
        if block.session != writer.session {
            return Err(if block.session < writer.session { "fenced" } else { "broken" });
        }
        let forgotten = if writer.stored { "expired" } else { "broken" };
        let last = writer.last.ok_or(forgotten)?;
        if block.last.0 <= last {
            writer.used = up;
            return Ok((last, false));
        }
        if segment.sealed {
            return Err("sealed");
        }
        if writer.broken || block.previous.0 != last {
            writer.broken = true;
            return Err("broken");
        }
        if block.expected_offset.is_some_and(|o| o.0 != segment.bytes.len() as u64) {
            writer.broken = true;
            return Err("mismatch");
        }
        writer.used = up;
        writer.last = Some(block.last.0);
        segment.bytes.extend_from_slice(payload);
        Ok((block.last.0, true))
    }

    fn open(
        &mut self,
        id: SegmentId,
        who: WriterId,
        as_of: WriterSession,
        named: bool,
        resuming: bool,
    ) -> Result<u64, &'static str> {
        let up = self.up;
        let opens = |segment: &&mut Segment| !segment.deleted || segment.goes_on;
        let segment = self.segments.get_mut(&id).filter(opens).ok_or("not found")?;
        let known = segment.writers.get(&who);
        if known.is_some_and(|known| as_of <= known.session) {
            return Err("fenced");
        }
        if resuming && known.is_none() {
            return Err("absent");
        }
        if resuming && known.is_some_and(|known| known.last.is_none() && known.stored) {
            return Err("expired");
        }
        let last = known.and_then(|known| known.last);
        if last.is_none() && (segment.deleted || segment.sealed) {
            return Ok(0);
        }
        let last = last.unwrap_or(0);
        let entry = Writer {
            session: as_of,
            last: Some(last),
            stored: false,
            broken: false,
            named,
            used: up,
        };
        segment.writers.insert(who, entry);
        Ok(last)
    }

    fn close(&mut self, id: SegmentId, who: WriterId, as_of: WriterSession) {
        let Some(segment) = self.segments.get_mut(&id) else { return };
        let Some(writer) = segment.writers.get_mut(&who) else { return };
        if !writer.named && writer.last.is_some() && writer.session <= as_of {
            writer.session = as_of;
            writer.forget(self.up);
        }
    }

    fn delete_writer(&mut self, id: SegmentId, who: WriterId, as_of: WriterSession) {
        let Some(segment) = self.segments.get_mut(&id) else { return };
        let known = segment.writers.get(&who);
        let never = known.is_none() && (segment.sealed || segment.deleted);
        if never || known.is_some_and(|known| known.session >= as_of) {
            return;
        }
        let (named, used) = (true, self.up);
        let stub = Writer { session: as_of, last: None, stored: true, broken: false, named, used };
        segment.writers.insert(who, stub);
    }

    fn expire(&mut self) -> Expired {
        let mut expired = Expired::default();
        let up = self.up;
        for segment in self.segments.values_mut() {
            segment.writers.retain(|_, writer| {
                let idle = up - writer.used;
                if writer.last.is_none() {
                    let keep = idle < micros(WRITER_STUB_TTL);
                    expired.removed += u32::from(!keep);
                    return keep;
                }
                let expires = !writer.named || writer.last == Some(0);
                if expires && idle >= micros(WRITER_TTL) {
                    expired.forgotten += 1;
                    writer.forget(up);
                }
                true
            });
        }
        expired
    }
}

impl Writer {
    fn forget(&mut self, up: u64) {
        self.stored = self.last > Some(0);
        (self.last, self.used) = (None, up);
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Segment, writer, attempt, how the number chains, events, expected offset right or wrong.
    Append(u32, u128, u32, Chain, u64, Option<bool>),
    Open(u32, u128, u32, bool),
    Close(u32, u128, u32),
    DeleteWriter(u32, u128, u32),
    Create(u32),
    Seal(u32),
    Truncate(u32, u8),
    Delete(u32),
    Forget(u32),
    Pass(u64),
    Expire,
    Save,
    /// The process stops, and what was applied since the last save is applied again.
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum Chain {
    Continue,
    Again,
    Skip,
}

fn step() -> impl Strategy<Value = Step> {
    let number = 1_u32..4;
    let who = prop_oneof![Just(1_u128), Just(2), Just(100)];
    let chain =
        prop_oneof![8 => Just(Chain::Continue), 2 => Just(Chain::Again), 1 => Just(Chain::Skip)];
    let expected = prop_oneof![8 => Just(None), 1 => Just(Some(true)), 1 => Just(Some(false))];
    let attempt = 0_u32..3;
    prop_oneof![
        20 => (number.clone(), who.clone(), attempt.clone(), chain, 1_u64..4, expected)
            .prop_map(|(s, w, a, c, e, x)| Step::Append(s, w, a, c, e, x)),
        6 => (number.clone(), who.clone(), attempt.clone(), any::<bool>())
            .prop_map(|(s, w, a, r)| Step::Open(s, w, a, r)),
        2 => (number.clone(), who.clone(), attempt.clone())
            .prop_map(|(s, w, a)| Step::Close(s, w, a)),
        1 => (number.clone(), who, attempt).prop_map(|(s, w, a)| Step::DeleteWriter(s, w, a)),
        3 => number.clone().prop_map(Step::Create),
        1 => number.clone().prop_map(Step::Seal),
        2 => (number.clone(), any::<u8>()).prop_map(|(s, o)| Step::Truncate(s, o)),
        1 => number.clone().prop_map(Step::Delete),
        1 => number.prop_map(Step::Forget),
        2 => (0..3 * HOUR).prop_map(Step::Pass),
        2 => Just(Step::Expire),
        3 => Just(Step::Save),
        2 => Just(Step::Restart),
    ]
}

/// Machine and reference side by side.
struct Pair {
    driver: Driver,
    reference: Reference,
    /// Entries since the last save: index, stamps, operations.
    since_save: Vec<(u64, u64, u64, Operation, Vec<u8>, u64)>,
    steps: u32,
}

impl Pair {
    fn one(&mut self, operation: Operation, payload: &[u8]) -> Outcome {
        let outcome = self.driver.one(operation.clone(), payload);
        let driver = &self.driver;
        self.since_save.push((
            driver.index,
            driver.wall,
            driver.up,
            operation,
            payload.to_vec(),
            outcome.digest(),
        ));
        outcome
    }

    fn give(&mut self, order: Command) -> Outcome {
        self.steps += 1;
        self.one(Operation::Command(command(1, 1, self.steps), order), b"")
    }

    /// The session that a writer has or would open next, moved by `attempt` - 1.
    fn session_of(&self, number: u32, who: u128, attempt: u32) -> WriterSession {
        let segment = self.reference.segments.get(&segment(number));
        let known = segment.and_then(|segment| segment.writers.get(&writer(who)));
        let current = known.map_or_else(|| session(1, 1), |known| known.session);
        session(current.epoch.0, (current.attempt.0 + attempt).saturating_sub(1))
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Append(number, who, attempt, chain, events, expected) => {
                self.append(number, who, attempt, chain, events, expected);
            }
            Step::Open(number, who, attempt, resuming) => {
                let as_of = self.session_of(number, who, attempt);
                let outcome = self.one(open(number, who, as_of, resuming), b"");
                let Outcome::Opened(mut answers) = outcome else { panic!("{outcome:?}") };
                let named = who >= 100;
                let id = segment(number);
                let wanted = self.reference.open(id, writer(who), as_of, named, resuming);
                match (answers.remove(0), wanted) {
                    (Ok(Opened { last_number, length, successors, .. }), Ok(last)) => {
                        let segment = &self.reference.segments[&id];
                        assert_eq!(last_number.0, last);
                        assert_eq!(length.0, segment.bytes.len() as u64);
                        assert_eq!(successors.is_some(), segment.sealed);
                    }
                    (Err(refusal), Err(wanted)) => assert_eq!(name(&refusal), wanted),
                    (got, wanted) => panic!("{got:?} instead of {wanted:?}"),
                }
            }
            Step::Close(number, who, attempt) => {
                let as_of = self.session_of(number, who, attempt);
                assert_eq!(self.one(close(number, who, as_of), b""), Outcome::Closed);
                self.reference.close(segment(number), writer(who), as_of);
            }
            Step::DeleteWriter(number, who, attempt) => {
                // The fence of a deletion is an epoch of its own.
                let epoch = self.session_of(number, who, 1).epoch;
                let epoch = WriterEpoch((epoch.0 + u64::from(attempt)).saturating_sub(1));
                let (segment, writer) = (segment(number), writer(who));
                self.give(Command::DeleteWriter { segment, writer, epoch });
                self.reference.delete_writer(segment, writer, session(epoch.0, 0));
            }
            Step::Create(number) => {
                self.give(Command::Create(Box::new(identity(number))));
                self.reference.segments.entry(segment(number)).or_default();
            }
            Step::Seal(number) => {
                let segment = segment(number);
                let goes_on = number % 2 == 0;
                let successors = if goes_on { vec![successor(99)] } else { vec![] };
                self.give(Command::Seal { segment, successors });
                if let Some(segment) = self.reference.segments.get_mut(&segment)
                    && !segment.deleted
                {
                    (segment.sealed, segment.goes_on) = (true, goes_on);
                }
            }
            Step::Truncate(number, offset) => {
                let segment = segment(number);
                self.give(Command::Truncate { segment, offset: Offset(offset.into()) });
                if let Some(segment) = self.reference.segments.get_mut(&segment)
                    && u64::from(offset) <= segment.bytes.len() as u64
                {
                    segment.start = segment.start.max(offset.into());
                }
            }
            Step::Delete(number) => {
                let segment = segment(number);
                self.give(Command::Delete { segment });
                if let Some(segment) = self.reference.segments.get_mut(&segment) {
                    segment.deleted = true;
                }
            }
            Step::Forget(number) => {
                let segment = segment(number);
                self.give(Command::Forget { segment });
                if self.reference.segments.get(&segment).is_some_and(|s| s.deleted) {
                    self.reference.segments.remove(&segment);
                }
            }
            Step::Pass(micros) => {
                self.driver.up += micros;
                self.driver.wall += micros;
                self.reference.up = self.driver.up;
            }
            Step::Expire => {
                let due = self.driver.machine.due_writers(self.driver.up, 100);
                let outcome = self.one(Operation::Expire(due), b"");
                assert_eq!(outcome, Outcome::Expired(self.reference.expire()));
            }
            Step::Save => {
                self.driver.save();
                self.since_save.clear();
            }
            Step::Restart => self.restart(),
        }
    }

    fn append(
        &mut self,
        number: u32,
        who: u128,
        attempt: u32,
        chain: Chain,
        events: u64,
        expected: Option<bool>,
    ) {
        let as_of = self.session_of(number, who, attempt);
        let reference = self.reference.segments.get(&segment(number));
        let known = reference.and_then(|segment| segment.writers.get(&writer(who)));
        let last = known.and_then(|known| known.last).unwrap_or(0);
        let previous = match chain {
            Chain::Continue => last,
            Chain::Again => last.saturating_sub(events),
            Chain::Skip => last + 1,
        };
        let length = reference.map_or(0, |segment| segment.bytes.len() as u64);
        let mut block = append(number, who, as_of, (previous, previous + events));
        block.expected_offset = expected.map(|right| Offset(length + u64::from(!right)));
        let payload: Vec<u8> = (0..events * 3).map(|i| (self.driver.index + i) as u8).collect();
        let outcome = self.one(Operation::Append(block), &payload);
        let wanted = self.reference.append(&block, &payload);
        let length = self.reference.segments.get(&segment(number)).map_or(0, |s| s.bytes.len());
        let length = Offset(length as u64);
        match wanted {
            Ok((last, stored)) => {
                let last_number = EventNumber(last);
                let wanted = match stored {
                    true => Outcome::Appended { last_number, length },
                    false => Outcome::Duplicate { last_number, length },
                };
                assert_eq!(outcome, wanted);
            }
            Err(wanted) => match outcome {
                Outcome::Refused(refusal) => assert_eq!(name(&refusal), wanted),
                other => panic!("{other:?} instead of {wanted}"),
            },
        }
    }

    fn restart(&mut self) {
        let (wall, up, index) = (self.driver.wall, self.driver.up, self.driver.index);
        self.driver.machine = self.driver.restored();
        for (index, wall, up, operation, payload, digest) in self.since_save.clone() {
            (self.driver.index, self.driver.wall, self.driver.up) = (index - 1, wall, up);
            let outcome = self.driver.one(operation, &payload);
            assert_eq!(outcome.digest(), digest, "replay came to another outcome");
        }
        (self.driver.index, self.driver.wall, self.driver.up) = (index, wall, up);
    }

    fn check(&self) {
        let mut oldest_lost = None;
        for (id, segment) in &self.reference.segments {
            let view = self.driver.machine.view(*id);
            assert_eq!(view.is_none(), segment.deleted);
            let Some(view) = view else { continue };
            assert_eq!(view.bounds.sealed, segment.sealed);
            let known = segment.writers.values().filter(|writer| writer.last.is_some());
            assert_eq!(view.writers, known.count());
            let (start, bytes) = self.driver.bytes_of(id.number.0);
            assert_eq!(start.0, segment.start);
            assert_eq!(bytes, segment.bytes[segment.start as usize..]);
            let first = view.shared.lock().extents.items().front().map(|extent| extent.index);
            oldest_lost = oldest_lost.into_iter().chain(first).min();
        }
        assert_eq!(self.driver.machine.oldest_live_index(), oldest_lost);
    }
}

fn name(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::SegmentNotFound { .. } => "not found",
        Refusal::WriterFenced { .. } => "fenced",
        Refusal::WriterExpired => "expired",
        Refusal::WriterAbsent => "absent",
        Refusal::SegmentSealed { .. } => "sealed",
        Refusal::SessionBroken { .. } => "broken",
        Refusal::OffsetMismatch { .. } => "mismatch",
        _ => "something else",
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn apply_agrees_with_the_reference_through_saves_and_restarts(
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let mut pair = Pair {
            driver: Driver::new(),
            reference: Reference::default(),
            since_save: Vec::new(),
            steps: 0,
        };
        for number in 1..3 {
            pair.run(Step::Create(number));
            pair.run(Step::Open(number, 1, 1, false));
        }
        for step in steps {
            pair.run(step);
            pair.check();
        }
        pair.run(Step::Restart);
        pair.check();
    }
}
