//! What goes wrong: kills, stops, lost state, and a bucket that does not do what it is asked.

use std::time::Duration;

use client::Rng;
use common::{Clock, MonotonicTime, SystemClock};
use rustix::process::Signal;
use tokio::runtime::Handle;

use super::bucket::{Bucket, Mood};
use super::{Load, pass_some, say};
use crate::harness::{Finished, Server};

/// How often what happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub kills: u64,
    pub stops: u64,
    pub states_lost: u64,
    pub outages: u64,
    /// Bytes that all the server's lives read from objects.
    pub object_read_bytes: u64,
    /// Resident memory of a life at most.
    pub peak_bytes: u64,
}

pub struct Faults<'a> {
    pub server: Server,
    pub bucket: &'a Bucket,
    pub runtime: &'a Handle,
    pub load: &'a Load,
    pub rng: Rng,
    pub counts: Counts,
    /// What used memory towards the end of the life that took the most.
    pub memory: String,
    /// What the server's lives said.
    pub said: String,
}

impl Faults<'_> {
    /// One after the other, until `end`.
    pub fn run(&mut self, clock: &SystemClock, end: MonotonicTime) {
        while clock.monotonic() < end && !self.load.has_problems() {
            self.pause(500, 5_000);
            match self.rng.below(100) {
                0..35 => self.kill(true),
                35..45 => self.stop(),
                _ => self.outage(),
            }
        }
    }

    fn pause(&mut self, low: u64, high: u64) {
        self.runtime.block_on(pass_some(&mut self.rng, low, high));
    }

    /// `kill -9`, and a start; now and then without the state, which comes back from a bucket that
    /// answers.
    pub fn kill(&mut self, state_may_go: bool) {
        self.look_at_memory();
        let killed = self.server.kill();
        self.counts.kills += 1;
        say("killed");
        self.read_log(&killed);
        if state_may_go && self.rng.chance(1, 5) {
            std::fs::remove_dir_all(self.server.data().join("state")).unwrap();
            self.counts.states_lost += 1;
            say("the state is removed");
        }
        self.pause(0, 1_500);
        self.server.restart();
    }

    fn stop(&mut self) {
        self.look_at_memory();
        let stopped = self.server.stop(Signal::TERM);
        say("stopped");
        self.counts.stops += 1;
        if stopped.code != Some(0) {
            self.load.problem(format!("a stop ended with {:?}", stopped.code));
        }
        self.read_log(&stopped);
        self.server.restart();
    }

    fn outage(&mut self) {
        let mood = match self.rng.below(4) {
            0 => Mood::Unreachable,
            1 => Mood::Busy,
            2 => Mood::Mute,
            _ => Mood::Slow(Duration::from_millis(self.rng.between(100, 2_500))),
        };
        say(&format!("the bucket is {mood:?}"));
        self.bucket.set(mood);
        self.counts.outages += 1;
        self.pause(100, 8_000);
        // A restart never needs the bucket.
        if self.rng.chance(1, 4) {
            self.kill(false);
            self.pause(0, 3_000);
        }
        self.bucket.set(Mood::Good);
    }

    /// Notes how much the present life took at most, and what it read from objects.
    pub fn look_at_memory(&mut self) {
        let peak = self.server.peak_bytes();
        if peak > self.counts.peak_bytes {
            self.counts.peak_bytes = peak;
            self.memory = self.server.line("status -o json").run().json()["memory"].to_string();
        }
        self.counts.object_read_bytes += self.server.metric("braid_object_read_bytes_total");
    }

    /// A message of that level is about something that must not happen.
    pub fn read_log(&mut self, ended: &Finished) {
        self.said.push_str(&ended.stderr);
        self.said.push_str("--- its end\n");
        for line in ended.stderr.lines() {
            if line.contains(" ERROR ") || line.contains("panicked") {
                self.load.problem(format!("the server said: {line}"));
            }
        }
    }
}
