//! Controller and containers come back from different moments: what one knows and the other does
//! not is settled here, by entries of both, so that it is replayed like everything else.
//!
//! - What a container has of a stream that the controller knows is right: lengths, starts, seals.
//! - A segment that the controller knows and its container does not is created, empty.
//! - A stream that the controller never knew is made again; one that it knew as deleted is deleted.
//! - A stream that lost a segment to a deletion is deleted as a whole, which it was to be.
//! - A stream of which a segment is sealed is sealed as a whole: who met it was told that it takes
//!   nothing any more.
//! - Workflows that were under way are carried to their ends here, from their first steps, so that
//!   what is reported is what will be there.

use std::collections::{BTreeMap, BTreeSet};

use common::{ContainerId, Fence, Incarnation, ScopedStream, SegmentId, StreamId};
use controller::group::query;
use controller::machine::{Stream, StreamState};
use controller::{
    Accepted, AdoptedSegment, FoundSegment, Group, JobId, Operation, Refusal, StoreId,
};
use segmentstore::{CommandId, SegmentDescription, SegmentIdentity, SegmentKind, StoreCommands};

use super::report::{SegmentReport, StreamChange, StreamReport};
use super::{Recovering, chain};

/// Segments described by one question.
const PAGE: usize = 1_000;
/// Looks at all streams: one for each thing that can be left of a stream's life (made, truncated,
/// sealed, deleted), and as many that change a place.
const LOOKS_MAX: usize = 8;

/// What came of it.
pub(super) struct Reconciled {
    pub(super) cluster: u128,
    pub(super) streams: Vec<StreamReport>,
    pub(super) changes: Vec<StreamChange>,
}

/// Everything that the containers have, by stream.
type Described = BTreeMap<StreamId, Vec<(ContainerId, SegmentDescription)>>;

pub(super) struct Reconciler<'a> {
    pub(super) node: &'a Recovering,
    pub(super) commands: StoreCommands,
    pub(super) id: CommandId,
    changes: Vec<StreamChange>,
}

impl Recovering {
    pub(super) async fn reconcile(&self, incarnation: Incarnation) -> Result<Reconciled, String> {
        let term = self.controller.status().term;
        let fence = Fence { incarnation, term };
        let id = CommandId { fence, job: JobId::new(incarnation, 0).0, step: 0 };
        let commands = self.commands();
        let mut reconciler = Reconciler { node: self, commands, id, changes: Vec::new() };
        let cluster = reconciler.introduce(incarnation).await?;
        let described = reconciler.described().await?;
        reconciler.streams(incarnation, &described).await?;
        let streams = reconciler.report().await?;
        Ok(Reconciled { cluster, streams, changes: reconciler.changes })
    }
}

impl Reconciler<'_> {
    pub(super) fn note(&mut self, stream: impl ToString, what: impl Into<String>) {
        self.changes.push(StreamChange { stream: stream.to_string(), what: what.into() });
    }

    pub(super) async fn submit(
        &self,
        operation: Operation,
    ) -> Result<Result<Accepted, Refusal>, String> {
        self.node.group().submit(operation).await.map_err(|error| error.to_string())
    }

    /// A controller that came back empty is given an identity; all containers are made known.
    async fn introduce(&mut self, incarnation: Incarnation) -> Result<u128, String> {
        let known = query(&self.node.group(), |machine| machine.cluster().map(|c| c.id)).await;
        let known = known.map_err(|error| error.to_string())?;
        let cluster = match known {
            Some(cluster) => cluster,
            None => {
                self.note("-", "nothing of the controller was archived: it begins anew");
                let cluster = u128::from(incarnation.0) << 64 | u128::from(self.id.fence.term.0);
                let began = Operation::Initialize { cluster, incarnation };
                self.submit(began).await?.map_err(|refusal| refusal.to_string())?;
                cluster
            }
        };
        let containers = self.node.containers.iter().map(|(id, _)| *id).collect();
        let store =
            Operation::RegisterStore { store: StoreId(1), endpoint: String::new(), containers };
        self.submit(store).await?.map_err(|refusal| refusal.to_string())?;
        Ok(cluster)
    }

    async fn described(&self) -> Result<Described, String> {
        let containers = self.node.handles();
        let mut described = Described::new();
        for (container, _) in &self.node.containers {
            let mut after: Option<SegmentId> = None;
            loop {
                let from = after;
                let page = containers
                    .ask(*container, move |machine| machine.describe_after(from, PAGE))
                    .await
                    .map_err(|error| chain(&error))?;
                after = page.last().map(|last| last.identity.segment);
                let full = page.len() == PAGE;
                for segment in page {
                    let stream = segment.identity.segment.stream;
                    described.entry(stream).or_default().push((*container, segment));
                }
                if !full {
                    break;
                }
            }
        }
        Ok(described)
    }

    async fn streams(
        &mut self,
        incarnation: Incarnation,
        described: &Described,
    ) -> Result<(), String> {
        let ids: Vec<StreamId> = described.keys().copied().collect();
        let group = self.node.group();
        let known = query(&group, move |machine| {
            ids.into_iter().filter(|id| machine.knew_stream(*id)).collect::<BTreeSet<_>>()
        });
        let knew = known.await.map_err(|error| error.to_string())?;
        let streams = self.known().await?;
        let streams_made = described.keys().map(|id| id.counter()).max().unwrap_or(0);
        let recover = Operation::Recover { incarnation, streams_made };
        self.submit(recover).await?.map_err(|refusal| refusal.to_string())?;
        // Deletions first: they free the names of streams that were made again.
        self.settle().await?;
        for (id, segments) in described.iter().filter(|(id, _)| !streams.contains_key(id)) {
            match knew.contains(id) {
                true => self.deleted_stream(segments).await?,
                false => self.adopt(*id, segments).await?,
            }
        }
        self.settle().await
    }

    /// Brings all known streams in line with their segments.
    async fn settle(&mut self) -> Result<(), String> {
        for _ in 0..LOOKS_MAX {
            let described = self.described().await?;
            let mut changed = false;
            for stream in self.known().await?.values() {
                let found = described.get(&stream.id).map_or(&[][..], Vec::as_slice);
                changed |= self.known_stream(stream, found).await?;
            }
            if !(self.run_jobs().await? || changed) {
                return Ok(());
            }
        }
        Err(format!("streams are not in line with their segments after {LOOKS_MAX} looks"))
    }

    async fn known(&self) -> Result<BTreeMap<StreamId, Stream>, String> {
        let streams = query(&self.node.group(), |machine| machine.all_streams().clone()).await;
        streams.map_err(|error| error.to_string())
    }

    /// Whether something was changed, so that it has to be looked at again.
    async fn known_stream(
        &mut self,
        stream: &Stream,
        described: &[(ContainerId, SegmentDescription)],
    ) -> Result<bool, String> {
        let has = |id| described.iter().find(|(_, found)| found.identity.segment == id);
        if stream.state != StreamState::Deleting {
            for (key, segment) in &stream.segments {
                if has(stream.segment_id(*key)).is_none() {
                    self.create(stream, *key, segment.container).await?;
                }
            }
        }
        if stream.state == StreamState::Sealed {
            self.seal_again(stream, described).await?;
        }
        if stream.state == StreamState::Deleting {
            self.delete_dropped(stream, described).await?;
        }
        let is_gone = |(_, found): &(ContainerId, SegmentDescription)| {
            found.bounds.deleted && stream.current.contains(&Stream::key_of(found.identity.segment))
        };
        let found = described.iter().map(|(_, found)| FoundSegment {
            key: Stream::key_of(found.identity.segment),
            start: found.bounds.start,
            length: found.bounds.length,
            sealed: found.successors.as_ref().is_some_and(Vec::is_empty),
            deleted: found.bounds.deleted,
        });
        let reconcile = Operation::ReconcileStream { stream: stream.id, found: found.collect() };
        match self.submit(reconcile).await? {
            Ok(Accepted::Reconciled { clamped: 0, .. }) => return Ok(false),
            Ok(Accepted::Reconciled { clamped, .. }) => {
                let what = format!("{clamped} places of the controller were set to what is there");
                self.note(&stream.name, what);
            }
            Ok(_) if described.iter().any(is_gone) => {
                self.note(&stream.name, "its deletion had begun and is ended");
            }
            Ok(_) => self.note(
                &stream.name,
                "its seal, or a deletion that came no further, had begun: it is sealed",
            ),
            Err(refusal) => return Err(refusal.to_string()),
        }
        Ok(true)
    }

    async fn create(
        &mut self,
        stream: &Stream,
        key: controller::machine::SegmentKey,
        container: ContainerId,
    ) -> Result<(), String> {
        let segment = stream.segment_id(key);
        let record = &stream.segments[&key];
        let identity = SegmentIdentity {
            segment,
            stream: stream.name.clone(),
            range: record.range,
            kind: SegmentKind::Stream,
            predecessors: record.predecessors.iter().map(|k| stream.segment_id(*k)).collect(),
        };
        let created = self.commands.create(container, self.id, identity).await;
        created.map_err(|error| error.to_string())?;
        // A stream whose creation runs gets its segments from that.
        if stream.job.is_none() {
            self.note(
                &stream.name,
                format!("nothing of segment {segment} was archived: it is empty"),
            );
        }
        Ok(())
    }

    /// What was sealed takes no events, also where the seal itself was not archived.
    async fn seal_again(
        &mut self,
        stream: &Stream,
        described: &[(ContainerId, SegmentDescription)],
    ) -> Result<(), String> {
        for key in &stream.current {
            let (id, container) = (stream.segment_id(*key), stream.segments[key].container);
            let sealed = described
                .iter()
                .any(|(_, found)| found.identity.segment == id && found.successors.is_some());
            if !sealed {
                let sealed = self.commands.seal(container, self.id, id, Vec::new()).await;
                sealed.map_err(|error| error.to_string())?;
                self.note(&stream.name, format!("segment {id} is sealed again"));
            }
        }
        Ok(())
    }

    /// What the records dropped already of a stream that is being deleted goes with them.
    async fn delete_dropped(
        &mut self,
        stream: &Stream,
        described: &[(ContainerId, SegmentDescription)],
    ) -> Result<(), String> {
        let is_dropped = |(_, found): &&(ContainerId, SegmentDescription)| {
            stream.known_segment(Stream::key_of(found.identity.segment)).is_none()
        };
        let dropped: Vec<_> = described.iter().filter(is_dropped).cloned().collect();
        self.deleted_stream(&dropped).await
    }

    async fn deleted_stream(
        &mut self,
        segments: &[(ContainerId, SegmentDescription)],
    ) -> Result<(), String> {
        for (container, found) in segments {
            let segment = found.identity.segment;
            let deleted = self.commands.delete(*container, self.id, segment).await;
            deleted.map_err(|error| error.to_string())?;
            let forgotten = self.commands.forget(*container, self.id, segment).await;
            forgotten.map_err(|error| error.to_string())?;
        }
        if let Some((_, first)) = segments.iter().find(|(_, found)| !found.bounds.deleted) {
            self.note(&first.identity.stream, "it was deleted, and its segments are deleted again");
        }
        Ok(())
    }

    async fn adopt(
        &mut self,
        id: StreamId,
        segments: &[(ContainerId, SegmentDescription)],
    ) -> Result<(), String> {
        let living = || segments.iter().filter(|(_, found)| !found.bounds.deleted);
        let Some((_, first)) = living().next() else { return self.deleted_stream(segments).await };
        // One that others follow was truncated away.
        let is_followed =
            |id| segments.iter().any(|(_, found)| found.identity.predecessors.contains(&id));
        let is_gone = |found: &SegmentDescription| {
            found.bounds.deleted && !is_followed(found.identity.segment)
        };
        if segments.iter().any(|(_, found)| is_gone(found)) {
            return self.deleted_stream(segments).await;
        }
        let name = first.identity.stream.clone();
        let adopted: Vec<AdoptedSegment> = living()
            .map(|(container, found)| AdoptedSegment {
                key: Stream::key_of(found.identity.segment),
                range: found.identity.range,
                container: *container,
                predecessors: found
                    .identity
                    .predecessors
                    .iter()
                    .copied()
                    .map(Stream::key_of)
                    .collect(),
                sealed: found.successors.as_ref().map(|_| found.bounds.length),
            })
            .collect();
        let adopt = |name: ScopedStream| Operation::AdoptStream {
            stream: id,
            name,
            segments: adopted.clone(),
        };
        match self.submit(adopt(name.clone())).await? {
            Ok(_) => self.note(&name, "the controller did not know it: it was made again"),
            Err(Refusal::NameTaken(_)) => self.adopt_as(id, &name, adopt).await?,
            Err(refusal) => self.note(&name, format!("{refusal}; its segments are left alone")),
        }
        Ok(())
    }

    /// The name belongs to another stream, made later or before.
    async fn adopt_as(
        &mut self,
        id: StreamId,
        name: &ScopedStream,
        adopt: impl Fn(ScopedStream) -> Operation,
    ) -> Result<(), String> {
        let other = format!("{}.recovered-{id}", name.stream);
        let Ok(other) = ScopedStream::new(name.scope.as_str(), &other) else {
            self.note(name, "its name is taken, and too long for another: its segments are left");
            return Ok(());
        };
        match self.submit(adopt(other.clone())).await? {
            Ok(_) => self.note(&other, format!("made again of what was another stream `{name}`")),
            Err(refusal) => self.note(name, format!("{refusal}; its segments are left alone")),
        }
        Ok(())
    }

    /// The streams as they are now.
    async fn report(&self) -> Result<Vec<StreamReport>, String> {
        let described = self.described().await?;
        let streams = self.known().await?;
        let none = Vec::new();
        let stream = |stream: &Stream| {
            let found = described.get(&stream.id).unwrap_or(&none);
            let segments = found.iter().filter(|(_, found)| !found.bounds.deleted);
            let segment = |(_, found): &(ContainerId, SegmentDescription)| SegmentReport {
                segment: found.identity.segment.to_string(),
                start: found.bounds.start.0,
                length: found.bounds.length.0,
                newest_micros: found.newest.map(|time| time.0),
            };
            StreamReport {
                stream: stream.name.to_string(),
                state: state(stream.state),
                segments: segments.map(segment).collect(),
            }
        };
        Ok(streams.values().map(stream).collect())
    }
}

const fn state(state: StreamState) -> &'static str {
    match state {
        StreamState::Creating => "creating",
        StreamState::Active => "active",
        StreamState::Sealing => "sealing",
        StreamState::Sealed => "sealed",
        StreamState::Deleting => "deleting",
    }
}
