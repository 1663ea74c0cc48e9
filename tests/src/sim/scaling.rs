//! Scaling: segments end while writers write, and others go on with their keys.
//!
//! The controller has no workflow for it yet. What it will have to do is done here, by the same
//! commands of the same leader: the successors are made, then what they follow is sealed and told
//! of them, container by container, each again until it is answered. A crash comes between any two.
//! A stream may end in the same way, by seals with nothing behind them.

use std::collections::BTreeMap;

use common::routing::position_of_key;
use common::{ContainerId, Fence, Incarnation, KeyRange, SegmentId, SegmentNumber, StreamEpoch};
use controller::group::query;
use controller::{
    ControllerMachine, Group, JobId, NewSegment, SegmentSeal, SegmentStores, StoreAction,
    StoreCommand, StoreError,
};
use proto::convert::SegmentPlace;

use super::streams::{Effect, Phase, Stream};
use super::world::World;
use crate::history::{Answer, Moved, Operation, What};
use crate::payload::key_text;

/// Segments that a stream has at most, ended ones too.
const SEGMENTS_MAX: usize = 24;

/// Ids of the controller's own jobs stay far below.
const FIRST_JOB: u64 = 1 << 40;

/// Which places of a stream end, and which follow them; none where the stream ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scale {
    sealed: Vec<usize>,
    made: Vec<usize>,
    /// Whether those that follow are there.
    is_made: bool,
}

impl World {
    /// Now and then one or two neighbours become one to three others, or the stream ends.
    pub(super) fn choose_scale(&mut self, stream: usize) {
        let rng = &mut self.random.workload;
        let (end, scale, truncate) = (rng.chance(1, 400), rng.chance(1, 30), rng.chance(1, 60));
        if self.plan.seals && end {
            self.end_stream(stream);
        } else if scale && self.streams[stream].places.len() < SEGMENTS_MAX {
            self.begin_scale(stream);
        } else if self.plan.truncates && truncate {
            self.truncate(stream);
        }
    }

    fn end_stream(&mut self, stream: usize) {
        let s = &mut self.streams[stream];
        let operation = Operation::Seal { stream: s.number };
        s.ops = vec![self.recorder.invoke(self.schedule.now(), u32::MAX, operation)];
        let sealed = s.current.clone();
        s.phase = Phase::Scaling(Scale { sealed, made: Vec::new(), is_made: true });
        self.note(format_args!("stream {stream} ends"));
    }

    fn begin_scale(&mut self, stream: usize) {
        let s = &mut self.streams[stream];
        let rng = &mut self.random.workload;
        let at = rng.below(s.current.len() as u64) as usize;
        let count = if rng.chance(1, 2) { 2 } else { 1 };
        let sealed: Vec<usize> = s.current.iter().copied().skip(at).take(count).collect();
        let low = s.places[sealed[0]].range.low();
        let high = s.places[sealed[sealed.len() - 1]].range.high();
        if high - low < 1 << 32 {
            return;
        }
        let mut lows = vec![low];
        lows.extend((1..rng.between(1, 3)).map(|_| rng.between(low + 1, high)));
        lows.sort_unstable();
        lows.dedup();
        let ends = lows[1..].iter().map(|low| low - 1).chain([high]);
        let ranges: Vec<_> =
            lows.iter().zip(ends).filter_map(|(low, high)| KeyRange::new(*low, high)).collect();
        let mut made = Vec::new();
        let epoch = s.places.last().map_or(0, |place| place.segment.epoch.0) + 1;
        for range in ranges {
            let container = ContainerId(2 + rng.below(self.plan.containers));
            made.push(s.places.len());
            s.add_place(epoch, range, container, &sealed);
        }
        let operation = Operation::Scale { stream: s.number, moved: s.moved(&sealed, &made) };
        s.ops = vec![self.recorder.invoke(self.schedule.now(), u32::MAX, operation)];
        self.note(format_args!("stream {stream}: {made:?} follow {sealed:?}"));
        let scale = Scale { sealed, made, is_made: false };
        self.streams[stream].phase = Phase::Scaling(scale);
    }

    /// Gives the next commands.
    pub(super) fn carry_on_scaling(&mut self, stream: usize, scale: &Scale) {
        let Some(node) = &self.node else { return };
        let Some(term) = node.controller.leadership().borrow().serving else { return };
        let s = &mut self.streams[stream];
        s.busy = true;
        let actions = if scale.is_made { s.seals(scale) } else { s.creations(scale) };
        let counter = FIRST_JOB | u64::from(s.number) << 16 | s.places.len() as u64;
        let job = JobId::new(Incarnation(1), counter);
        let step = u32::from(scale.is_made);
        let stores = server::LocalStores(node.store.commands());
        let group = node.controller.clone();
        self.tasks.spawn(async move {
            let look = move |machine: &ControllerMachine| Some(machine.cluster()?.fence(term));
            let done = match query(&group, look).await {
                Ok(Some(fence)) => give(&stores, job, step, fence, actions).await,
                _ => Ok(false),
            };
            Effect::Scaled { stream, done }
        });
        self.wake();
    }

    pub(super) fn on_scaled(&mut self, stream: usize, done: Result<bool, String>) {
        let s = &mut self.streams[stream];
        s.busy = false;
        let Phase::Scaling(scale) = &mut s.phase else { return };
        match done {
            Err(problem) => self.problem(format!("scaling of stream {stream}: {problem}")),
            Ok(false) => {}
            Ok(true) if !scale.is_made => scale.is_made = true,
            Ok(true) => {
                let scale = scale.clone();
                self.scaled(stream, &scale);
            }
        }
    }

    fn scaled(&mut self, stream: usize, scale: &Scale) {
        self.note(format_args!("stream {stream}: {:?} have ended", scale.sealed));
        let now = self.now();
        for op in std::mem::take(&mut self.streams[stream].ops) {
            self.recorder.end(now, u32::MAX, op, What::Ok { answer: Answer::Done });
        }
        let s = &mut self.streams[stream];
        if scale.made.is_empty() {
            s.sealed = true;
            s.phase = Phase::Sealed;
            return;
        }
        s.phase = Phase::Live;
        s.current.retain(|place| !scale.sealed.contains(place));
        s.current.extend(&scale.made);
        s.current.sort_by_key(|place| s.places[*place].range);
        self.coverage.scales += 1;
        if self.plan.raw_writers > 0 && self.random.workload.chance(1, 4) {
            let at = self.random.workload.below(scale.made.len() as u64) as usize;
            self.start_raw(stream, scale.made[at]);
        }
    }
}

impl Stream {
    fn add_place(&mut self, epoch: u32, range: KeyRange, container: ContainerId, sealed: &[usize]) {
        let sealed = sealed.iter().map(|place| &self.places[*place]);
        let followed = sealed.filter(|place| place.range.overlaps(range));
        let predecessors: Vec<SegmentId> = followed.map(|place| place.segment).collect();
        let segment = SegmentId {
            stream: predecessors[0].stream,
            epoch: StreamEpoch(epoch),
            number: SegmentNumber(self.places.len() as u32),
        };
        let endpoint = String::new();
        self.places.push(SegmentPlace { segment, range, container, endpoint, predecessors });
    }

    /// Where the keys of the sealed places go on.
    fn moved(&self, sealed: &[usize], made: &[usize]) -> Vec<Moved> {
        let owner = |places: &[usize], key: u32| {
            let position = position_of_key(&key_text(key));
            let found = places.iter().find(|p| self.places[**p].range.contains(position))?;
            Some(*found as u32)
        };
        let moved = |key: &u32| {
            Some(Moved { key: *key, from: owner(sealed, *key)?, to: owner(made, *key)? })
        };
        self.keys.iter().filter_map(moved).collect()
    }

    fn creations(&self, scale: &Scale) -> Vec<(ContainerId, StoreAction)> {
        let mut by_container: BTreeMap<ContainerId, Vec<NewSegment>> = BTreeMap::new();
        for place in scale.made.iter().map(|place| &self.places[*place]) {
            by_container.entry(place.container).or_default().push(NewSegment {
                segment: place.segment,
                stream: self.name.clone(),
                range: place.range,
                predecessors: place.predecessors.clone(),
            });
        }
        by_container.into_iter().map(|(c, segments)| (c, StoreAction::Create(segments))).collect()
    }

    fn seals(&self, scale: &Scale) -> Vec<(ContainerId, StoreAction)> {
        let mut by_container: BTreeMap<ContainerId, Vec<SegmentSeal>> = BTreeMap::new();
        for place in scale.sealed.iter().map(|place| &self.places[*place]) {
            let (segment, successors) = (place.segment, self.successors_of(place.segment));
            let seals = by_container.entry(place.container).or_default();
            seals.push(SegmentSeal { segment, successors });
        }
        by_container.into_iter().map(|(c, seals)| (c, StoreAction::Seal(seals))).collect()
    }
}

/// Whether all commands were carried out; an error is one that never can be.
async fn give(
    stores: &impl SegmentStores,
    job: JobId,
    step: u32,
    fence: Fence,
    actions: Vec<(ContainerId, StoreAction)>,
) -> Result<bool, String> {
    for (container, action) in actions {
        match stores.perform(StoreCommand { container, job, step, fence, action }).await {
            Ok(_) => {}
            Err(StoreError::Refused(problem)) => return Err(problem),
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}
