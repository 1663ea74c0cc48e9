//! A state machine that remembers what it was told, and a node on simulated disks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use common::clock::ManualClock;
use common::{ByteSize, Clock, GroupId, LogIndex, Rng, Term, WallTime};
use raft::eraftpb::Message;
use tokio::sync::oneshot;
use wal::{CrashOutcome, Log, LogSettings, SimDisk};

use crate::{
    Change, CheckpointJob, Entry, GroupHandle, GroupSpec, HostFailure, HostSettings, MemKv,
    Proposal, ProposeError, Reply, RestoreError, Slice, StartError, StateMachine, Step,
    UnknownOperation, Worker,
};

/// Operations that misbehave; every other number is stored.
pub(crate) const PANIC: u64 = u64::MAX;
pub(crate) const UNKNOWN: u64 = u64::MAX - 1;

pub(crate) const GROUP: GroupId = GroupId(2);

/// What all replicas of a group applied, by index; two that differ are found at once.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: Mutex<BTreeMap<u64, (Term, Vec<u64>)>>,
    /// What the machines say they still need of the log; 0 is nothing.
    live: AtomicU64,
    /// The last entry that was in the log when the machine began.
    pub(crate) begun: AtomicU64,
}

impl Journal {
    fn note(&self, index: LogIndex, term: Term, numbers: Vec<u64>) {
        let mut entries = self.entries.lock().unwrap();
        let known = entries.entry(index.0).or_insert_with(|| (term, numbers.clone()));
        assert_eq!(*known, (term, numbers), "replicas differ at entry {index}");
    }

    pub(crate) fn hold(&self, live: Option<LogIndex>) {
        self.live.store(live.map_or(0, |index| index.0), Ordering::SeqCst);
    }

    pub(crate) fn numbers(&self) -> Vec<u64> {
        let entries = self.entries.lock().unwrap();
        entries.values().flat_map(|(_, numbers)| numbers.clone()).collect()
    }
}

/// Stores numbers in the order in which they came, each once.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) stored: BTreeMap<u64, u64>,
    unsaved: BTreeSet<u64>,
    frozen: BTreeSet<u64>,
    pub(crate) payload_bytes: u64,
    journal: Arc<Journal>,
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

    fn apply(
        &mut self,
        entry: &Entry<'_>,
        outcomes: &mut Vec<Stored>,
    ) -> Result<(), UnknownOperation> {
        let mut numbers = Vec::new();
        for operation in entry.operations() {
            let number = u64::from_le_bytes(operation.header.try_into().unwrap());
            assert!(number != PANIC, "planned");
            if number == UNKNOWN {
                return Err(UnknownOperation::new("planned"));
            }
            let payload = entry.payload_bytes(&operation).unwrap_or_default();
            assert!(payload.iter().all(|byte| *byte == number as u8));
            self.payload_bytes += operation.payload.len() as u64;
            let next = self.stored.len() as u64;
            let place = *self.stored.entry(number).or_insert(next);
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
        assert!(self.frozen.is_empty(), "the set before was not copied whole");
        self.frozen = std::mem::take(&mut self.unsaved);
    }

    /// What is stored never changes: it needs no copy before.
    fn copy_frozen(&mut self, slice: &mut Slice) -> bool {
        while slice.has_room() {
            let Some(number) = self.frozen.pop_first() else { return true };
            slice.push(Change {
                key: number.to_be_bytes().to_vec(),
                value: Some(Bytes::copy_from_slice(&self.stored[&number].to_le_bytes())),
            });
        }
        self.frozen.is_empty()
    }

    fn begin(&mut self, last: LogIndex) {
        self.journal.begun.store(last.0, Ordering::SeqCst);
    }

    fn restore(
        &mut self,
        pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<(), RestoreError> {
        for (key, value) in pairs {
            let number = u64::from_be_bytes(key[..].try_into().unwrap());
            self.stored.insert(number, u64::from_le_bytes(value[..].try_into().unwrap()));
        }
        Ok(())
    }

    fn oldest_live_index(&self) -> Option<LogIndex> {
        match self.journal.live.load(Ordering::SeqCst) {
            0 => None,
            index => Some(LogIndex(index)),
        }
    }
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
    rng: Rng,
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
        let handle = worker.add_group(spec, Numbers::new(&self.journal))?;
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
        for fetch in step.fetches {
            let fetched = fetch.perform(&self.log);
            self.worker.fetched(fetched)?;
        }
        while self.log.prepare_files()? != wal::Prepared::Idle {}
        Ok(step.messages.into_iter().map(|(_, message)| message).collect())
    }

    pub(crate) fn save(&mut self, mut job: CheckpointJob) -> Result<(), HostFailure> {
        let result = job.run(&self.machine.kv);
        self.worker.checkpointed(job, result)
    }

    /// Steps until nothing is left to do but wait; messages go nowhere.
    pub(crate) fn settle(&mut self) -> Result<(), HostFailure> {
        loop {
            let step = self.step()?;
            let busy =
                step.more || step.wants_files || step.write.is_some() || step.checkpoint.is_some();
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
        let handle = self.handle.clone();
        let mut query = Box::pin(handle.query(|numbers| numbers.stored.clone()));
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
