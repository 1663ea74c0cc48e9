//! Who this cluster is and what it consists of: identity, counters, stores, containers.

use common::{ContainerId, Incarnation, StreamId, WriterId};

use crate::machine::ControllerMachine;
use crate::machine::records::Key;
use crate::operation::StoreId;
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::stores::JobId;

/// The cluster's identity, and the counters from which ids are given out. Ids are led by the
/// incarnation and never given twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub id: u128,
    pub incarnation: Incarnation,
    pub(crate) streams_made: u64,
    pub(crate) jobs_made: u64,
    pub(crate) writers_made: u64,
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

    /// Anonymous writers draw 128 random bits; these differ from each other and from those.
    pub(crate) fn next_writer(&mut self) -> WriterId {
        self.writers_made += 1;
        WriterId(u128::from(self.incarnation.0) << 112 | u128::from(self.writers_made))
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
            writers_made: 0,
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
