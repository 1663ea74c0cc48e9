//! Who this cluster is and what it consists of: identity, counters, stores, containers.

use common::limits::{SEGMENTS_MAX, STREAMS_MAX};
use common::{ContainerId, Fence, Incarnation, StreamId, Term, WriterEpoch};

use crate::machine::records::Key;
use crate::machine::{ControllerMachine, State};
use crate::operation::StoreId;
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::stores::JobId;

/// A fence's term holds the era above so many bits of the Raft term: no group elects 2^40 leaders.
const ERA_SHIFT: u32 = 40;

/// The era of whoever gave this fence.
pub(super) fn era_of(fence: Fence) -> u32 {
    u32::try_from(fence.term.0 >> ERA_SHIFT).expect("24 bits are left")
}

/// The cluster's identity, and the counters from which ids are given out. Ids are led by the
/// incarnation and never given twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub id: u128,
    pub incarnation: Incarnation,
    pub(crate) streams_made: u64,
    pub(crate) jobs_made: u64,
    pub(crate) writer_epochs_made: u64,
    /// Raised when containers turn out to obey a fence that this history of the controller never
    /// gave: leads the term in every fence.
    pub(crate) era: u32,
    /// Counters of stream ids that were passed over, first and last: what has them was made by a
    /// history that this one knows nothing of.
    pub(crate) passed_over: Vec<(u64, u64)>,
}

/// A process that holds containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// `host:port`; empty: where the controller itself answers.
    pub endpoint: String,
}

/// A container and the store that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub store: StoreId,
    /// Segments placed in it: what placement balances. Counted, not saved.
    pub segments: u64,
}

impl Cluster {
    pub(crate) fn next_stream(&mut self) -> StreamId {
        self.streams_made += 1;
        StreamId::new(self.incarnation, self.streams_made)
    }

    pub(crate) fn next_job(&mut self) -> JobId {
        self.jobs_made += 1;
        JobId::new(self.incarnation, self.jobs_made)
    }

    /// What commands of the leader of `term` carry: higher than that of every leader before it, also
    /// where the terms of an earlier history of the controller were higher.
    pub fn fence(&self, term: Term) -> Fence {
        let term = Term(u64::from(self.era) << ERA_SHIFT | term.0);
        Fence { incarnation: self.incarnation, term }
    }

    /// Of all names and streams, so that a name that is made again is above its earlier life.
    pub(crate) fn next_writer_epoch(&mut self) -> WriterEpoch {
        self.writer_epochs_made += 1;
        WriterEpoch::new(self.incarnation, self.writer_epochs_made)
    }
}

impl State {
    /// Refuses a stream that would be one too many, or have too many segments beside the others.
    pub(super) fn check_room(&self, segments: u32) -> Result<(), Refusal> {
        if self.streams.len() >= STREAMS_MAX {
            return Err(Refusal::TooManyStreams);
        }
        if self.segments + u64::from(segments) > SEGMENTS_MAX {
            let (asked, there) = (segments, self.segments);
            return Err(Refusal::TooManySegments { asked, there });
        }
        Ok(())
    }
}

impl ControllerMachine {
    pub(super) fn initialize(&mut self, cluster: u128, incarnation: Incarnation) -> Outcome {
        if let Some(existing) = &self.state.cluster {
            return Ok(Accepted::Initialized { cluster: existing.id });
        }
        self.state.cluster = Some(Cluster {
            id: cluster,
            incarnation,
            streams_made: 0,
            jobs_made: 0,
            writer_epochs_made: 0,
            era: 0,
            passed_over: Vec::new(),
        });
        self.dirty.insert(Key::Cluster);
        Ok(Accepted::Initialized { cluster })
    }

    pub(super) fn register_store(
        &mut self,
        store: StoreId,
        endpoint: &str,
        containers: &[ContainerId],
    ) -> Outcome {
        self.initialized()?;
        self.state.stores.insert(store, Store { endpoint: endpoint.to_owned() });
        self.dirty.insert(Key::Store(store));
        for container in containers {
            let known = self.state.containers.entry(*container);
            known.or_insert(Container { store, segments: 0 }).store = store;
            self.dirty.insert(Key::Container(*container));
        }
        Ok(Accepted::StoreRegistered)
    }

    pub(super) fn initialized(&self) -> Result<(), Refusal> {
        self.state.cluster.as_ref().map(|_| ()).ok_or(Refusal::NotInitialized)
    }

    /// The identity for giving out an id: marked to be saved.
    pub(super) fn counters(&mut self) -> &mut Cluster {
        self.dirty.insert(Key::Cluster);
        self.state.cluster.as_mut().expect("operations are refused until the cluster has identity")
    }

    /// Where clients find a container; empty: where they found the controller.
    pub fn endpoint_of(&self, container: ContainerId) -> &str {
        let store = self.state.containers.get(&container).map(|c| c.store);
        store.and_then(|s| self.state.stores.get(&s)).map_or("", |s| s.endpoint.as_str())
    }
}
