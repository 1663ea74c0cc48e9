//! The server's process: it starts, stops, falls, and comes up again.

use super::node::Node;
use super::world::{Event, World};

impl World {
    pub(super) fn on_restart(&mut self) {
        if self.node.is_some() {
            return;
        }
        self.machine.disk.restart();
        self.lose_state();
        match Node::start(self.machine.clone(), &mut self.random.node) {
            Ok(node) => {
                self.note(format_args!("start"));
                self.coverage.full_starts += u64::from(self.disk_is_full);
                self.node = Some(node);
                self.wake();
                self.schedule_files(1);
                self.schedule.after(500, Event::Jobs);
            }
            // A crash may strike in the middle of recovery, too.
            Err(_) if self.machine.disk.crashed() => self.fall("while starting"),
            // A start behind a tail that was not sealed needs a file. Those made ahead are there
            // for it; after many such starts, whoever runs it frees space.
            Err(failure) if self.disk_is_full && !self.has_spare_file() => {
                self.note(format_args!("no start on a full disk: {failure}"));
                self.schedule.after(50_000, Event::Restart);
            }
            // The lost state is in the bucket, which will answer again. A state that was brought back
            // is missing again until it was saved.
            Err(failure) if self.state_was_lost && self.chaos => {
                self.note(format_args!("no start without the bucket: {failure}"));
                self.schedule.after(50_000, Event::Restart);
            }
            Err(failure) => self.problem(failure),
        }
    }

    /// The process is gone, with everything it had in memory. Every file and checkpoint that was
    /// not durable is at the mercy of chance.
    pub(super) fn fall(&mut self, why: &str) {
        self.note(format_args!("crash {why}"));
        self.coverage.crashes += 1;
        self.leave_late_requests();
        if !self.machine.disk.crashed() {
            self.machine.disk.crash(wal::CrashOutcome::Random);
        }
        self.machine.kv.crash(&mut self.random.faults);
        self.forget_process();
    }

    /// Clients learn of it, and the server comes up again.
    pub(super) fn forget_process(&mut self) {
        self.tasks.clear();
        self.invariants.process_ended();
        self.node = None;
        self.jobs.forget();
        self.streams_forget();
        self.stopping = false;
        self.step_at = None;
        self.write_scheduled = false;
        self.checkpoint_scheduled = false;
        self.files_scheduled = false;
        self.schedule.retain(|event| {
            let of_server = matches!(
                event,
                Event::Step
                    | Event::Written
                    | Event::Checkpoint
                    | Event::Files
                    | Event::Jobs
                    | Event::Storage { .. }
            );
            !of_server && !matches!(event, Event::Request { .. } | Event::ServerCloses { .. })
        });
        let connections: Vec<u32> = self.connections.keys().copied().collect();
        for connection in connections {
            let delay = self.random.network.between(10, 3_000);
            self.schedule.after(delay, Event::ClientCloses { connection });
        }
        let delay = self.random.faults.between(1_000, 50_000);
        self.schedule.after(delay, Event::Restart);
    }

    /// A server that says it must be restarted: right where the disk struck, else a finding.
    pub(super) fn node_failed(&mut self, failure: String) {
        if self.machine.disk.crashed() {
            self.coverage.crashes_in_operation += 1;
            self.fall("in a disk operation");
        } else {
            self.problem(format!("the server stops by itself: {failure}"));
        }
    }

    pub(super) fn on_stopped(&mut self) {
        let Some(node) = &mut self.node else { return };
        match node.seal() {
            Ok(()) => {
                self.note(format_args!("stopped cleanly"));
                self.coverage.clean_stops += 1;
                self.deliver_responses();
                self.machine.kv.close();
                self.forget_process();
            }
            Err(failure) => self.node_failed(failure),
        }
    }
}
