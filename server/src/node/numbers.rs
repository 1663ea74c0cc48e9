//! What people and monitoring systems are told about the node, read from the owners of the figures
//! when it is asked for.

use std::sync::{Arc, Weak};
use std::time::Duration;

use common::{Clock, MonotonicTime, Tasks};
use controller::{ServerInfo, ServerStatus};
use proto::v1;
use replica::{GroupStatus, Kv, StepCounts, StepTimes};
use segmentstore::{Metrics, SegmentStore};
use wal::{Log, LogUsage};

use super::Groups;
use crate::accept::Shares;
use crate::memory::{ClassUse, MemoryClass, MemoryPlan};
use crate::metrics::{Sources, resident_memory};
use crate::rates::{Average, Rates, SAMPLE_EVERY, Totals};
use crate::storage::{OperationCounts, Storage, StorageStatus};

/// Where the figures come from.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) log: Log,
    pub(super) steps: Arc<StepTimes>,
    pub(super) groups: Groups,
    pub(super) store: SegmentStore,
    pub(super) plan: MemoryPlan,
    pub(super) shares: Shares,
    pub(super) storage: Option<Storage>,
    /// Weak: whoever asks for figures does not keep the state store open.
    pub(super) state: Weak<dyn Kv>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) started: MonotonicTime,
    pub(super) rates: Rates,
    pub(super) dev: bool,
}

impl Numbers {
    /// Keeps totals every second, from which rates are told.
    pub(super) fn start(self: &Arc<Self>, tasks: &Tasks) {
        let (numbers, token) = (self.clone(), tasks.token());
        tasks.spawn("rates", async move {
            let keep = async {
                loop {
                    numbers.rates.keep(numbers.totals());
                    tokio::time::sleep(SAMPLE_EVERY).await;
                }
            };
            // It is told to end when the node stops.
            let _: Option<()> = token.run_until_cancelled(keep).await;
        });
    }

    fn totals(&self) -> Totals {
        let metrics = self.store.metrics();
        Totals {
            at: self.clock.monotonic(),
            append_events: metrics.appended_events.get(),
            append_bytes: metrics.appended_bytes.get(),
            read_bytes: metrics.read_bytes.get(),
        }
    }

    /// What each class of memory holds.
    fn memory_use(&self) -> Vec<ClassUse> {
        let metrics = self.store.metrics();
        let of_class = |(class, limit): &(MemoryClass, common::ByteSize)| {
            let used = match class {
                MemoryClass::Tail => metrics.tail_cache_bytes.get(),
                MemoryClass::LogRead => metrics.read_cache_bytes.get(),
                MemoryClass::Appends => {
                    let free = self.store.permits().free_bytes() as u64;
                    limit.bytes().saturating_sub(free)
                }
                MemoryClass::Objects => metrics.object_cache_bytes.get(),
                MemoryClass::ObjectsAhead => metrics.object_ahead_bytes.get(),
                // Closed: it has nothing.
                MemoryClass::State => self.state.upgrade().map_or(0, |kv| kv.memory_bytes()),
                MemoryClass::Receive => self.shares.receive_used(),
                MemoryClass::Send => self.shares.send_used(),
                MemoryClass::Writers => {
                    metrics.writer_table_bytes.get() + self.store.sessions().used_bytes()
                }
                MemoryClass::Tiering => {
                    self.storage.as_ref().map_or(0, |storage| storage.held().bytes())
                }
            };
            ClassUse { class: *class, limit: *limit, used }
        };
        self.plan.shares().iter().map(of_class).collect()
    }
}

impl Sources for Numbers {
    fn log(&self) -> LogUsage {
        self.log.usage()
    }

    fn groups(&self) -> Vec<(u64, GroupStatus)> {
        self.groups.statuses()
    }

    fn steps(&self) -> StepCounts {
        self.steps.counts()
    }

    fn store(&self) -> &Metrics {
        self.store.metrics()
    }

    fn memory(&self) -> Vec<ClassUse> {
        self.memory_use()
    }

    fn storage(&self) -> Option<(StorageStatus, Vec<OperationCounts>)> {
        let storage = self.storage.as_ref()?;
        Some((storage.status(), storage.counts().totals()))
    }
}

impl ServerStatus for Numbers {
    fn look_after_storage(&self) -> u32 {
        if self.storage.is_some() { self.groups.look_after_storage() } else { 0 }
    }

    fn info(&self) -> ServerInfo {
        let space = self.log.space();
        ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            dev: self.dev,
            log_used_bytes: space.used,
            log_budget_bytes: space.budget,
        }
    }

    fn status(&self) -> v1::GetStatusResponse {
        let usage = self.log.usage();
        let groups = self.groups.statuses();
        let pressure = self.store.pressure().signals().into_iter();
        let tiers = self.storage.as_ref().map(|_| self.clock.monotonic());
        v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            dev: self.dev,
            uptime_micros: micros(self.clock.monotonic().since(self.started)),
            scopes: None,
            streams: None,
            rates: Some(rates(&self.rates.up_to(self.totals()))),
            log_used_bytes: usage.used,
            log_budget_bytes: usage.budget,
            lts: self.storage.as_ref().map(|storage| lts(storage.status(), &groups)),
            groups: groups.iter().map(|(id, status)| group(*id, status, &usage, tiers)).collect(),
            memory_limit_bytes: self.plan.limit.bytes(),
            memory: self.memory_use().iter().map(memory).collect(),
            resident_bytes: resident_memory(),
            pressure: pressure
                .map(|(signal, level)| v1::PressureStatus { signal: signal.to_owned(), level })
                .collect(),
        }
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

fn rates(average: &Average) -> v1::RateStatus {
    v1::RateStatus {
        window_micros: micros(average.window),
        append_events_per_second: average.append_events,
        append_bytes_per_second: average.append_bytes,
        read_bytes_per_second: average.read_bytes,
    }
}

/// A store that answers and does not do what it is asked, being full, say, is told by the groups
/// that asked.
fn lts(status: StorageStatus, groups: &[(u64, GroupStatus)]) -> v1::LtsStatus {
    let of_groups = || groups.iter().find_map(|(_, group)| group.storage_failure.clone());
    let last_error = status.breaker.last_error.or(status.not_ready).or_else(of_groups);
    v1::LtsStatus {
        url: status.url,
        ready: status.ready,
        breaker: status.breaker.state.as_str().to_owned(),
        down_micros: micros(status.breaker.down_for),
        last_error: last_error.unwrap_or_default(),
    }
}

/// A group; `now` where it tiers.
fn group(
    id: u64,
    status: &GroupStatus,
    usage: &LogUsage,
    now: Option<MonotonicTime>,
) -> v1::GroupStatus {
    let held = usage.groups.iter().find(|held| held.group.0 == id);
    let age = now.and_then(|now| Some(now.since(status.unarchived_since?)));
    v1::GroupStatus {
        group: id,
        serving: status.serving,
        log_bytes: held.map_or(0, |held| held.bytes),
        untiered_bytes: now.map(|_| status.unarchived_bytes),
        untiered_age_micros: age.map(micros),
        quarantined: status.quarantined.clone().unwrap_or_default(),
        checkpoint_waits: status.checkpoint_waits,
        tiering_failure: status.storage_failure.clone().unwrap_or_default(),
        lost_entries: status.lost_entries(),
    }
}

fn memory(class: &ClassUse) -> v1::MemoryStatus {
    v1::MemoryStatus {
        class: class.class.as_str().to_owned(),
        limit_bytes: class.limit.bytes(),
        used_bytes: Some(class.used),
    }
}
