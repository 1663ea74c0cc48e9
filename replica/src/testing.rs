//! A state machine that remembers what it was told, and a node on simulated disks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use common::clock::ManualClock;
use common::{ByteSize, Clock, GroupId, LogIndex, Rng, Term, WallTime};
use lts::ObjectName;
use raft::eraftpb::Message;
use tokio::sync::oneshot;
use wal::{CrashOutcome, Log, LogSettings, SimDisk};

use crate::{
    Change, CheckpointJob, Entry, GroupHandle, GroupSpec, HostFailure, HostSettings, MemKv,
    NotArchived, OwnedRun, Owners, Piece, Proposal, ProposeError, Reply, Rested, RestoreError,
    Slice, StartError, StateMachine, Step, Storage, Tiered, UnknownOperation, Worker, Workshop,
};

/// Operations that misbehave; every other number is stored.
pub(crate) const PANIC: u64 = u64::MAX;
pub(crate) const UNKNOWN: u64 = u64::MAX - 1;
/// Added to a number that was stored: forgets its payload.
pub(crate) const FORGET: u64 = 1 << 62;

pub(crate) const GROUP: GroupId = GroupId(2);

/// What all replicas of a group applied, by index; two that differ are found at once.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: Mutex<BTreeMap<u64, (Term, Vec<u64>)>>,
    /// What the machines say they still need of the log; 0 is nothing.
    live: AtomicU64,
    /// The last entry that was in the log when the machine began.
    pub(crate) begun: AtomicU64,
    /// A number whose payload machines do not own up to; 0 is none.
    pub(crate) disowned: AtomicU64,
    /// What machines panic in.
    broken: Mutex<Option<&'static str>>,
}

impl Journal {
    fn note(&self, index: LogIndex, term: Term, numbers: Vec<u64>) {
        let mut entries = self.entries.lock().unwrap();
        let known = entries.entry(index.0).or_insert_with(|| (term, numbers.clone()));
        assert_eq!(*known, (term, numbers), "replicas differ at entry {index}");
    }

    /// From now on machines panic while they do this.
    pub(crate) fn break_down(&self, doing: Option<&'static str>) {
        *self.broken.lock().unwrap() = doing;
    }

    fn doing(&self, what: &'static str) {
        let broken = *self.broken.lock().unwrap();
        assert!(broken != Some(what), "broken while {what}");
    }

    pub(crate) fn hold(&self, live: Option<LogIndex>) {
        self.live.store(live.map_or(0, |index| index.0), Ordering::SeqCst);
    }

    /// The numbers of the entries up to this one.
    pub(crate) fn entries_up_to(&self, end: LogIndex) -> Vec<u64> {
        let entries = self.entries.lock().unwrap();
        entries.range(..=end.0).flat_map(|(_, (_, numbers))| numbers.clone()).collect()
    }

    pub(crate) fn numbers(&self) -> Vec<u64> {
        let entries = self.entries.lock().unwrap();
        entries.values().flat_map(|(_, numbers)| numbers.clone()).collect()
    }
}

/// Where the payload of a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Location {
    Log {
        index: LogIndex,
        start: u32,
        bytes: u32,
    },
    Object {
        rested: Rested,
        bytes: u32,
    },
    /// Forgotten before it was archived, as a replay from long-term storage finds out.
    Nowhere,
    /// Lost with its entry, before that was archived.
    Lost {
        entry: LogIndex,
        bytes: u32,
    },
}

/// Stores numbers in the order in which they came, each once, and knows where their payload is.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) stored: BTreeMap<u64, u64>,
    pub(crate) locations: BTreeMap<u64, Location>,
    dead: Vec<ObjectName>,
    unsaved: BTreeSet<u64>,
    frozen: BTreeSet<u64>,
    pub(crate) payload_bytes: u64,
    journal: Arc<Journal>,
    /// Shows the state from outside, where a test wants to see it.
    pub(crate) shown: Option<Arc<Mutex<Shown>>>,
}

/// The state as it was after the last round of applied entries.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) stored: BTreeMap<u64, u64>,
    pub(crate) locations: BTreeMap<u64, Location>,
}

impl Numbers {
    pub(crate) fn new(journal: &Arc<Journal>) -> Self {
        Self { journal: journal.clone(), ..Self::default() }
    }
}

/// A number and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) number: u64,
    pub(crate) place: u64,
}

impl StateMachine for Numbers {
    type Outcome = Stored;

    fn fresh(&self) -> Self {
        Self { shown: self.shown.clone(), ..Self::new(&self.journal) }
    }

    fn apply(
        &mut self,
        entry: &Entry<'_>,
        outcomes: &mut Vec<Stored>,
    ) -> Result<(), UnknownOperation> {
        self.journal.doing("applying");
        let mut numbers = Vec::new();
        for operation in entry.operations() {
            let number = u64::from_le_bytes(operation.header.try_into().unwrap());
            assert!(number != PANIC, "planned");
            if number == UNKNOWN {
                return Err(UnknownOperation::new("planned"));
            }
            if number & FORGET != 0 {
                self.forget(number - FORGET);
                outcomes.push(Stored { number, place: 0 });
                numbers.push(number);
                continue;
            }
            let payload = entry.payload_bytes(&operation).unwrap_or_default();
            assert!(payload.iter().all(|byte| *byte == number as u8));
            self.payload_bytes += operation.payload.len() as u64;
            let next = self.stored.len() as u64;
            let new = !self.stored.contains_key(&number);
            let place = *self.stored.entry(number).or_insert(next);
            if new && !operation.payload.is_empty() {
                let start = operation.payload.start as u32;
                let bytes = operation.payload.len() as u32;
                self.locations.insert(number, Location::Log { index: entry.index, start, bytes });
            }
            self.unsaved.insert(number);
            outcomes.push(Stored { number, place });
            numbers.push(number);
        }
        self.journal.note(entry.index, entry.term, numbers);
        Ok(())
    }

    fn digest(outcome: &Stored) -> u64 {
        outcome.number ^ outcome.place.rotate_left(32)
    }

    fn freeze(&mut self) {
        self.journal.doing("freezing");
        assert!(self.frozen.is_empty(), "the set before was not copied whole");
        self.frozen = std::mem::take(&mut self.unsaved);
    }

    /// A location that changes before it is copied is copied as it is then: what lies in between is
    /// replayed, and comes to the same.
    fn copy_frozen(&mut self, slice: &mut Slice) -> bool {
        while slice.has_room() {
            let Some(number) = self.frozen.pop_first() else { return true };
            slice.push(Change {
                key: number.to_be_bytes().to_vec(),
                value: Some(saved(self.stored[&number], self.locations.get(&number))),
            });
        }
        self.frozen.is_empty()
    }

    fn begin(&mut self, last: LogIndex) {
        self.journal.doing("beginning");
        self.journal.begun.store(last.0, Ordering::SeqCst);
    }

    fn restore(
        &mut self,
        pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<(), RestoreError> {
        self.journal.doing("restoring");
        for (key, value) in pairs {
            let number = u64::from_be_bytes(key[..].try_into().unwrap());
            self.stored.insert(number, u64::from_le_bytes(value[..8].try_into().unwrap()));
            if let Some(location) = location(&value[8..]) {
                self.locations.insert(number, location);
            }
        }
        Ok(())
    }

    fn owners(&self) -> Box<dyn Owners> {
        let disowned = self.journal.disowned.load(Ordering::SeqCst);
        let mut runs = self.in_log();
        runs.retain(|run| disowned == 0 || run.owner != u128::from(disowned));
        Box::new(Payloads { runs, journal: self.journal.clone() })
    }

    fn tiered(&mut self, round: &Tiered) -> Result<(), NotArchived> {
        match self.rest(round) {
            Some(number) => Err(NotArchived::new(format!("the payload of {number}"))),
            None => Ok(()),
        }
    }

    fn taken_over(&mut self, round: &Tiered) {
        self.rest(round);
    }

    fn lost(&mut self, entries: std::ops::RangeInclusive<LogIndex>) {
        for OwnedRun { index, bytes, owner, .. } in self.in_log() {
            if index <= *entries.end() {
                assert!(entries.contains(&index), "what is before the lost entries rests by now");
                self.locations.insert(owner as u64, Location::Lost { entry: index, bytes });
                self.unsaved.insert(owner as u64);
            }
        }
    }

    fn take_dead_objects(&mut self) -> Vec<ObjectName> {
        std::mem::take(&mut self.dead)
    }

    fn resting(&self, each: &mut dyn FnMut(Piece)) {
        for (number, location) in &self.locations {
            let (rested, bytes) = match *location {
                Location::Object { rested, bytes } => (rested, bytes),
                Location::Lost { entry, bytes } => (Rested::lost(GROUP, entry, 0), bytes),
                _ => continue,
            };
            each(Piece { owner: u128::from(*number), position: 0, rested, bytes });
        }
    }

    fn round_done(&mut self) {
        if let Some(shown) = &self.shown {
            let (stored, locations) = (self.stored.clone(), self.locations.clone());
            *shown.lock().unwrap() = Shown { stored, locations };
        }
    }

    fn oldest_live_index(&self) -> Option<LogIndex> {
        match self.journal.live.load(Ordering::SeqCst) {
            0 => None,
            index => Some(LogIndex(index)),
        }
    }
}

struct Payloads {
    runs: Vec<OwnedRun>,
    journal: Arc<Journal>,
}

impl Owners for Payloads {
    fn owned(self: Box<Self>, range: std::ops::RangeInclusive<LogIndex>) -> Vec<OwnedRun> {
        self.journal.doing("making a round");
        self.runs.into_iter().filter(|run| range.contains(&run.index)).collect()
    }
}

impl Numbers {
    /// Takes over where payload of the round rests; one of those that have no place in it.
    fn rest(&mut self, round: &Tiered) -> Option<u64> {
        let mut nowhere = None;
        for OwnedRun { index, start, bytes, owner } in self.in_log() {
            if index <= *round.range.end() {
                let location = match round.locate(index, start, bytes) {
                    Some(rested) => Location::Object { rested, bytes },
                    None => {
                        nowhere = Some(owner as u64);
                        Location::Nowhere
                    }
                };
                self.locations.insert(owner as u64, location);
                self.unsaved.insert(owner as u64);
            }
        }
        let unused = round.objects.iter().map(|object| object.name);
        let unused: Vec<ObjectName> = unused.filter(|name| !self.refers_to(*name)).collect();
        self.dead.extend(unused);
        nowhere
    }

    /// Payload in the log, by place.
    fn in_log(&self) -> Vec<OwnedRun> {
        let run = |(number, location): (&u64, &Location)| match *location {
            Location::Log { index, start, bytes } => {
                Some(OwnedRun { index, start, bytes, owner: u128::from(*number) })
            }
            _ => None,
        };
        let mut runs: Vec<OwnedRun> = self.locations.iter().filter_map(run).collect();
        runs.sort_unstable();
        runs
    }

    fn refers_to(&self, name: ObjectName) -> bool {
        let there = |location: &Location| matches!(location, Location::Object { rested, .. } if rested.object == name);
        self.locations.values().any(there)
    }

    fn forget(&mut self, number: u64) {
        let Some(location) = self.locations.remove(&number) else { return };
        self.unsaved.insert(number);
        if let Location::Object { rested, .. } = location
            && !self.refers_to(rested.object)
        {
            self.dead.push(rested.object);
        }
    }
}

fn saved(place: u64, location: Option<&Location>) -> Bytes {
    let mut out = place.to_le_bytes().to_vec();
    match location {
        None => {}
        Some(Location::Nowhere) => out.push(2),
        Some(Location::Lost { entry, bytes }) => {
            out.push(3);
            out.extend_from_slice(&entry.0.to_le_bytes());
            out.extend_from_slice(&bytes.to_le_bytes());
        }
        Some(Location::Log { index, start, bytes }) => {
            out.push(0);
            out.extend_from_slice(&index.0.to_le_bytes());
            out.extend_from_slice(&start.to_le_bytes());
            out.extend_from_slice(&bytes.to_le_bytes());
        }
        Some(Location::Object { rested, bytes }) => {
            out.push(1);
            out.extend_from_slice(&rested.object.encode());
            for word in [rested.offset, rested.crc, *bytes] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
    }
    out.into()
}

fn location(value: &[u8]) -> Option<Location> {
    let (kind, rest) = value.split_first()?;
    let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
    Some(match kind {
        0 => {
            let index = LogIndex(u64::from_le_bytes(rest[..8].try_into().unwrap()));
            Location::Log { index, start: word(8), bytes: word(12) }
        }
        1 => {
            let object = ObjectName::decode(rest[..26].try_into().unwrap());
            let rested = Rested { object, offset: word(26), crc: word(30) };
            Location::Object { rested, bytes: word(34) }
        }
        3 => {
            let entry = LogIndex(u64::from_le_bytes(rest[..8].try_into().unwrap()));
            Location::Lost { entry, bytes: word(8) }
        }
        _ => Location::Nowhere,
    })
}

pub(crate) fn proposal(number: u64, payload: usize) -> Proposal<Stored> {
    Proposal::new(number.to_le_bytes().to_vec(), vec![number as u8; payload])
}

pub(crate) type Answer = oneshot::Receiver<Result<Stored, ProposeError>>;

pub(crate) fn propose(
    handle: &GroupHandle<Numbers>,
    number: u64,
    payload: usize,
) -> Result<Answer, ProposeError> {
    let (reply, answer) = oneshot::channel();
    let proposal = proposal(number, payload).reply(Reply::Once(reply));
    handle.propose(proposal).map_err(|refused| refused.error)?;
    Ok(answer)
}

/// The machine under a node: what survives its crashes.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) disk: SimDisk,
    pub(crate) kv: MemKv,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) settings: HostSettings,
    pub(crate) journal: Arc<Journal>,
    pub(crate) storage: Option<Storage>,
    pub(crate) shown: Option<Arc<Mutex<Shown>>>,
    pub(crate) rng: Rng,
}

/// A running node with one group.
pub(crate) struct Node {
    pub(crate) machine: Machine,
    pub(crate) worker: Worker,
    pub(crate) log: Log,
    pub(crate) handle: GroupHandle<Numbers>,
}

pub(crate) fn small_settings() -> HostSettings {
    HostSettings {
        // Every write is an event of its own.
        inline_write_max: ByteSize(0),
        log: LogSettings {
            budget: ByteSize::mib(4),
            file_size: ByteSize::kib(128),
            entry_max: ByteSize::kib(64),
            files_ahead: 1,
            group_share_percent: 100,
            block_size: ByteSize::kib(32),
            ..LogSettings::default()
        },
        ..HostSettings::default()
    }
}

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::from_seed(seed);
        Self {
            disk: SimDisk::new(rng.fork("disk")),
            kv: MemKv::new(),
            clock: Arc::new(ManualClock::new(WallTime(1_000_000))),
            settings: small_settings(),
            journal: Arc::default(),
            storage: None,
            shown: None,
            rng,
        }
    }

    pub(crate) fn open(&mut self) -> Result<Node, StartError> {
        self.open_as(GroupSpec::alone(GROUP))
    }

    pub(crate) fn open_as(&mut self, spec: GroupSpec) -> Result<Node, StartError> {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let log_rng = self.rng.fork("log");
        let disk = Arc::new(self.disk.clone());
        let (log, _) = Log::open(disk, self.settings.log.clone(), clock.clone(), log_rng)?;
        let kv = Arc::new(self.kv.clone());
        let rng = self.rng.fork("worker");
        let mut worker = Worker::new(self.settings.clone(), log.clone(), kv, clock, rng);
        if let Some(storage) = &self.storage {
            worker.use_storage(storage.clone());
        }
        let numbers = Numbers { shown: self.shown.clone(), ..Numbers::new(&self.journal) };
        let handle = worker.add_group(spec, numbers)?;
        Ok(Node { machine: self.clone(), worker, log, handle })
    }

    /// The power goes; only what was durable, and what chance kept, is there afterwards.
    pub(crate) fn crash(&mut self, outcome: CrashOutcome) {
        self.disk.crash(outcome);
        self.disk.restart();
        self.kv.crash(&mut self.rng);
    }
}

impl Node {
    pub(crate) fn step(&mut self) -> Result<Step, HostFailure> {
        self.worker.step(self.machine.clock.monotonic())
    }

    /// Does what a step left to others.
    pub(crate) fn perform(&mut self, step: Step) -> Result<Vec<Message>, HostFailure> {
        if let Some(mut write) = step.write {
            let result = write.perform();
            self.log.finish_write(write, result)?;
        }
        if let Some(job) = step.checkpoint {
            self.save(job)?;
        }
        for job in step.storage {
            let done = job.perform(&self.workshop());
            self.worker.storage_done(done)?;
        }
        for fetch in step.fetches {
            let fetched = fetch.perform(&self.log);
            self.worker.fetched(fetched)?;
        }
        while self.log.prepare_files()? != wal::Prepared::Idle {}
        Ok(step.messages.into_iter().map(|(_, message)| message).collect())
    }

    pub(crate) fn workshop(&self) -> Workshop {
        let storage = self.machine.storage.clone().expect("only groups with storage have jobs");
        Workshop { storage, log: self.log.clone(), kv: Arc::new(self.machine.kv.clone()) }
    }

    pub(crate) fn save(&mut self, mut job: CheckpointJob) -> Result<(), HostFailure> {
        let result = job.run(&self.machine.kv);
        self.worker.checkpointed(job, result)
    }

    /// Steps until nothing is left to do but wait; messages go nowhere.
    pub(crate) fn settle(&mut self) -> Result<(), HostFailure> {
        loop {
            let step = self.step()?;
            let busy = step.more
                || step.wants_files
                || step.write.is_some()
                || step.checkpoint.is_some()
                || !step.storage.is_empty();
            self.perform(step)?;
            if !busy {
                return Ok(());
            }
        }
    }

    pub(crate) fn store(&mut self, number: u64) -> Stored {
        let mut answer = propose(&self.handle, number, 100).unwrap();
        self.settle().unwrap();
        answer.try_recv().unwrap().unwrap()
    }

    /// What the state machine holds.
    pub(crate) fn stored(&mut self) -> BTreeMap<u64, u64> {
        self.ask(|numbers| numbers.stored.clone())
    }

    pub(crate) fn ask<R: Send + 'static>(
        &mut self,
        ask: impl FnOnce(&Numbers) -> R + Send + 'static,
    ) -> R {
        let handle = self.handle.clone();
        let mut query = Box::pin(handle.query(ask));
        let mut context = Context::from_waker(Waker::noop());
        assert!(query.as_mut().poll(&mut context).is_pending());
        self.settle().unwrap();
        match query.as_mut().poll(&mut context) {
            Poll::Ready(stored) => stored.unwrap(),
            Poll::Pending => panic!("the query was not answered"),
        }
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        self.machine.clock.advance(duration);
        self.settle().unwrap();
    }
}
