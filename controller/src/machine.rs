//! The controller's state machine: what exists, where it is, who writes, and which workflows run.
//!
//! Deterministic: apply sees the state, the operation and the leader's stamp, nothing else. Every
//! operation decides completely before it changes anything, so a refusal leaves the state as it
//! was. Workflows that need segment stores are jobs in this state (see [`crate::jobs`]): an
//! operation starts one, entries record its finished steps, the last step completes what was asked.

mod cluster;
mod create_stream;
mod cut;
mod delete_stream;
mod delete_writer;
mod head;
mod job;
mod placement;
mod raise_fence;
mod records;
mod recover;
mod register_writer;
mod scopes;
mod seal_stream;
mod steps;
mod stream;
mod truncate_stream;

use std::collections::{BTreeMap, BTreeSet, btree_map};

use bytes::Bytes;
use common::{ContainerId, LogIndex, ScopeName, ScopedStream, StreamId, StreamName, WallTime};
use replica::{Change, Entry, RestoreError, Slice, StateMachine, UnknownOperation};
use tokio::sync::watch;

pub use cluster::{Cluster, Container, Store};
pub(crate) use job::both;
pub use job::{Job, JobKind, Phase};
pub use scopes::Scope;
pub use stream::{Epoch, Segment, SegmentKey, Stream, StreamState, Writer, WriterMode};

use crate::operation::{Operation, StoreId};
use crate::outcome::{Outcome, Refusal};
use crate::stores::JobId;
use records::Key;

/// Everything the controller knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    cluster: Option<Cluster>,
    stores: BTreeMap<StoreId, Store>,
    containers: BTreeMap<ContainerId, Container>,
    scopes: BTreeMap<ScopeName, Scope>,
    streams: BTreeMap<StreamId, Stream>,
    jobs: BTreeMap<JobId, Job>,
    /// Why the newest failed jobs failed.
    failures: BTreeMap<JobId, String>,
    /// Segments of all streams, with those that are still to be recorded and those that were
    /// truncated away and not forgotten. Counted, not saved.
    segments: u64,
}

/// Saved records by their keys; `None` removes one.
type Unsaved = BTreeMap<Vec<u8>, Option<Bytes>>;

/// The state with what is needed to save it and to wake those who wait for its jobs.
#[derive(Debug)]
pub struct ControllerMachine {
    state: State,
    /// What the operation that is applied changes.
    dirty: BTreeSet<Key>,
    /// What changed since the last freeze, as it is to be saved.
    unsaved: Unsaved,
    frozen: btree_map::IntoIter<Vec<u8>, Option<Bytes>>,
    jobs_changed: bool,
    progress: watch::Sender<u64>,
}

impl Default for ControllerMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl ControllerMachine {
    pub fn new() -> Self {
        Self {
            state: State::default(),
            dirty: BTreeSet::new(),
            unsaved: Unsaved::new(),
            frozen: Unsaved::new().into_iter(),
            jobs_changed: false,
            progress: watch::Sender::new(0),
        }
    }

    /// Changes whenever a job was started, moved on or ended, on every replica.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Applies one decoded operation, made at `now` by its leader's word.
    pub fn apply_operation(&mut self, operation: &Operation, now: WallTime) -> Outcome {
        let outcome = self.decide(operation, now);
        self.write_down();
        outcome
    }

    /// Puts down what the operation changed, as it will be saved: operations are few and change
    /// little, so that this is cheaper than to keep later ones from reaching into a frozen set.
    fn write_down(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            self.unsaved.insert(key.encode(), self.state.value(&key));
        }
    }

    fn decide(&mut self, operation: &Operation, now: WallTime) -> Outcome {
        match operation {
            Operation::Initialize { cluster, incarnation } => {
                self.initialize(*cluster, *incarnation)
            }
            Operation::RegisterStore { store, endpoint, containers } => {
                self.register_store(*store, endpoint, containers)
            }
            Operation::CreateScope { scope } => self.create_scope(scope, now),
            Operation::DeleteScope { scope } => self.delete_scope(scope),
            Operation::CreateStream { stream, segments, create_scope, token } => {
                self.create_stream(stream, *segments, *create_scope, *token, now)
            }
            Operation::SealStream { stream } => self.seal_stream(stream, now),
            Operation::TruncateStream { stream, cut } => self.truncate_stream(*stream, cut, now),
            Operation::DeleteStream { stream } => self.delete_stream(stream, now),
            Operation::DeleteStreamById { stream } => self.delete_stream_by_id(*stream, now),
            Operation::RegisterWriter { stream, writer, create, mode } => {
                self.register_writer(stream, writer, *create, *mode, now)
            }
            Operation::DeleteWriter { stream, writer, epoch } => {
                self.delete_writer(stream, writer, *epoch, now)
            }
            Operation::RaiseFence { above } => self.raise_fence(*above),
            Operation::Recover { incarnation, streams_made } => {
                self.recover(*incarnation, *streams_made)
            }
            Operation::AdoptStream { stream, name, segments } => {
                self.adopt_stream(*stream, name, segments, now)
            }
            Operation::ReconcileStream { stream, found } => {
                self.reconcile_stream(*stream, found, now)
            }
            Operation::ReconcilePlaces { stream, found } => {
                self.reconcile_places(*stream, found, now)
            }
            Operation::StepDone { job, step, lengths } => self.step_done(*job, *step, lengths),
            Operation::StepFailed { job, step, message } => self.step_failed(*job, *step, message),
        }
    }

    pub fn cluster(&self) -> Option<&Cluster> {
        self.state.cluster.as_ref()
    }

    pub fn stores(&self) -> &BTreeMap<StoreId, Store> {
        &self.state.stores
    }

    pub fn containers(&self) -> &BTreeMap<ContainerId, Container> {
        &self.state.containers
    }

    pub fn scopes(&self) -> &BTreeMap<ScopeName, Scope> {
        &self.state.scopes
    }

    /// The streams of a scope by name.
    pub fn streams_of(
        &self,
        scope: &ScopeName,
    ) -> Result<&BTreeMap<StreamName, StreamId>, Refusal> {
        let found = self.state.scopes.get(scope);
        found.map(|s| &s.streams).ok_or_else(|| Refusal::ScopeNotFound(scope.clone()))
    }

    /// The stream that has this name now.
    pub fn stream(&self, name: &ScopedStream) -> Result<&Stream, Refusal> {
        let id = self.streams_of(&name.scope)?.get(&name.stream);
        let id = id.ok_or_else(|| Refusal::StreamNotFound(name.clone()))?;
        Ok(&self.state.streams[id])
    }

    pub fn stream_by_id(&self, id: StreamId) -> Result<&Stream, Refusal> {
        self.state.streams.get(&id).ok_or(Refusal::StreamIdNotFound(id))
    }

    pub fn jobs(&self) -> &BTreeMap<JobId, Job> {
        &self.state.jobs
    }

    /// Why a job ended without doing what was asked, for as long as that is remembered.
    pub fn failure_of(&self, job: JobId) -> Option<&str> {
        self.state.failures.get(&job).map(String::as_str)
    }

    /// The stream for a change: `&mut`, and marked to be saved.
    fn stream_mut(&mut self, id: StreamId) -> &mut Stream {
        self.dirty.insert(Key::Stream(id));
        self.state.streams.get_mut(&id).expect("the stream was looked up before")
    }
}

impl StateMachine for ControllerMachine {
    type Outcome = Outcome;

    /// Who waits for jobs goes on waiting.
    fn fresh(&self) -> Self {
        Self { progress: self.progress.clone(), ..Self::new() }
    }

    fn apply(
        &mut self,
        entry: &Entry<'_>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), UnknownOperation> {
        for operation in entry.operations() {
            let decoded = Operation::decode(operation.header)
                .map_err(|malformed| UnknownOperation::new(malformed.to_string()))?;
            outcomes.push(self.apply_operation(&decoded, entry.stamp.wall));
        }
        Ok(())
    }

    fn digest(outcome: &Outcome) -> u64 {
        crate::outcome::digest(outcome)
    }

    fn freeze(&mut self) {
        assert_eq!(self.frozen.len(), 0, "the set before was not copied whole");
        self.frozen = std::mem::take(&mut self.unsaved).into_iter();
    }

    fn copy_frozen(&mut self, slice: &mut Slice) -> bool {
        while slice.has_room() {
            let Some((key, value)) = self.frozen.next() else { return true };
            slice.push(Change { key, value });
        }
        self.frozen.len() == 0
    }

    fn restore(
        &mut self,
        pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<(), RestoreError> {
        self.state = State::restore(pairs)?;
        self.jobs_changed = true;
        Ok(())
    }

    /// Operations carry no payload: nothing of the log is needed once it is applied and saved.
    fn oldest_live_index(&self) -> Option<LogIndex> {
        None
    }

    fn round_done(&mut self) {
        if std::mem::take(&mut self.jobs_changed) {
            self.progress.send_modify(|count| *count += 1);
        }
    }
}

/// Hands for tests.
#[cfg(test)]
impl State {
    pub(crate) fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values()
    }

    /// The keys of all records.
    fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.cluster.iter().map(|_| Key::Cluster).collect();
        keys.extend(self.stores.keys().copied().map(Key::Store));
        keys.extend(self.containers.keys().copied().map(Key::Container));
        keys.extend(self.scopes.keys().cloned().map(Key::Scope));
        keys.extend(self.jobs.keys().copied().map(Key::Job));
        keys.extend(self.failures.keys().copied().map(Key::Failure));
        for stream in self.streams.values() {
            let segment = |key: &_| stream.segment_id(*key);
            keys.push(Key::Stream(stream.id));
            keys.extend(stream.epochs.iter().map(|epoch| Key::Epoch(stream.id, epoch.number)));
            keys.extend(stream.segments.keys().map(|key| Key::Segment(segment(key))));
            keys.extend(stream.head.keys().map(|key| Key::Head(segment(key))));
            keys.extend(stream.removed.keys().map(|key| Key::Removed(segment(key))));
            let writers = stream.writers.keys();
            keys.extend(writers.map(|name| Key::Writer(stream.id, name.clone())));
        }
        keys
    }
}

/// Hands for tests.
#[cfg(test)]
impl ControllerMachine {
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Every record as it would be saved now.
    pub(crate) fn all_pairs(&self) -> Vec<(Bytes, Bytes)> {
        let keys = self.state.keys();
        let pair = |key: Key| {
            let value = self.state.value(&key).expect("it is a record of the state");
            (Bytes::from(key.encode()), value)
        };
        keys.into_iter().map(pair).collect()
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.unsaved.is_empty()
    }

    /// Changes a stream's records by hand and brings indexes, counts and marks in line.
    pub(crate) fn edit_stream<R>(
        &mut self,
        id: StreamId,
        edit: impl FnOnce(&mut Stream) -> R,
    ) -> R {
        let stream = self.stream_mut(id);
        let before = stream.segments.clone();
        let result = edit(stream);
        let known = stream.segments.values_mut().chain(stream.removed.values_mut());
        known.for_each(|segment| segment.successors.clear());
        stream.index();
        let stream = stream.clone();
        for (key, segment) in stream.segments {
            if !before.contains_key(&key) {
                self.count_segment(segment.container, 1);
                self.state.segments += 1;
            }
            let (epoch, number) = key;
            self.dirty.insert(Key::Segment(common::SegmentId { stream: id, epoch, number }));
        }
        self.dirty.extend(stream.epochs.iter().map(|epoch| Key::Epoch(id, epoch.number)));
        self.write_down();
        result
    }
}

#[cfg(test)]
mod tests;
