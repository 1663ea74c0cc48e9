//! Segment stores that remember what was done to which segment, and that it was done once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use common::{ContainerId, Fence, Offset, SegmentId, WriterEpoch, WriterId};
use futures::future::BoxFuture;
use tokio::sync::Notify;

use crate::stores::{
    SegmentLength, SegmentStores, StoreAction, StoreAnswer, StoreCommand, StoreError,
};

#[derive(Debug, Default)]
pub(crate) struct FakeStores {
    inner: Mutex<Inner>,
    /// Rung by a test that holds commands back.
    pub(crate) gate: Notify,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) segments: BTreeMap<SegmentId, FakeSegment>,
    /// Segments that were forgotten: they must never come back.
    pub(crate) forgotten: BTreeSet<SegmentId>,
    pub(crate) fences: BTreeMap<ContainerId, Fence>,
    /// Answers given instead of carrying the next commands out.
    pub(crate) errors: VecDeque<StoreError>,
    pub(crate) commands: usize,
    /// Whether commands wait for the gate.
    pub(crate) held: bool,
    /// How many commands and questions do at the moment.
    pub(crate) waiting: usize,
    /// A container whose commands wait for the gate.
    pub(crate) silent: Option<ContainerId>,
    /// What a container answers instead of carrying commands out.
    pub(crate) away: BTreeMap<ContainerId, StoreError>,
    /// Whether questions do.
    pub(crate) questions_held: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FakeSegment {
    pub(crate) container: ContainerId,
    pub(crate) start: Offset,
    pub(crate) length: Offset,
    pub(crate) sealed: bool,
    pub(crate) deleted: bool,
    /// Writers that it was told to forget, with the epoch below which they are refused.
    pub(crate) writers: BTreeMap<WriterId, WriterEpoch>,
}

impl FakeSegment {
    fn new(container: ContainerId) -> Self {
        let (start, length) = (Offset(0), Offset(0));
        let writers = BTreeMap::new();
        Self { container, start, length, sealed: false, deleted: false, writers }
    }
}

/// One that waits for the gate; dropped where it is given up, too.
struct Waiting<'a>(&'a FakeStores);

impl<'a> Waiting<'a> {
    fn at_gate_of(stores: &'a FakeStores) -> Self {
        stores.inner().waiting += 1;
        Self(stores)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.inner().waiting -= 1;
    }
}

impl FakeStores {
    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Waits at the gate for as long as it is shut, and is counted meanwhile.
    async fn wait_while(&self, shut: impl Fn() -> bool) {
        if shut() {
            let _waiting = Waiting::at_gate_of(self);
            while shut() {
                self.gate.notified().await;
            }
        }
    }

    /// Advances the clock until so many commands and questions wait for the gate.
    pub(crate) async fn until_waiting(&self, count: usize) {
        for _ in 0..60_000 {
            if self.inner().waiting == count {
                return;
            }
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        panic!("{} wait for the gate, and not {count}", self.inner().waiting);
    }

    /// What a writer does: makes the segment longer.
    pub(crate) fn grow(&self, segment: SegmentId, length: u64) {
        let mut inner = self.inner();
        let segment = inner.segments.get_mut(&segment).unwrap();
        assert!(!segment.sealed && !segment.deleted, "nothing is appended to an ended segment");
        segment.length = Offset(length);
    }

    /// Seals a segment as a scale does, and tells its length.
    pub(crate) fn seal(&self, segment: SegmentId) -> Offset {
        let mut inner = self.inner();
        let segment = inner.segments.get_mut(&segment).unwrap();
        segment.sealed = true;
        segment.length
    }

    /// Makes a segment as a scale does.
    pub(crate) fn make(&self, segment: SegmentId, container: ContainerId) {
        let made = self.inner().segments.insert(segment, FakeSegment::new(container));
        assert!(made.is_none(), "{segment} twice");
    }

    pub(crate) fn segment(&self, segment: SegmentId) -> Option<FakeSegment> {
        self.inner().segments.get(&segment).cloned()
    }

    pub(crate) fn fail_next(&self, errors: impl IntoIterator<Item = StoreError>) {
        self.inner().errors.extend(errors);
    }

    pub(crate) fn carry_out(&self, command: &StoreCommand) -> Result<StoreAnswer, StoreError> {
        let mut inner = self.inner();
        inner.commands += 1;
        if let Some(error) = inner.errors.pop_front() {
            return Err(error);
        }
        let container = command.container;
        if let Some(error) = inner.away.get(&container) {
            return Err(error.clone());
        }
        let fence = inner.fences.entry(container).or_default();
        if command.fence < *fence {
            return Err(StoreError::StaleFence { container, current: *fence });
        }
        *fence = command.fence;
        inner.act(container, &command.action)
    }
}

impl Inner {
    fn act(
        &mut self,
        container: ContainerId,
        action: &StoreAction,
    ) -> Result<StoreAnswer, StoreError> {
        let mut answer = StoreAnswer::default();
        match action {
            StoreAction::Create(segments) => {
                for new in segments {
                    assert!(!self.forgotten.contains(&new.segment), "{} came back", new.segment);
                    let made = FakeSegment::new(container);
                    let kept = self.segments.entry(new.segment).or_insert(made);
                    assert!(!kept.deleted && kept.container == container, "{} twice", new.segment);
                }
            }
            StoreAction::Seal(seals) => {
                for seal in seals {
                    let segment = self.found(seal.segment)?;
                    segment.sealed = true;
                    answer.lengths.push((seal.segment, segment.length));
                }
            }
            StoreAction::Truncate(offsets) => {
                for (id, offset) in offsets {
                    let segment = self.found(*id)?;
                    if *offset > segment.length {
                        return Err(StoreError::Refused(format!("{id} is shorter than {offset}")));
                    }
                    segment.start = segment.start.max(*offset);
                }
            }
            StoreAction::Delete(segments) => {
                for id in segments {
                    let known = self.segments.get(id);
                    assert!(known.is_none_or(|segment| segment.sealed), "{id} open");
                    if let Some(segment) = self.segments.get_mut(id) {
                        segment.deleted = true;
                    }
                }
            }
            StoreAction::DeleteWriter { writer, epoch, segments } => {
                for id in segments {
                    if let Some(segment) = self.segments.get_mut(id) {
                        let known = segment.writers.entry(*writer).or_insert(*epoch);
                        *known = (*known).max(*epoch);
                    }
                }
            }
            StoreAction::Forget(segments) => {
                for id in segments {
                    let tombstone = self.segments.remove(id);
                    assert!(tombstone.is_none_or(|segment| segment.deleted), "{id} not deleted");
                    self.forgotten.insert(*id);
                }
            }
        }
        Ok(answer)
    }

    fn found(&mut self, id: SegmentId) -> Result<&mut FakeSegment, StoreError> {
        let found = self.segments.get_mut(&id).filter(|segment| !segment.deleted);
        found.ok_or_else(|| StoreError::Refused(format!("{id} does not exist")))
    }
}

impl SegmentStores for FakeStores {
    fn perform(&self, command: StoreCommand) -> BoxFuture<'_, Result<StoreAnswer, StoreError>> {
        Box::pin(async move {
            let waits = || {
                let inner = self.inner();
                inner.held || inner.silent == Some(command.container)
            };
            self.wait_while(waits).await;
            self.carry_out(&command)
        })
    }

    fn fence(&self, container: ContainerId) -> BoxFuture<'_, Result<Fence, StoreError>> {
        let fence = self.inner().fences.get(&container).copied().unwrap_or_default();
        Box::pin(std::future::ready(Ok(fence)))
    }

    fn lengths(
        &self,
        segments: Vec<(SegmentId, ContainerId)>,
    ) -> BoxFuture<'_, Result<Vec<SegmentLength>, StoreError>> {
        assert!(segments.len() <= 1_000);
        Box::pin(async move {
            self.wait_while(|| self.inner().questions_held).await;
            let mut inner = self.inner();
            let length = |(segment, _)| {
                inner.found(segment).map(|found| SegmentLength { segment, length: found.length })
            };
            segments.into_iter().map(length).collect()
        })
    }
}
