//! What a leader tells the state before it commands: who the cluster is, and where its containers
//! are.

use common::{ContainerId, Incarnation, Rng};

use crate::group::{Group, GroupError, query};
use crate::machine::ControllerMachine;
use crate::operation::{Operation, StoreId};

/// What the first leader of a cluster tells the state, and each later one checks.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Random; counts only if the cluster has no identity yet.
    pub cluster: u128,
    pub store: StoreId,
    /// `host:port` of the store; empty: the endpoint where the controller answers.
    pub endpoint: String,
    pub containers: Vec<ContainerId>,
}

impl Bootstrap {
    /// The one store of a single machine, in the same process as the controller.
    pub fn single(rng: &mut Rng, containers: Vec<ContainerId>) -> Self {
        Self { cluster: rng.u128(), store: StoreId(1), endpoint: String::new(), containers }
    }
}

/// Gives the cluster its identity where it has none, and makes the store known.
pub(super) async fn introduce(group: &dyn Group, wanted: &Bootstrap) -> Result<(), GroupError> {
    let asked = wanted.clone();
    for operation in query(group, move |machine| missing(machine, &asked)).await? {
        if let Err(refusal) = group.submit(operation).await? {
            tracing::error!(error = %refusal, "the controller refuses its own introduction");
        }
    }
    Ok(())
}

/// The operations that bring what `wanted` says into the state; none where it is there.
fn missing(machine: &ControllerMachine, wanted: &Bootstrap) -> Vec<Operation> {
    let mut operations = Vec::new();
    if machine.cluster().is_none() {
        let (cluster, incarnation) = (wanted.cluster, Incarnation(1));
        operations.push(Operation::Initialize { cluster, incarnation });
    }
    let endpoint = machine.stores().get(&wanted.store).map(|store| &store.endpoint);
    let held = |container| {
        machine.containers().get(container).is_some_and(|known| known.store == wanted.store)
    };
    if endpoint != Some(&wanted.endpoint) || !wanted.containers.iter().all(held) {
        operations.push(Operation::RegisterStore {
            store: wanted.store,
            endpoint: wanted.endpoint.clone(),
            containers: wanted.containers.clone(),
        });
    }
    operations
}
