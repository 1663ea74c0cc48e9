//! What goes wrong, and when.

use std::time::Duration;

use common::Clock;
use wal::CrashOutcome;

use super::world::{Event, World};

#[derive(Debug, Clone, Copy)]
enum Fault {
    Crash,
    CrashInOperation,
    Disconnect,
    Stall,
    DiskFull,
    WallJump,
    CleanStop,
    SecondProcess,
    Outage,
}

impl World {
    fn enabled_faults(&self) -> Vec<Fault> {
        let plan = &self.plan.faults;
        let all = [
            (Fault::Crash, plan.crash),
            (Fault::CrashInOperation, plan.crash_in_operation),
            (Fault::Disconnect, plan.disconnect),
            (Fault::Disconnect, plan.disconnect),
            (Fault::Stall, plan.stall),
            (Fault::DiskFull, plan.disk_full),
            (Fault::WallJump, plan.wall_jump),
            (Fault::CleanStop, plan.clean_stop),
            (Fault::SecondProcess, self.plan.second_process),
            (Fault::Outage, self.plan.bucket.as_ref().is_some_and(|plan| plan.outages)),
        ];
        all.into_iter().filter_map(|(fault, on)| on.then_some(fault)).collect()
    }

    pub(super) fn on_fault(&mut self) {
        if !self.chaos {
            return;
        }
        let delay = self.random.faults.between(1, 2 * self.plan.faults.interval);
        self.schedule.after(delay, Event::Fault);
        let enabled = self.enabled_faults();
        if enabled.is_empty() {
            return;
        }
        let fault = enabled[self.random.faults.below(enabled.len() as u64) as usize];
        self.note(format_args!("fault {fault:?}"));
        self.strike(fault);
    }

    fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Crash if self.node.is_some() => self.fall("by a fault"),
            Fault::CrashInOperation => {
                let ahead = self.random.faults.between(1, 12);
                let operation = self.machine.disk.operations() + ahead;
                let outcomes = [CrashOutcome::Lost, CrashOutcome::Kept, CrashOutcome::Random];
                let outcome = outcomes[self.random.faults.below(3) as usize];
                self.machine.disk.crash_at(operation, outcome);
            }
            Fault::Disconnect => {
                let connections: Vec<u32> = self.connections.keys().copied().collect();
                if !connections.is_empty() {
                    let at = self.random.faults.below(connections.len() as u64) as usize;
                    self.disconnect(connections[at]);
                }
            }
            Fault::Stall => {
                self.coverage.stalls += 1;
                self.stall_next = self.random.faults.between(500_000, 15_000_000);
            }
            Fault::DiskFull => {
                self.coverage.full_disks += 1;
                let used = self.disk_bytes();
                self.machine.disk.set_capacity(used);
                // Sometimes there is not even space for a checkpoint.
                self.machine.kv.set_full(self.random.faults.chance(1, 2));
                self.disk_is_full = true;
                let delay = self.random.faults.between(100_000, 3_000_000);
                self.schedule.after(delay, Event::DiskHasSpace);
            }
            Fault::WallJump => {
                let now = self.clock.wall().0;
                let jump = Duration::from_secs(3_600).as_micros() as u64;
                let wall = now - jump + self.random.faults.below(2 * jump);
                self.clock.set_wall(common::WallTime(wall));
            }
            Fault::CleanStop if !self.stopping => {
                if let Some(node) = &mut self.node {
                    node.begin_stop();
                    self.stopping = true;
                    self.wake();
                }
            }
            Fault::SecondProcess => self.second_process(),
            Fault::Outage => self.begin_outage(),
            Fault::Crash | Fault::CleanStop => {}
        }
    }

    /// Bytes that the log's files take now.
    fn disk_bytes(&self) -> u64 {
        use wal::Disk;
        let Ok(space) = self.machine.disk.space() else { return u64::MAX };
        space.total - space.free
    }

    /// Whether the log has a file that it made ahead.
    pub(super) fn has_spare_file(&self) -> bool {
        use wal::Disk;
        let names = self.machine.disk.list().unwrap_or_default();
        names.iter().any(|name| name.starts_with("spare-"))
    }

    pub(super) fn on_space(&mut self) {
        self.note(format_args!("the disk has space again"));
        self.machine.disk.set_capacity(u64::MAX);
        self.machine.kv.set_full(false);
        self.disk_is_full = false;
        self.schedule_files(1_000);
    }
}
