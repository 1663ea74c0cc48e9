//! The worker: owns groups and steps them, without threads, waiting or clocks of its own.
//!
//! A step takes in what arrived, goes as far as it can, and returns what others must do: a block
//! to write, a checkpoint to save, old entries to read, messages to send. The only I/O it does
//! itself is writing a small block while the log is idle, which saves two thread switches on the
//! way of a small append. Threads around it are in [`crate::host`]; simulations call it directly
//! and perform the returned values as events of their own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Clock, GroupId, MonotonicTime, Rng};
use raft::eraftpb::Message;
use wal::{BlockSeq, BlockWrite, Log, Stall, Stopped};

use crate::archive::Archive;
use crate::bell::Bell;
use crate::error::{Failure, HostFailure, StartError};
use crate::group::{
    CheckpointJob, FetchJob, Fetched, GroupSpec, HELD_PERMILLE, Member, PRESSED_PERMILLE, Starting,
};
use crate::handle::{Gate, GroupHandle, Limits, Shared};
use crate::kv::Kv;
use crate::machine::StateMachine;
use crate::settings::HostSettings;
use crate::tiering::{Storage, StorageDone, StorageJob};

mod opening;
mod saving;
mod slot;
#[cfg(test)]
mod tests;

pub(crate) use opening::{OpenedGroup, Opening, RestoredGroup};
use saving::Saving;
use slot::Slot;
pub(crate) use slot::panic_text;

/// The longest time between two looks at the log's use while it is written to.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The same once the log is well filled.
const CLOSE_LOOK_INTERVAL: Duration = Duration::from_millis(10);
const CLOSE_LOOK_PERMILLE: u64 = 750;
/// When to try again what only waits for time.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// How often a stalled write is noticed.
const STALL_INTERVAL: Duration = Duration::from_millis(500);

/// Steps the groups of a node.
pub struct Worker {
    settings: Arc<HostSettings>,
    log: Log,
    kv: Arc<dyn Kv>,
    storage: Option<Storage>,
    bringing: Arc<Mutex<()>>,
    clock: Arc<dyn Clock>,
    rng: Rng,
    gate: Arc<Gate>,
    bell: Arc<Bell>,
    members: Vec<Slot>,
    next_tick: Option<MonotonicTime>,
    looked: Look,
    saving: Saving,
    stopping: bool,
}

/// The last look at the log's use.
#[derive(Debug, Default)]
struct Look {
    next: MonotonicTime,
    durable: BlockSeq,
    /// The log, or the disk under it.
    full: bool,
}

/// What a step leaves for others to do.
#[derive(Debug, Default)]
pub struct Step {
    /// Step again at once.
    pub more: bool,
    /// Step again then, if nothing arrives before.
    pub wake_at: Option<MonotonicTime>,
    /// Perform it and hand it to [`Log::finish_write`], then step.
    pub write: Option<BlockWrite>,
    /// Bytes that the worker wrote itself.
    pub written_bytes: usize,
    /// What that took.
    pub writing: Duration,
    /// Run it and hand it to [`Worker::checkpointed`].
    pub checkpoint: Option<CheckpointJob>,
    /// Perform them and hand the results to [`Worker::fetched`].
    pub fetches: Vec<FetchJob>,
    /// Perform them in any order and hand the results to [`Worker::storage_done`].
    pub storage: Vec<StorageJob>,
    /// Send them, in order; dropping some is allowed.
    pub messages: Vec<(GroupId, Message)>,
    /// The log waits for files to be made.
    pub wants_files: bool,
    /// After [`Worker::stop`]: everything is settled, saved and on its way to the disk.
    pub stopped: bool,
}

impl Worker {
    pub fn new(
        settings: HostSettings,
        log: Log,
        kv: Arc<dyn Kv>,
        clock: Arc<dyn Clock>,
        rng: Rng,
    ) -> Self {
        Self {
            settings: Arc::new(settings),
            log,
            kv,
            storage: None,
            bringing: Arc::default(),
            clock,
            rng,
            gate: Arc::default(),
            bell: Arc::default(),
            members: Vec::new(),
            next_tick: None,
            looked: Look::default(),
            saving: Saving::default(),
            stopping: false,
        }
    }

    /// From now on groups that are added archive their log there, and are brought back from there
    /// where this node lacks their state.
    pub fn use_storage(&mut self, storage: Storage) {
        self.storage = Some(storage);
    }

    /// Restores and replays a group. It works from the next step on.
    pub fn add_group<M: StateMachine>(
        &mut self,
        spec: GroupSpec,
        machine: M,
    ) -> Result<GroupHandle<M>, StartError> {
        let opened = self.opening(spec, machine).open()?;
        Ok(self.insert(opened))
    }

    /// The same in three steps, of which the middle one, [`Opening::open`], is done anywhere.
    pub(crate) fn opening<M: StateMachine>(&mut self, spec: GroupSpec, machine: M) -> Opening<M> {
        let id = spec.group;
        let limits = Limits {
            queue_bytes_max: self.settings.queue_bytes_max.as_usize(),
            queries_max: self.settings.queries_max,
            retry_after: self.settings.retry_after,
        };
        let shared = Arc::new(Shared::new(id, self.gate.clone(), self.bell.clone(), limits));
        let starting = Starting {
            spec,
            settings: self.settings.clone(),
            log: self.log.clone(),
            kv: self.kv.clone(),
            storage: self.storage.clone(),
            bringing: self.bringing.clone(),
            clock: self.clock.clone(),
            rng: self.rng.fork(&format!("group {id}")),
        };
        Opening::new(starting, machine, shared)
    }

    pub(crate) fn insert<M: StateMachine>(&mut self, opened: OpenedGroup<M>) -> GroupHandle<M> {
        let (slot, shared) = opened.into_parts();
        self.members.push(slot);
        GroupHandle::new(shared)
    }

    pub(crate) fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    pub(crate) fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }

    /// Goes as far as possible. An error is final for the node.
    pub fn step(&mut self, now: MonotonicTime) -> Result<Step, HostFailure> {
        let mut step = Step::default();
        self.check_stall()?;
        self.tick(now);
        self.advance()?;
        self.collect(&mut step);
        self.write(&mut step)?;
        let scarce = self.look(now)?;
        self.save(now, &mut step);
        self.begin_storage_jobs(now, &mut step);
        step.wake_at = self.wake_at(now);
        // Until freed files are taken they count as used, and a full log stays full.
        step.wants_files =
            scarce || self.log.wants_preparing() || self.any(|member| member.wants_retry());
        step.stopped = self.stopping && self.is_settled() && !self.saving.is_pending();
        Ok(step)
    }

    /// A message from another member.
    pub fn receive(&mut self, group: GroupId, message: Message) -> Result<(), HostFailure> {
        self.with(group, "a message", |member| member.receive(message))
    }

    pub fn fetched(&mut self, fetched: Fetched) -> Result<(), HostFailure> {
        self.with(fetched.group, "what was read for a follower", |member| member.fetched(fetched))
    }

    /// From now on refuses new work; steps finish what was taken and save the state, until one
    /// returns `stopped`.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.saving.hurry();
        self.each("a stop", |member| member.stop()).for_each(drop);
    }

    /// Answers everything that is still waiting, at the very end.
    pub fn end(&mut self) {
        self.each("an end", |member| member.end()).for_each(drop);
        self.members.drain(..).for_each(Slot::clear);
    }

    /// Takes what came of a job with the bucket.
    pub fn storage_done(&mut self, done: StorageDone) -> Result<(), HostFailure> {
        let now = self.clock.monotonic();
        self.with(done.group, done.kind.as_str(), |member| member.storage_done(done, now))
    }

    /// What a group's log says of its archive, as far as it is applied here: for whoever compares it
    /// with the bucket.
    pub fn archive(&self, group: GroupId) -> Option<&Archive> {
        let slot = self.members.iter().find(|slot| slot.id == group)?;
        slot.member()?.archive()
    }

    fn begin_storage_jobs(&mut self, now: MonotonicTime, step: &mut Step) {
        for slot in &mut self.members {
            let jobs = slot.ask("jobs with long-term storage", |member| member.storage_jobs(now));
            step.storage.extend(slot.jobs(jobs.unwrap_or_default()));
        }
    }

    /// Asks or tells every group that runs.
    fn each<T>(
        &mut self,
        what: &'static str,
        call: impl Fn(&mut dyn Member) -> T,
    ) -> impl Iterator<Item = T> {
        self.members.iter_mut().filter_map(move |slot| slot.ask(what, |member| call(member)))
    }

    fn any(&mut self, question: impl Fn(&dyn Member) -> bool) -> bool {
        self.each("a look", |member| question(member)).any(|answer| answer)
    }

    fn is_settled(&mut self) -> bool {
        !self.any(|member| !member.is_settled())
    }

    fn with(
        &mut self,
        group: GroupId,
        what: &'static str,
        call: impl FnOnce(&mut dyn Member) -> Result<(), Failure>,
    ) -> Result<(), HostFailure> {
        let slot = self.members.iter_mut().find(|slot| slot.id == group);
        // A message for a group that is not here is a late one.
        slot.map_or(Ok(()), |slot| slot.guard(what, call).map(|_| ()))
    }

    fn quarantine(&mut self, group: GroupId, reason: &str) {
        if let Some(slot) = self.members.iter_mut().find(|slot| slot.id == group) {
            slot.quarantine(reason);
        }
    }

    fn tick(&mut self, now: MonotonicTime) {
        if !self.any(|member| member.needs_ticks()) {
            return;
        }
        let due = *self.next_tick.get_or_insert_with(|| now.plus(self.settings.tick));
        if due <= now {
            self.next_tick = Some(now.plus(self.settings.tick));
            self.each("a tick", |member| member.tick()).for_each(drop);
        }
    }

    fn advance(&mut self) -> Result<(), HostFailure> {
        const STEP: &str = "a step";
        for slot in &mut self.members {
            let log = &self.log;
            slot.guard(STEP, |member| member.advance(log.durable()))?;
            while let Some(next) = slot.ask(STEP, |member| member.take_successor()).flatten() {
                slot.give_way(next);
                slot.guard(STEP, |member| member.advance(log.durable()))?;
            }
        }
        Ok(())
    }

    fn collect(&mut self, step: &mut Step) {
        for slot in &mut self.members {
            let id = slot.id;
            let take = |member: &mut dyn Member| (member.take_messages(), member.take_fetches());
            let (messages, fetches) = slot.ask("a step", take).unwrap_or_default();
            step.messages.extend(messages.into_iter().map(|message| (id, message)));
            step.fetches.extend(fetches);
        }
    }

    /// Writes a small block here and now if the log is idle and nobody waits for messages, and
    /// hands any other one out.
    fn write(&mut self, step: &mut Step) -> Result<(), HostFailure> {
        let Some(mut write) = self.log.begin_write() else { return Ok(()) };
        if write.len() > self.settings.inline_write_max.as_usize() || !step.messages.is_empty() {
            step.write = Some(write);
            return Ok(());
        }
        step.written_bytes = write.len();
        let began = self.clock.monotonic();
        let result = write.perform();
        step.writing = self.clock.monotonic().since(began);
        self.log.finish_write(write, result)?;
        self.advance()?;
        self.collect(step);
        step.more = true;
        Ok(())
    }

    /// Now and then, while the log grows: is it full, and what of it can go? Says whether it is so
    /// full that old entries may be worth moving.
    fn look(&mut self, now: MonotonicTime) -> Result<bool, HostFailure> {
        let durable = self.log.durable();
        if !self.wants_look(durable) || now < self.looked.next {
            return Ok(false);
        }
        let space = self.log.space();
        let permille = space.used_permille();
        let file_bytes = self.settings.log.file_size.bytes();
        let kept = self.settings.log.files_kept() as u64 * file_bytes;
        let full = permille >= self.settings.log_full_permille || space.used + kept > space.budget;
        self.gate.set_log_full(full);
        // A full disk is the end of the budget, wherever that is.
        let pressure = if space.disk_full { 1_000 } else { permille };
        let mut fullest = permille;
        for slot in &mut self.members {
            let group = self.log.group_usage(slot.id);
            fullest = fullest.max(group.share_permille);
            let held = (group.files_held as u64).saturating_mul(file_bytes);
            let held = held.saturating_mul(1_000) / space.budget.max(1);
            let holds = held >= HELD_PERMILLE || group.share_permille >= PRESSED_PERMILLE;
            slot.guard("a truncation", |member| member.truncate(pressure, holds))?;
        }
        let close = durable != self.looked.durable && fullest >= CLOSE_LOOK_PERMILLE;
        let next = now.plus(if close { CLOSE_LOOK_INTERVAL } else { LOOK_INTERVAL });
        self.looked = Look { next, durable, full: full || space.disk_full };
        Ok(space.is_scarce)
    }

    /// A full log is watched until space comes back; any other only while it grows.
    fn wants_look(&self, durable: BlockSeq) -> bool {
        self.looked.full || durable != self.looked.durable
    }

    fn wake_at(&mut self, now: MonotonicTime) -> Option<MonotonicTime> {
        let seal = self.log.seal_due();
        let look = self.wants_look(self.log.durable()).then_some(self.looked.next);
        let save = self.save_at();
        let retry = self.any(|member| member.wants_retry()).then(|| now.plus(RETRY_INTERVAL));
        let stall = (!self.is_settled()).then(|| now.plus(STALL_INTERVAL));
        let tick = self.next_tick;
        let storage = self.each("a look", |member| member.storage_due()).flatten().min();
        [seal, look, save, retry, stall, tick, storage].into_iter().flatten().min()
    }

    fn check_stall(&mut self) -> Result<(), HostFailure> {
        let stall = self.log.stall();
        self.gate.set_stalled(stall >= Stall::Shed);
        if stall < Stall::Stop {
            return Ok(());
        }
        Err(HostFailure::Log(stop_stalled(&self.log)))
    }
}

/// Ends a log whose write does not come back.
pub(crate) fn stop_stalled(log: &Log) -> Stopped {
    let reason = "a write has been under way for 60 s";
    log.stop(reason);
    Stopped { reason: reason.to_owned() }
}
