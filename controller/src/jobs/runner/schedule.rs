//! Whose turn it is: which jobs may begin their next step now.
//!
//! Slots are counted per container. A step takes one of each container that it has a command for,
//! and gives each back with that command's answer, so that a container that is away holds up the
//! jobs that need it and no others. The oldest job goes first. One that waits for a container that is
//! busy, but answers, has its slots of the others kept for it: steps over many containers get their
//! turn beside any number of small ones.
//!
//! A container that fails is left alone for a while that doubles with each failure, and asked by one
//! step at a time until it succeeds. Time is given from outside, chance is none.

use std::collections::BTreeMap;
use std::time::Duration;

use common::ContainerId;
use tokio::time::Instant;

use crate::settings::ControllerSettings;
use crate::stores::JobId;

/// A container that answered this long ago is still at it.
const AT_WORK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Schedule {
    slots_max: usize,
    delay_min: Duration,
    delay_max: Duration,
    jobs: BTreeMap<JobId, Turn>,
    containers: BTreeMap<ContainerId, Slots>,
}

/// Where a job stands.
#[derive(Debug)]
enum Turn {
    /// Its next step has not been looked at.
    Unknown,
    /// Its next step needs these.
    Waits(Vec<ContainerId>),
    /// Its step is being carried out or recorded.
    Runs,
    /// Nothing is tried before that moment.
    Rests { until: Instant },
}

#[derive(Debug, Default)]
struct Slots {
    taken: usize,
    /// After a failure: how long it is left alone after the next one, and until when it is now.
    delay: Option<Duration>,
    not_before: Option<Instant>,
    answered: Option<Instant>,
}

impl Schedule {
    pub(super) fn new(settings: &ControllerSettings) -> Self {
        Self {
            slots_max: settings.steps_per_container_max,
            delay_min: settings.retry_delay_min,
            delay_max: settings.retry_delay_max,
            jobs: BTreeMap::new(),
            containers: BTreeMap::new(),
        }
    }

    /// Forgets all jobs but those whose step is under way.
    pub(super) fn begin_anew(&mut self) {
        self.jobs.retain(|_, turn| matches!(turn, Turn::Runs));
    }

    /// A job exists.
    pub(super) fn learn(&mut self, job: JobId) {
        self.jobs.entry(job).or_insert(Turn::Unknown);
    }

    /// A job exists no more.
    pub(super) fn forget(&mut self, job: JobId) {
        self.jobs.remove(&job);
    }

    /// Up to `most` jobs, the oldest first, whose step may begin, or has to be looked at to say.
    pub(super) fn ready(&self, now: Instant, most: usize) -> Vec<JobId> {
        let mut kept: BTreeMap<ContainerId, usize> = BTreeMap::new();
        let mut ready = Vec::new();
        for (job, turn) in &self.jobs {
            if ready.len() == most {
                break;
            }
            match turn {
                Turn::Unknown => ready.push(*job),
                Turn::Rests { until } if *until <= now => ready.push(*job),
                Turn::Runs | Turn::Rests { .. } => {}
                Turn::Waits(containers) => {
                    let room = |c: &ContainerId| {
                        self.room(*c, now) > kept.get(c).copied().unwrap_or_default()
                    };
                    let full: Vec<_> = containers.iter().filter(|c| !room(c)).collect();
                    if full.is_empty() {
                        ready.push(*job);
                    }
                    // Also of those that are full: the next one in the queue comes behind.
                    if full.into_iter().all(|container| self.is_at_work(*container, now)) {
                        containers.iter().for_each(|c| *kept.entry(*c).or_default() += 1);
                    }
                }
            }
        }
        ready
    }

    /// Takes the slots for a step of `job`. `false`: they are not free, and the job waits for them.
    pub(super) fn begin(&mut self, job: JobId, containers: Vec<ContainerId>, now: Instant) -> bool {
        if containers.iter().any(|container| self.room(*container, now) == 0) {
            self.jobs.insert(job, Turn::Waits(containers));
            return false;
        }
        for container in containers {
            self.containers.entry(container).or_default().taken += 1;
        }
        self.jobs.insert(job, Turn::Runs);
        true
    }

    /// A container answered a command: it carried it out, or refused it with a reason.
    pub(super) fn answered(&mut self, container: ContainerId, now: Instant) {
        let slots = self.containers.entry(container).or_default();
        slots.taken -= 1;
        (slots.delay, slots.not_before, slots.answered) = (None, None, Some(now));
    }

    /// A container was not able to carry a command out.
    pub(super) fn failed(&mut self, container: ContainerId, now: Instant) {
        let (min, max) = (self.delay_min, self.delay_max);
        let slots = self.containers.entry(container).or_default();
        slots.taken -= 1;
        let delay = slots.delay.unwrap_or(min);
        // Steps that were under way together fail together: that is one failure.
        if slots.not_before.is_none_or(|until| until <= now) {
            slots.not_before = Some(now + delay);
            slots.delay = Some((delay * 2).min(max));
        }
    }

    /// The job's step is recorded: the next one is to be looked at.
    pub(super) fn moved_on(&mut self, job: JobId) {
        self.jobs.insert(job, Turn::Unknown);
    }

    /// The job's step is to be begun again, at once where its containers allow it.
    pub(super) fn again(&mut self, job: JobId, containers: Vec<ContainerId>) {
        self.jobs.insert(job, Turn::Waits(containers));
    }

    /// The job is left alone for `pause`.
    pub(super) fn rest(&mut self, job: JobId, pause: Duration, now: Instant) {
        self.jobs.insert(job, Turn::Rests { until: now + pause });
    }

    /// The next moment at which somebody's time comes.
    pub(super) fn next_time(&self, now: Instant) -> Option<Instant> {
        let rests = self.jobs.values().filter_map(|turn| match turn {
            Turn::Rests { until } => Some(*until),
            _ => None,
        });
        let containers = self.containers.values().filter_map(|slots| slots.not_before);
        rests.chain(containers).filter(|time| *time > now).min()
    }

    fn room(&self, container: ContainerId, now: Instant) -> usize {
        let Some(slots) = self.containers.get(&container) else { return self.slots_max };
        if slots.not_before.is_some_and(|until| until > now) {
            return 0;
        }
        let all = if slots.delay.is_some() { 1 } else { self.slots_max };
        all.saturating_sub(slots.taken)
    }

    fn is_at_work(&self, container: ContainerId, now: Instant) -> bool {
        let slots = self.containers.get(&container);
        slots.is_none_or(|slots| {
            slots.delay.is_none() && slots.answered.is_some_and(|then| then + AT_WORK >= now)
        })
    }
}

#[cfg(test)]
mod tests;
