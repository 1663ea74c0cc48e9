//! Drives jobs while this node leads the controller group.
//!
//! One task owns the runner: it awaits an event (a job moved on, a command was answered, a step is
//! recorded, somebody's time comes, a look at the leadership is due), then looks in the state for
//! steps whose turn it is and starts their commands (see [`schedule`]). What fails frees its slots
//! and is tried again later, for as long as this node leads; the next leader begins with the step
//! that is recorded as next. Requests wait for their job through [`Jobs::wait`].
//!
//! A container that obeys a higher fence is asked nothing more until it is known why: either another
//! leader commands by now, and then nothing that this one proposes is accepted any more; or this
//! history of the controller lacks entries that it once had, and then the entry that raises its
//! fence is accepted, and it goes on.

mod introduce;
mod schedule;
mod step;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{ContainerId, Fence, Tasks, Term};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use introduce::Bootstrap;
pub use waiting::{Jobs, WaitError};

use crate::group::{Group, GroupError, query};
use crate::jobs::{Step, next_steps};
use crate::settings::ControllerSettings;
use crate::stores::{JobId, SegmentStores, StoreAnswer, StoreError};
use schedule::Schedule;
use step::{Attempt, Ended, Running};
use waiting::{Problem, Waiting};

/// Jobs that are looked at with one question: what it costs the state's thread is bounded.
const LOOKED_AT_MAX: usize = 64;

/// Components of the runner, most general first.
pub struct Runner {
    settings: ControllerSettings,
    group: Arc<dyn Group>,
    stores: Arc<dyn SegmentStores>,
    /// Of the machine behind `group`.
    progress: watch::Receiver<u64>,
    bootstrap: Bootstrap,
    waiting: Arc<Waiting>,
    schedule: Schedule,
    running: BTreeMap<JobId, Running>,
    under_way: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// Whether the entry that raises the fence is on its way.
    raising: bool,
    /// The newest job that is known to the schedule: newer ones have higher ids.
    known: Option<JobId>,
    /// The term for which the state was looked at last.
    looked_in: Option<Term>,
}

impl Runner {
    pub fn new(
        settings: ControllerSettings,
        group: Arc<dyn Group>,
        stores: Arc<dyn SegmentStores>,
        progress: watch::Receiver<u64>,
        bootstrap: Bootstrap,
    ) -> Self {
        Self {
            schedule: Schedule::new(&settings),
            settings,
            group,
            stores,
            progress,
            bootstrap,
            waiting: Arc::default(),
            running: BTreeMap::new(),
            under_way: FuturesUnordered::new(),
            raising: false,
            known: None,
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
            let now = Instant::now();
            let time_comes = self.schedule.next_time(now);
            let due = tokio::time::sleep_until(time_comes.unwrap_or(now));
            let look = tokio::select! {
                biased;
                () = token.cancelled() => return,
                Some(ended) = self.under_way.next() => {
                    self.take_all(ended);
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
                () = due, if time_comes.is_some() => true,
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
            introduce::introduce(&*self.group, &self.bootstrap).await?;
            self.schedule.begin_anew();
            self.known = None;
            let containers = query(&*self.group, |machine| {
                machine.containers().keys().copied().collect::<Vec<ContainerId>>()
            });
            let containers = containers.await?;
            self.looked_in = Some(term);
            self.under_way.push(step::ask(&self.stores, containers));
        }
        loop {
            let asked = self.schedule.ready(Instant::now(), LOOKED_AT_MAX);
            let (jobs, known) = (asked.clone(), self.known);
            let found =
                query(&*self.group, move |machine| next_steps(machine, term, &jobs, known)).await?;
            self.known = found.newest.or(self.known);
            found.new.into_iter().for_each(|job| self.schedule.learn(job));
            asked[..found.looked_at].iter().for_each(|job| self.schedule.forget(*job));
            let more = found.looked_at > 0 || found.newest.is_some();
            for step in found.steps {
                self.begin(step);
            }
            if !more {
                break;
            }
        }
        self.looked_in = Some(term);
        Ok(())
    }

    fn begin(&mut self, step: Step) {
        let job = step.job;
        if !self.schedule.begin(job, step.containers(), Instant::now()) {
            return;
        }
        if step.commands.is_empty() {
            match step.done(&[]) {
                Ok(done) => self.under_way.push(step::record(&self.group, job, done)),
                Err(error) => unreachable!("a step without commands lacks nothing: {error}"),
            }
        }
        for at in 0..step.commands.len() {
            self.under_way.push(step::command(&self.stores, &step, at));
        }
        self.running.insert(job, Running::new(step));
    }

    /// Takes what ended, and what else has ended by now.
    fn take_all(&mut self, first: Ended) {
        let mut next = Some(first);
        while let Some(ended) = next {
            match ended {
                Ended::Command { job, at, answer } => self.answered(job, at, answer),
                Ended::Recorded { job, attempt } => self.recorded(job, attempt),
                Ended::Asked { container, fence } => self.obeys(container, fence),
                Ended::Compared => self.raising = false,
            }
            next = self.under_way.next().now_or_never().flatten();
        }
    }

    fn answered(&mut self, job: JobId, at: usize, answer: Result<StoreAnswer, StoreError>) {
        let now = Instant::now();
        let running = self.running.get_mut(&job).expect("a step's commands end before it does");
        let container = running.container(at);
        match &answer {
            Err(StoreError::Unavailable(_) | StoreError::Stopped(_)) => {
                self.schedule.failed(container, now);
            }
            _ => self.schedule.answered(container, now),
        }
        if !running.take(at, answer) {
            return;
        }
        let operation = match running.outcome() {
            Ok(done) => done,
            Err(StoreError::Refused(problem)) => {
                let step = running.step.step;
                tracing::error!(%job, step, problem, "job step cannot be carried out");
                running.step.failed(problem)
            }
            Err(error) => return self.try_again(job, error),
        };
        self.under_way.push(step::record(&self.group, job, operation));
    }

    /// A step that was not carried out gives way to others, and is begun again.
    fn try_again(&mut self, job: JobId, error: StoreError) {
        let running = self.running.remove(&job).expect("it was there just now");
        let containers = running.containers();
        self.waiting.tell(job, Problem::new(&error));
        match error {
            StoreError::StaleFence { container, current } => {
                self.rest(job);
                self.obeys(container, current);
            }
            StoreError::Stopped(problem) => {
                let step = running.step.step;
                tracing::error!(%job, step, problem, "job step waits for a container that stopped");
                self.schedule.again(job, containers);
            }
            error => {
                let step = running.step.step;
                tracing::info!(%job, step, %error, "job step is tried again");
                self.schedule.again(job, containers);
            }
        }
    }

    fn recorded(&mut self, job: JobId, attempt: Attempt) {
        let running = self.running.remove(&job).expect("a step is recorded once");
        match attempt {
            Attempt::Recorded => {
                self.schedule.moved_on(job);
                self.waiting.wake(job);
            }
            // A pause, so that a leader that does not know yet that it is deposed is quiet.
            Attempt::Deposed => self.rest(job),
            Attempt::Again(problem) => {
                let step = running.step.step;
                tracing::warn!(%job, step, problem, "job step is not recorded yet");
                self.waiting.tell(job, Problem::passing(problem));
                self.rest(job);
            }
        }
    }

    fn rest(&mut self, job: JobId) {
        self.schedule.rest(job, self.settings.retry_delay_max, Instant::now());
    }

    /// A container obeys `fence`, which may be above this leader's.
    fn obeys(&mut self, container: ContainerId, fence: Fence) {
        if let (Some(term), false) = (self.looked_in, self.raising) {
            self.raising = true;
            self.under_way.push(step::go_above(&self.group, term, container, fence));
        }
    }
}

/// The term in which this node leads the group now.
fn leading(group: &dyn Group) -> Option<Term> {
    group.leadership().borrow().serving
}

#[cfg(test)]
mod tests;
