//! `kill -9` of a recovery, at each of its steps and at any moment: begun again in the same folder it
//! ends well, and the bucket is as good as it was.

use std::path::PathBuf;
use std::time::Duration;

use common::{Clock, Rng, SystemClock};
use rustix::process::{Pid, Signal, kill_process};

use crate::exactly_once::assert_stored_once;
use crate::harness::{Running, Server, temp_dir};
use crate::long_term::{QUICK, store_flights, wait_until_clean};
use crate::recovery::wait_until_tiered;

/// What a recovery says when a step begins; it has five groups.
const STEPS: [&str; 8] = [
    "reading what there is of group 1 ",
    "reading what there is of group 4 ",
    "claiming the bucket",
    "bringing back group 1 ",
    "bringing back group 3 ",
    "bringing back group 5 ",
    "bringing all of them in line",
    "saving",
];

/// Kills at moments that are drawn.
const KILLS: u32 = 10;

/// A machine that is lost again and again, and its bucket.
struct Lost {
    server: Server,
    flights: Vec<String>,
    url: String,
    _bucket: tempfile::TempDir,
}

impl Lost {
    fn new() -> Self {
        let bucket = temp_dir();
        let url = format!("file://{}", bucket.path().display());
        let mut server = Server::with(&[&QUICK[..], &[("BRAID__LTS__URL", &*url)]].concat());
        let flights = store_flights(&server);
        wait_until_tiered(&server);
        server.lose_machine();
        Self { server, flights, url, _bucket: bucket }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.server.data().join(name)
    }

    fn is_there(&self, name: &str) -> bool {
        self.file(name).try_exists().unwrap()
    }

    /// What a killed recovery may leave: no data folder, unless it was whole.
    fn judge_what_is_left(&self, when: &str) {
        if self.is_there("STORE") {
            return std::fs::remove_dir_all(self.server.data()).unwrap();
        }
        if self.is_there("RECOVERING") {
            let refused = Running::spawn(&mut self.server.command()).finish();
            refused.fails(4, &["did not end", "braid recover"]);
            assert!(!self.is_there("STORE"), "{when}");
        }
        self.server.lts(["check"]).run().ok();
    }

    /// The recovery that is not killed ends well, and the server goes on.
    fn ends_well(mut self) {
        let report = self.server.recover(&self.url).run().json();
        assert_eq!(report["changes"], serde_json::json!([]), "{report}");
        self.server.restart();
        assert_stored_once(&self.server, &self.flights);
        self.server.line("append demo/flights --key k").input(&*self.flights[0]).run().ok();
        wait_until_tiered(&self.server);
        wait_until_clean(&self.server);
        self.server.kill();
        self.server.restart();
        assert_eq!(self.server.read_all("demo/flights").len(), self.flights.len() + 1);
    }
}

#[test]
fn a_recovery_that_is_killed_at_any_of_its_steps_is_begun_again_in_its_folder() {
    let lost = Lost::new();
    for step in STEPS {
        let recovery = lost.server.recover(&lost.url).start_on_terminal();
        let id: i32 = recovery.line().unwrap().parse().unwrap();
        let said = std::iter::from_fn(|| recovery.line()).find(|line| line.contains(step));
        assert!(said.is_some(), "`{step}` is not said: {:?}", recovery.finish());
        // It may have ended meanwhile, if that was the last step.
        let _ = kill_process(Pid::from_raw(id).unwrap(), Signal::KILL);
        recovery.finish();
        lost.judge_what_is_left(step);
    }
    lost.ends_well();
}

#[test]
fn a_recovery_that_is_killed_at_any_moment_is_begun_again_in_its_folder() {
    let lost = Lost::new();
    let (clock, mut rng) = (SystemClock::new(), Rng::from_seed(4));
    let began = clock.monotonic();
    lost.server.recover(&lost.url).run().ok();
    let whole = clock.monotonic().since(began).as_micros() as u64;
    std::fs::remove_dir_all(lost.server.data()).unwrap();
    for kill in 0..KILLS {
        let mut recovery = lost.server.recover(&lost.url).start();
        recovery.ends_within(Duration::from_micros(rng.below(whole)));
        recovery.kill();
        lost.judge_what_is_left(&format!("kill {kill}"));
    }
    lost.ends_well();
}
