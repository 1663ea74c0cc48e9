//! Drives jobs while this node leads the controller group.
//!
//! One task owns the runner: it awaits an event (a job moved on, a step ended, a look at the
//! leadership is due), then asks the state for steps that nobody carries out yet and starts them, a
//! bounded number at a time. A step is repeated with growing delays until the stores did it and
//! its entry is recorded, or the leadership is lost; the next leader begins with the step that
//! is recorded as next. Requests wait for their job through [`Jobs::wait`].

mod step;
mod waiting;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{ContainerId, Incarnation, Rng, Tasks, Term};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use waiting::{Jobs, WaitError};

use crate::group::{Group, GroupError, query};
use crate::jobs::pending_steps;
use crate::machine::ControllerMachine;
use crate::operation::{Operation, StoreId};
use crate::settings::ControllerSettings;
use crate::stores::{JobId, SegmentStores};
use waiting::Waiting;

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

/// Components of the runner, most general first.
pub struct Runner {
    settings: ControllerSettings,
    rng: Rng,
    group: Arc<dyn Group>,
    stores: Arc<dyn SegmentStores>,
    /// Of the machine behind `group`.
    progress: watch::Receiver<u64>,
    bootstrap: Bootstrap,
    waiting: Arc<Waiting>,
    running: BTreeSet<JobId>,
    steps: FuturesUnordered<BoxFuture<'static, JobId>>,
    /// The term for which the state was looked at last.
    looked_in: Option<Term>,
}

impl Runner {
    pub fn new(
        settings: ControllerSettings,
        rng: Rng,
        group: Arc<dyn Group>,
        stores: Arc<dyn SegmentStores>,
        progress: watch::Receiver<u64>,
        bootstrap: Bootstrap,
    ) -> Self {
        Self {
            settings,
            rng,
            group,
            stores,
            progress,
            bootstrap,
            waiting: Arc::default(),
            running: BTreeSet::new(),
            steps: FuturesUnordered::new(),
            looked_in: None,
        }
    }

    /// Starts the runner; it ends with `tasks`. Its panic ends the task set: without jobs, streams
    /// are neither made nor deleted.
    pub fn start(self, tasks: &Tasks) -> Jobs {
        let jobs = Jobs::new(self.settings.clone(), self.group.clone(), self.waiting.clone());
        let token = tasks.token();
        tasks.spawn("controller jobs", self.run(token));
        jobs
    }

    async fn run(mut self, token: CancellationToken) {
        let mut check = tokio::time::interval(self.settings.look_again_interval);
        let mut leadership = self.group.leadership();
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let look = tokio::select! {
                biased;
                () = token.cancelled() => return,
                Some(job) = self.steps.next() => {
                    self.running.remove(&job);
                    self.waiting.wake(job);
                    true
                }
                changed = self.progress.changed() => match changed {
                    Ok(()) => true,
                    // The machine is gone, and with it the group.
                    Err(_) => return,
                },
                changed = leadership.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
                // What failed is tried again.
                _ = check.tick() => leading(&*self.group) != self.looked_in,
            };
            if look {
                let looked = tokio::select! {
                    biased;
                    () = token.cancelled() => return,
                    looked = self.look() => looked,
                };
                if let Err(error) = looked {
                    // Not leading any more, or not yet able: the next check looks again.
                    tracing::debug!(%error, "controller jobs wait");
                    self.looked_in = None;
                }
            }
        }
    }

    /// Starts what is to be done and not being done yet.
    async fn look(&mut self) -> Result<(), GroupError> {
        let Some(term) = leading(&*self.group) else {
            self.looked_in = None;
            return Ok(());
        };
        if self.looked_in != Some(term) {
            self.introduce().await?;
        }
        let room = self.settings.jobs_in_flight_max.saturating_sub(self.running.len());
        let running = self.running.clone();
        let steps = query(&*self.group, move |machine| {
            pending_steps(machine, term, room, |job| !running.contains(&job))
        })
        .await?;
        for step in steps {
            self.running.insert(step.job);
            let carry = step::Carry {
                settings: self.settings.clone(),
                rng: self.rng.fork("job step"),
                group: self.group.clone(),
                stores: self.stores.clone(),
                term,
                step,
            };
            self.steps.push(Box::pin(carry.carry_out()));
        }
        self.looked_in = Some(term);
        Ok(())
    }

    /// Gives the cluster its identity where it has none, and makes the store known.
    async fn introduce(&mut self) -> Result<(), GroupError> {
        let wanted = self.bootstrap.clone();
        let missing = query(&*self.group, move |machine| missing(machine, &wanted)).await?;
        for operation in missing {
            if let Err(refusal) = self.group.submit(operation).await? {
                tracing::error!(error = %refusal, "the controller refuses its own introduction");
            }
        }
        Ok(())
    }
}

/// The term in which this node leads the group now.
fn leading(group: &dyn Group) -> Option<Term> {
    group.leadership().borrow().serving
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

#[cfg(test)]
mod tests;
