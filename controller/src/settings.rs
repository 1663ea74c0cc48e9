//! What an operator may set about the controller, and the limits nobody may.

use std::time::Duration;

use common::limits::JOB_ANSWER_INTERVAL;

/// Segments that one step of a job deals with: few enough that placing, recording and making them
/// keeps the worker well below a millisecond, which appends to others wait for; enough that 100 000
/// segments are 800 steps.
pub const SEGMENTS_PER_STEP: u32 = 128;

/// Named writers of one stream: bounds the controller's memory against names made by a loop.
pub const WRITERS_PER_STREAM_MAX: usize = 100_000;

/// Failures of jobs that are remembered for those who ask about them late.
pub const JOB_FAILURES_MAX: usize = 1_000;

/// Items of a page when the request does not say.
pub const PAGE_ITEMS_DEFAULT: usize = 100;

#[derive(Debug, Clone)]
pub struct ControllerSettings {
    /// Segments of a stream whose creation does not say how many.
    pub default_segments: u32,
    /// How long a request waits for the job it started before it is told how far that is, and to
    /// ask again.
    pub job_wait: Duration,
    /// Steps of jobs that one container works on at the same time.
    pub steps_per_container_max: usize,
    /// How long a container that failed is left alone at first; doubles up to the maximum.
    pub retry_delay_min: Duration,
    pub retry_delay_max: Duration,
    /// How often what nothing wakes is looked at again: a look at the state that failed, a job
    /// that another leader carries out.
    pub look_again_interval: Duration,
}

impl Default for ControllerSettings {
    fn default() -> Self {
        Self {
            default_segments: 4,
            job_wait: JOB_ANSWER_INTERVAL,
            steps_per_container_max: 32,
            retry_delay_min: Duration::from_millis(20),
            retry_delay_max: Duration::from_secs(2),
            look_again_interval: Duration::from_millis(500),
        }
    }
}
