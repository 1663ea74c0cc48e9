//! Requests that wait for jobs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::group::{Group, GroupError, query};
use crate::settings::ControllerSettings;
use crate::stores::{JobId, StoreError};

/// Waits for jobs that the runner drives. Cloning shares it.
#[derive(Clone)]
pub struct Jobs {
    settings: ControllerSettings,
    group: Arc<dyn Group>,
    waiting: Arc<Waiting>,
}

/// Why a wait ended before the job was known to be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    #[error(
        "job {job} is not done yet and goes on{}; ask for the stream again in a moment",
        .problem.as_ref().map(|problem| format!(" ({problem})")).unwrap_or_default()
    )]
    Late { job: JobId, step: u32, problem: Option<String> },
    /// Waiting does not help; the job goes on once a person has.
    #[error("job {job} waits for a person: {problem}")]
    Stopped { job: JobId, problem: String },
    #[error("job {job} was given up: {problem}")]
    Failed { job: JobId, problem: String },
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// One bell per job that someone waits for.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<BTreeMap<JobId, Bell>>);

#[derive(Debug, Default)]
struct Bell {
    notify: Arc<Notify>,
    waiters: usize,
    /// What kept the job from moving on last.
    problem: Option<Problem>,
}

/// Why a job does not move on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    text: String,
    /// Whether it lasts until a person does something.
    lasting: bool,
}

impl Problem {
    pub(super) fn new(error: &StoreError) -> Self {
        Self { text: error.to_string(), lasting: matches!(error, StoreError::Stopped(_)) }
    }

    pub(super) fn passing(text: String) -> Self {
        Self { text, lasting: false }
    }
}

impl Waiting {
    /// Has those who wait for the job look at its state.
    pub(super) fn wake(&self, job: JobId) {
        self.ring(job, None);
    }

    /// Tells those who wait for the job what keeps it.
    pub(super) fn tell(&self, job: JobId, problem: Problem) {
        self.ring(job, Some(problem));
    }

    fn ring(&self, job: JobId, problem: Option<Problem>) {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bells.get_mut(&job) {
            bell.problem = problem;
            bell.notify.notify_waiters();
        }
    }

    fn enter(self: &Arc<Self>, job: JobId) -> Waiter {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bell = bells.entry(job).or_default();
        bell.waiters += 1;
        Waiter { waiting: self.clone(), job, notify: bell.notify.clone() }
    }
}

struct Waiter {
    waiting: Arc<Waiting>,
    job: JobId,
    notify: Arc<Notify>,
}

impl Waiter {
    fn problem(&self) -> Option<Problem> {
        let bells = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.get(&self.job)?.problem.clone()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut bells = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bells.get_mut(&self.job) {
            bell.waiters -= 1;
            if bell.waiters == 0 {
                bells.remove(&self.job);
            }
        }
    }
}

impl Jobs {
    pub(super) fn new(
        settings: ControllerSettings,
        group: Arc<dyn Group>,
        waiting: Arc<Waiting>,
    ) -> Self {
        Self { settings, group, waiting }
    }

    /// When a request that begins now has waited long enough.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.settings.job_wait
    }

    /// Returns when the job is done, on whichever node its steps were carried out.
    pub async fn wait(&self, job: JobId, deadline: Instant) -> Result<(), WaitError> {
        let waiter = self.waiting.enter(job);
        loop {
            // Listening begins before the look, so that nothing is missed in between.
            let rung = waiter.notify.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            let state = query(&*self.group, move |machine| {
                let step = machine.jobs().get(&job).map(|job| job.step);
                (step, machine.failure_of(job).map(str::to_owned))
            });
            match state.await? {
                (_, Some(problem)) => return Err(WaitError::Failed { job, problem }),
                (None, None) => return Ok(()),
                (Some(step), None) => match waiter.problem() {
                    Some(Problem { text, lasting: true }) => {
                        return Err(WaitError::Stopped { job, problem: text });
                    }
                    problem if Instant::now() >= deadline => {
                        let problem = problem.map(|problem| problem.text);
                        return Err(WaitError::Late { job, step, problem });
                    }
                    _ => {}
                },
            }
            // Another leader's steps ring no bell here: look from time to time, too.
            let again = Instant::now() + self.settings.look_again_interval;
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep_until(again.min(deadline)) => {}
            }
        }
    }
}
