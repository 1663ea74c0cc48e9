//! A log on a simulated disk beside its model.
//!
//! The model remembers what every block was going to make true. After a crash the log must be in
//! the state of some block that is not older than the newest one reported durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::clock::ManualClock;
use common::{ByteSize, GroupId, LogIndex, Rng, Term};

use crate::{
    AppendError, Batch, BlockSeq, ConfRef, Disk, EntryRef, GroupState, HardState, Log, LogSettings,
    LostEntries, OpenError, Prepared, ReadError, Recovered, SimDisk, Truncated,
};

/// One group as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct GroupModel {
    pub(super) hard_state: HardState,
    pub(super) truncated: Truncated,
    pub(super) conf: Option<(u64, Vec<u8>)>,
    pub(super) tombstone: Option<Vec<u8>>,
    pub(super) last: u64,
    pub(super) last_term: u64,
    /// Term and bytes; the kind and where the context ends are told by these.
    pub(super) entries: BTreeMap<u64, (u64, Vec<u8>)>,
}

pub(super) type Model = BTreeMap<GroupId, GroupModel>;

/// What one step does.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Adds entries behind the last one minus `back`, each of `bytes`.
    Append {
        group: u64,
        back: u64,
        count: usize,
        bytes: usize,
    },
    HardState {
        group: u64,
        vote: u64,
    },
    Conf {
        group: u64,
    },
    /// Truncates all but the last `keep` entries.
    Truncate {
        group: u64,
        keep: u64,
    },
    Reset {
        group: u64,
        ahead: u64,
    },
    Tombstone {
        group: u64,
    },
    Write,
    Seal,
    Prepare,
    /// A clean stop, and a start.
    Reopen,
    /// The process is killed between two writes, and started.
    Kill,
}

pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) clock: Arc<ManualClock>,
    pub(super) settings: LogSettings,
    pub(super) log: Option<Log>,
    pub(super) model: Model,
    /// The model as of each block, in order.
    pub(super) history: Vec<(BlockSeq, Model)>,
    pub(super) reported: BlockSeq,
    /// Batches that met a full log.
    pub(super) refused: usize,
    /// Restarts that went on in the newest file.
    pub(super) went_on: usize,
    term: u64,
    stamp: u64,
}

/// The step met the end of the machine.
#[derive(Debug)]
pub(super) struct Down;

pub(super) fn small() -> LogSettings {
    LogSettings {
        budget: ByteSize::kib(64 * 40),
        file_size: ByteSize::kib(64),
        entry_max: ByteSize::kib(16),
        files_ahead: 1,
        block_size: ByteSize::kib(16),
        ..LogSettings::default()
    }
}

impl World {
    pub(super) fn new(settings: LogSettings, seed: u64) -> Self {
        Self {
            disk: SimDisk::new(Rng::from_seed(seed)),
            clock: Arc::new(ManualClock::default()),
            settings,
            log: None,
            model: Model::new(),
            history: vec![(BlockSeq(0), Model::new())],
            reported: BlockSeq(0),
            refused: 0,
            went_on: 0,
            term: 1,
            stamp: 0,
        }
    }

    pub(super) fn opened(settings: LogSettings) -> Self {
        let mut world = Self::new(settings, 1);
        world.open().unwrap();
        world
    }

    /// The same world on a copy of the disk, with the log closed.
    pub(super) fn fork(&self) -> Self {
        Self {
            disk: self.disk.fork(),
            clock: self.clock.clone(),
            settings: self.settings.clone(),
            log: None,
            model: self.model.clone(),
            history: self.history.clone(),
            reported: self.reported,
            refused: self.refused,
            went_on: self.went_on,
            term: self.term,
            stamp: self.stamp,
        }
    }

    pub(super) fn log(&self) -> &Log {
        self.log.as_ref().expect("the log is open")
    }

    pub(super) fn open(&mut self) -> Result<Recovered, OpenError> {
        self.log = None;
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let rng = Rng::from_seed(self.disk.operations() ^ 0x5eed);
        let (log, recovered) = Log::open(disk, self.settings.clone(), self.clock.clone(), rng)?;
        self.reported = log.durable();
        // A fresh file begins with a table, which is no sealing block.
        self.went_on += usize::from(log.state().sealed);
        self.log = Some(log);
        Ok(recovered)
    }

    /// Comes back after a crash and checks that what is there is what may be there. The model
    /// goes on from what was found.
    pub(super) fn recover(&mut self) {
        let reported = self.reported;
        let recovered = self.open().expect("a crash alone is no damage");
        self.settle(reported, &recovered);
    }

    pub(super) fn settle(&mut self, reported: BlockSeq, recovered: &Recovered) {
        assert!(recovered.damage.is_empty(), "{recovered:?}");
        let found = self.found(&recovered.groups);
        let first = self.history.iter().rposition(|(seq, _)| *seq <= reported).unwrap_or(0);
        let allowed = &self.history[first..];
        assert!(
            allowed.iter().any(|(_, model)| *model == found),
            "reported durable {reported:?}, found {:?},\nallowed {:?}",
            brief(&found),
            allowed.iter().map(|(seq, model)| (seq, brief(model))).collect::<Vec<_>>()
        );
        self.model = found;
        self.history = vec![(self.reported, self.model.clone())];
    }

    /// What the log holds, entries read back.
    pub(super) fn found(&self, groups: &[GroupState]) -> Model {
        groups.iter().map(|state| (state.group, self.found_group(state))).collect()
    }

    fn found_group(&self, state: &GroupState) -> GroupModel {
        GroupModel {
            hard_state: state.hard_state,
            truncated: state.truncated,
            conf: state.conf.as_ref().map(|conf| (conf.index.0, conf.bytes.to_vec())),
            tombstone: state.tombstone.as_ref().map(|bytes| bytes.to_vec()),
            last: state.last.0,
            last_term: state.last_term.0,
            entries: self.found_entries(state),
        }
    }

    /// The entries that can be read; those that a repair gave up are left out.
    fn found_entries(&self, state: &GroupState) -> BTreeMap<u64, (u64, Vec<u8>)> {
        let (mut low, beyond) = (state.first, LogIndex(state.last.0 + 1));
        let mut entries = BTreeMap::new();
        while low < beyond {
            match self.log().read(state.group, low, beyond, usize::MAX) {
                Ok(read) => entries.extend(read.into_iter().map(|entry| {
                    low = LogIndex(entry.index.0 + 1);
                    let bytes = [&entry.context[..], &entry.data[..]].concat();
                    assert_eq!((entry.kind, entry.context.len()), shape(&bytes), "{}", entry.index);
                    (entry.index.0, (entry.term.0, bytes))
                })),
                Err(ReadError::Lost { index, .. }) => {
                    let given_up = |lost: &LostEntries| lost.first <= index && index <= lost.last;
                    assert!(state.lost.iter().any(given_up), "{index} is not said to be lost");
                    low = LogIndex(index.0 + 1);
                }
                Err(error) => panic!("{error}"),
            }
        }
        entries
    }

    pub(super) fn check_live(&self) {
        let states: Vec<GroupState> =
            self.model.keys().map(|group| self.log().group(*group).unwrap()).collect();
        assert_eq!(self.found(&states), self.model);
    }

    pub(super) fn run(&mut self, steps: &[Step]) -> Result<(), Down> {
        for step in steps {
            self.step(step)?;
        }
        Ok(())
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<(), Down> {
        match *step {
            Step::Append { group, back, count, bytes } => self.append(group, back, count, bytes),
            Step::HardState { group, vote } => self.hard_state(group, vote),
            Step::Conf { group } => self.conf(group),
            Step::Truncate { group, keep } => self.truncate(group, keep),
            Step::Reset { group, ahead } => self.reset(group, ahead),
            Step::Tombstone { group } => {
                let bytes = b"gone";
                let batch =
                    Batch { group: GroupId(group), tombstone: Some(bytes), ..Batch::default() };
                let new = GroupModel { tombstone: Some(bytes.to_vec()), ..GroupModel::default() };
                self.put(&batch, new);
            }
            Step::Write => return self.write(false),
            Step::Seal => {
                self.clock.advance(Duration::from_millis(100));
                return self.write(true);
            }
            Step::Prepare => return self.prepare(),
            Step::Reopen => {
                self.clock.advance(Duration::from_millis(100));
                self.write(true)?;
                self.start_again()?;
            }
            Step::Kill => self.start_again()?,
        }
        Ok(())
    }

    fn start_again(&mut self) -> Result<(), Down> {
        let reported = self.reported;
        let recovered = self.open().map_err(|error| {
            assert!(self.disk.crashed(), "{error}");
            Down
        })?;
        self.settle(reported, &recovered);
        Ok(())
    }

    fn model_of(&self, group: u64) -> GroupModel {
        self.model.get(&GroupId(group)).cloned().unwrap_or_default()
    }

    fn put(&mut self, batch: &Batch<'_>, new: GroupModel) {
        match self.log().append(batch) {
            Ok(seq) => {
                self.model.insert(batch.group, new);
                self.history.push((seq, self.model.clone()));
            }
            Err(AppendError::Full(_)) => self.refused += 1,
            // Once the machine is down the log has stopped; the next write tells.
            Err(error) => assert!(self.disk.crashed(), "{error}"),
        }
    }

    fn append(&mut self, group: u64, back: u64, count: usize, bytes: usize) {
        // What exceeds a block is not one step for the log; so it is not for the model.
        if count > 1 && count * (bytes + 64) + 64 > self.settings.block_size.as_usize() {
            self.append(group, back, 1, bytes);
            (1..count).for_each(|_| self.append(group, 0, 1, bytes));
            return;
        }
        let mut new = self.model_of(group);
        let from = new.last.saturating_sub(back).max(new.truncated.index.0) + 1;
        if back > 0 {
            self.term += 1;
        }
        let payloads: Vec<Vec<u8>> = (0..count)
            .map(|_| {
                self.stamp += 1;
                let mut payload = vec![self.stamp as u8; bytes];
                let stamp = self.stamp.to_le_bytes();
                let length = stamp.len().min(bytes);
                payload[..length].copy_from_slice(&stamp[..length]);
                payload
            })
            .collect();
        let entries: Vec<EntryRef<'_>> = payloads
            .iter()
            .enumerate()
            .map(|(at, payload)| {
                let (kind, context) = shape(payload);
                let (context, data) = payload.split_at(context);
                let index = LogIndex(from + at as u64);
                EntryRef { index, term: Term(self.term), kind, context, data }
            })
            .collect();
        new.entries.split_off(&from);
        for (entry, payload) in entries.iter().zip(&payloads) {
            new.entries.insert(entry.index.0, (entry.term.0, payload.clone()));
            (new.last, new.last_term) = (entry.index.0, entry.term.0);
        }
        let batch = Batch { group: GroupId(group), entries: &entries, ..Batch::default() };
        self.put(&batch, new);
    }

    fn hard_state(&mut self, group: u64, vote: u64) {
        let mut new = self.model_of(group);
        // Raft never replaces what is committed; the model keeps to what is truncated.
        let commit = new.truncated.index;
        new.hard_state = HardState { term: Term(self.term), vote, commit };
        let hard_state = Some(new.hard_state);
        let batch = Batch { group: GroupId(group), hard_state, ..Batch::default() };
        self.put(&batch, new);
    }

    fn conf(&mut self, group: u64) {
        let mut new = self.model_of(group);
        self.stamp += 1;
        let bytes = self.stamp.to_string().into_bytes();
        new.conf = Some((new.last, bytes.clone()));
        let conf = Some(ConfRef { index: LogIndex(new.last), bytes: &bytes });
        self.put(&Batch { group: GroupId(group), conf, ..Batch::default() }, new);
    }

    fn truncate(&mut self, group: u64, keep: u64) {
        let mut new = self.model_of(group);
        let index = new.last.saturating_sub(keep);
        if index <= new.truncated.index.0 {
            return;
        }
        let term = new.entries[&index].0;
        new.truncated = Truncated { index: LogIndex(index), term: Term(term) };
        new.entries = new.entries.split_off(&(index + 1));
        let truncate = Some(new.truncated);
        self.put(&Batch { group: GroupId(group), truncate, ..Batch::default() }, new);
    }

    fn reset(&mut self, group: u64, ahead: u64) {
        let mut new = self.model_of(group);
        new.truncated = Truncated { index: LogIndex(new.last + ahead), term: Term(self.term) };
        new.entries.clear();
        (new.last, new.last_term) = (new.truncated.index.0, new.truncated.term.0);
        let reset = Some(new.truncated);
        self.put(&Batch { group: GroupId(group), reset, ..Batch::default() }, new);
    }

    /// Writes what there is: one block, or all of it with a seal behind.
    fn write(&mut self, seal: bool) -> Result<(), Down> {
        while let Some(mut write) = self.log().begin_write() {
            let result = write.perform();
            self.reported = self.log().finish_write(write, result).map_err(|_| Down)?;
            if !seal {
                break;
            }
            self.clock.advance(Duration::from_millis(100));
        }
        if self.disk.crashed() { Err(Down) } else { Ok(()) }
    }

    pub(super) fn prepare(&mut self) -> Result<(), Down> {
        while self.log().prepare_files().map_err(|_| Down)? != Prepared::Idle {}
        if self.disk.crashed() { Err(Down) } else { Ok(()) }
    }
}

/// The kind of an entry and the length of its context.
fn shape(payload: &[u8]) -> (u8, usize) {
    (payload.first().copied().unwrap_or(0) % 3, payload.len() / 3)
}

fn brief(model: &Model) -> Vec<String> {
    model
        .iter()
        .map(|(group, m)| {
            format!(
                "{group}: ({}..={}] {:?} conf {:?} tombstone {} entries {}",
                m.truncated.index,
                m.last,
                m.hard_state,
                m.conf.as_ref().map(|conf| conf.0),
                m.tombstone.is_some(),
                m.entries.len()
            )
        })
        .collect()
}
