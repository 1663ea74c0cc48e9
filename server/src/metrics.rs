//! What the process tells a monitoring system, in Prometheus form and base units.
//!
//! Nothing is counted twice: levels and totals are read from their owners at each scrape. Series
//! are per stream and per group, never per segment.

mod storage;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use replica::{GroupStatus, StepCounts};
use rustix::time::ClockId;
use wal::{GroupUsage, LogUsage};

use crate::memory::ClassUse;
use crate::storage::{OperationCounts, StorageStatus};

/// Where the numbers of one node come from.
pub(crate) trait Sources: fmt::Debug + Send + Sync + 'static {
    fn log(&self) -> LogUsage;
    fn groups(&self) -> Vec<(u64, GroupStatus)>;
    fn steps(&self) -> StepCounts;
    fn store(&self) -> &segmentstore::Metrics;
    fn memory(&self) -> Vec<ClassUse>;
    fn storage(&self) -> Option<(StorageStatus, Vec<OperationCounts>)>;
}

/// Reads everything at each scrape.
#[derive(Debug)]
pub(crate) struct NodeCollector<S>(pub(crate) Arc<S>);

impl<S: Sources> Collector for NodeCollector<S> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = of_process();
        families.extend(of_log(&self.0.log()));
        families.extend(of_groups(&self.0.groups()));
        families.extend(of_store(self.0.store()));
        families.extend(storage::of_memory(&self.0.memory()));
        if let Some((status, counts)) = self.0.storage() {
            families.extend(storage::of_storage(&status, &counts));
        }
        families.iter().try_for_each(|family| family.encode(&mut encoder))?;
        encode_steps(&self.0.steps(), &mut encoder)
    }
}

type Labels = Vec<(&'static str, String)>;

/// One metric with its series.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    points: Vec<(Labels, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A level.
    Gauge,
    /// Only grows while the process lives; `_total` is added to the name.
    Counter,
}

impl Family {
    fn single(name: &'static str, help: &'static str, kind: Kind, value: f64) -> Self {
        Self { name, help, kind, points: vec![(Vec::new(), value)] }
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (labels, value) in &self.points {
            if labels.is_empty() {
                self.encode_point(&mut metric, *value)?;
            } else {
                self.encode_point(&mut metric.encode_family(labels)?, *value)?;
            }
        }
        Ok(())
    }

    fn encode_point(&self, point: &mut MetricEncoder<'_>, value: f64) -> fmt::Result {
        match self.kind {
            Kind::Gauge => point.encode_gauge(&value),
            Kind::Counter => point.encode_counter::<Labels, f64, f64>(&value, None),
        }
    }
}

fn of_process() -> Vec<Family> {
    let cpu = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    let cpu_seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    vec![
        Family::single(
            "process_cpu_seconds",
            "CPU time of the process",
            Kind::Counter,
            cpu_seconds,
        ),
        Family::single(
            "process_resident_memory_bytes",
            "Resident memory of the process",
            Kind::Gauge,
            resident_memory() as f64,
        ),
    ]
}

/// Resident memory of the process; 0 where it is not told.
pub(crate) fn resident_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").ok();
    status.and_then(|status| resident_bytes(&status)).unwrap_or(0)
}

/// `VmRSS` of `/proc/self/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn encode_steps(steps: &StepCounts, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help =
        "What the worker's steps took, writes to the disk not counted: appends wait for them";
    let seconds =
        |bound: &Option<Duration>| bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64());
    let buckets: Vec<(f64, u64)> =
        steps.classes.iter().map(|(bound, count)| (seconds(bound), *count)).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let mut metric = encoder.encode_descriptor(
        "braid_worker_step_seconds",
        help,
        None,
        MetricType::Histogram,
    )?;
    metric.encode_histogram::<Labels>(steps.total.as_secs_f64(), count, &buckets, None)
}

fn of_log(usage: &LogUsage) -> Vec<Family> {
    let gauge = |name, help, value: u64| Family::single(name, help, Kind::Gauge, value as f64);
    let of_groups = |name, help, value: fn(&GroupUsage) -> f64| {
        let point = |of: &GroupUsage| (vec![("group", of.group.to_string())], value(of));
        Family { name, help, kind: Kind::Gauge, points: usage.groups.iter().map(point).collect() }
    };
    vec![
        gauge("braid_log_budget_bytes", "Bytes the log may take", usage.budget),
        gauge("braid_log_used_bytes", "Bytes of log files that hold entries", usage.used),
        gauge("braid_log_spare_bytes", "Bytes of log files made ahead", usage.spare),
        gauge(
            "braid_log_disk_full",
            "1: the last log file could not be made for lack of space",
            usage.disk_full.into(),
        ),
        of_groups("braid_log_group_bytes", "Bytes of entries in the log by group", |group| {
            group.bytes as f64
        }),
        of_groups(
            "braid_log_group_share",
            "Part of its share of the log that the group has used; 0 where it has none",
            |group| group.share_permille as f64 / 1_000.0,
        ),
    ]
}

fn of_groups(groups: &[(u64, GroupStatus)]) -> Vec<Family> {
    let family = |name, help, value: fn(&GroupStatus) -> f64| Family {
        name,
        help,
        kind: Kind::Gauge,
        points: groups
            .iter()
            .map(|(group, status)| (vec![("group", group.to_string())], value(status)))
            .collect(),
    };
    vec![
        family("braid_group_serving", "1: this replica leads and serves the group", |status| {
            f64::from(u8::from(status.serving))
        }),
        family("braid_group_term", "The Raft term of the group", |status| status.term.0 as f64),
        family("braid_group_commit_index", "The newest committed entry", |status| {
            status.commit.0 as f64
        }),
        family("braid_group_applied_index", "The newest applied entry", |status| {
            status.applied.0 as f64
        }),
        family("braid_group_checkpointed_index", "Up to where state is saved", |status| {
            status.checkpointed.0 as f64
        }),
        family(
            "braid_group_checkpoint_waits",
            "1: a checkpoint waits for space on the disk",
            |status| f64::from(u8::from(status.checkpoint_waits)),
        ),
        family(
            "braid_group_untiered_bytes",
            "Bytes of applied log that are not in long-term storage",
            |status| status.unarchived_bytes as f64,
        ),
        family(
            "braid_group_tiering_fails",
            "1: the group's last work with long-term storage failed, and is tried again",
            |status| f64::from(u8::from(status.storage_failure.is_some())),
        ),
        family(
            "braid_group_lost_entries",
            "Log entries that a repair gave up before they were archived",
            |status| status.lost_entries() as f64,
        ),
        family("braid_group_quarantined", "1: the group stopped and needs a person", |status| {
            f64::from(u8::from(status.quarantined.is_some()))
        }),
    ]
}

fn of_store(store: &segmentstore::Metrics) -> Vec<Family> {
    let refused = store
        .refused()
        .map(|(reason, count)| (vec![("reason", reason.as_str_name().to_owned())], count as f64));
    let refused = Family {
        name: "braid_refused",
        help: "Requests and blocks refused, by reason",
        kind: Kind::Counter,
        points: refused.collect(),
    };
    let mut families = of_appends(store);
    families.extend(of_reads(store));
    families.extend(of_caches(store));
    families.push(refused);
    families.extend(of_streams(store));
    families
}

fn of_appends(store: &segmentstore::Metrics) -> Vec<Family> {
    vec![
        counter("braid_appended_bytes", "Bytes stored", store.appended_bytes.get()),
        counter("braid_appended_events", "Events stored", store.appended_events.get()),
        counter("braid_appended_blocks", "Blocks stored", store.appended_blocks.get()),
        counter(
            "braid_duplicate_blocks",
            "Blocks that were stored before and acknowledged again",
            store.duplicate_blocks.get(),
        ),
        counter(
            "braid_unarchived_extents",
            "Runs of bytes that were truncated before a round held them, found when a group was \
             rebuilt from long-term storage",
            store.unarchived_extents.get(),
        ),
        counter(
            "braid_unarchived_bytes",
            "Bytes by which segments were cut for unarchived extents",
            store.unarchived_bytes.get(),
        ),
        gauge(
            "braid_append_connections",
            "Connections that append",
            store.append_connections.get(),
        ),
    ]
}

fn of_reads(store: &segmentstore::Metrics) -> Vec<Family> {
    vec![
        counter("braid_read_bytes", "Bytes sent to readers", store.read_bytes.get()),
        counter(
            "braid_log_read_bytes",
            "Bytes that reads took from log files",
            store.log_read_bytes.get(),
        ),
        counter(
            "braid_object_read_bytes",
            "Bytes that reads took from long-term storage",
            store.object_read_bytes.get(),
        ),
        counter(
            "braid_object_cache_hits",
            "Blocks and indices of objects that were there, or on their way, when a reader came",
            store.object_cache_hits.get(),
        ),
        counter(
            "braid_object_cache_misses",
            "Blocks and indices of objects that a reader had to ask long-term storage for",
            store.object_cache_misses.get(),
        ),
        gauge("braid_readers", "Reads under way", store.readers.get()),
    ]
}

fn of_caches(store: &segmentstore::Metrics) -> Vec<Family> {
    vec![
        gauge(
            "braid_object_cache_bytes",
            "Bytes of blocks of objects kept for readers",
            store.object_cache_bytes.get(),
        ),
        gauge(
            "braid_object_ahead_bytes",
            "Bytes of blocks of objects that were read ahead and wait for their reader",
            store.object_ahead_bytes.get(),
        ),
        gauge(
            "braid_tail_cache_bytes",
            "Bytes of newest events in memory",
            store.tail_cache_bytes.get(),
        ),
        gauge(
            "braid_read_cache_bytes",
            "Bytes of log entries kept for readers",
            store.read_cache_bytes.get(),
        ),
        gauge(
            "braid_writer_table_bytes",
            "Bytes of what segments remember of their writers",
            store.writer_table_bytes.get(),
        ),
    ]
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Family {
    Family::single(name, help, Kind::Counter, value as f64)
}

fn gauge(name: &'static str, help: &'static str, value: u64) -> Family {
    Family::single(name, help, Kind::Gauge, value as f64)
}

fn of_streams(store: &segmentstore::Metrics) -> Vec<Family> {
    let streams = store.streams();
    let family = |name, help, value: fn(&segmentstore::StreamCounters) -> u64| Family {
        name,
        help,
        kind: Kind::Counter,
        points: streams
            .iter()
            .map(|(stream, counters)| {
                let labels = vec![
                    ("scope", stream.scope.to_string()),
                    ("stream", stream.stream.to_string()),
                ];
                (labels, value(counters) as f64)
            })
            .collect(),
    };
    vec![
        family("braid_stream_appended_bytes", "Bytes stored, by stream", |counters| {
            counters.appended_bytes.get()
        }),
        family("braid_stream_appended_events", "Events stored, by stream", |counters| {
            counters.appended_events.get()
        }),
        family("braid_stream_read_bytes", "Bytes sent to readers, by stream", |counters| {
            counters.read_bytes.get()
        }),
    ]
}

#[cfg(test)]
mod tests {
    use common::{ByteSize, GroupId, LogIndex, Term};
    use lts::{BreakerState, BreakerStatus, Operation};
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::memory::MemoryClass;

    #[derive(Debug)]
    struct Fixed(segmentstore::Metrics);

    impl Sources for Fixed {
        fn log(&self) -> LogUsage {
            let group = GroupUsage { group: GroupId(2), bytes: 77, ..Default::default() };
            LogUsage { budget: 1_000, used: 64, groups: vec![group], ..LogUsage::default() }
        }

        fn steps(&self) -> StepCounts {
            let classes = vec![(Some(Duration::from_millis(1)), 7), (None, 2)];
            StepCounts { total: Duration::from_millis(12), classes }
        }

        fn groups(&self) -> Vec<(u64, GroupStatus)> {
            let status = GroupStatus {
                serving: true,
                checkpoint_waits: true,
                unarchived_bytes: 70,
                storage_failure: Some("down".to_owned()),
                lost: vec![LogIndex(4)..=LogIndex(6), LogIndex(8)..=LogIndex(8)],
                term: Term(3),
                applied: LogIndex(9),
                ..GroupStatus::default()
            };
            vec![(1, status)]
        }

        fn store(&self) -> &segmentstore::Metrics {
            &self.0
        }

        fn memory(&self) -> Vec<ClassUse> {
            let (class, limit) = (MemoryClass::Tail, ByteSize(9));
            vec![ClassUse { class, limit, used: 5 }]
        }

        fn storage(&self) -> Option<(StorageStatus, Vec<OperationCounts>)> {
            let breaker = BreakerStatus {
                state: BreakerState::Open,
                down_for: Duration::from_secs(3),
                failures: 5,
                last_error: None,
            };
            let url = "s3://bucket".to_owned();
            let status = StorageStatus { url, ready: true, breaker, not_ready: None };
            let puts = OperationCounts {
                operation: Operation::Put,
                outcomes: vec![("ok", 2), ("full", 1)],
                bytes: 70,
                retries: 1,
                took: Duration::from_millis(1_500),
            };
            Some((status, vec![puts]))
        }
    }

    #[test]
    fn a_scrape_shows_process_log_groups_and_store() {
        let mut registry = Registry::default();
        let store = segmentstore::Metrics::default();
        store.appended_events.add(5);
        store.unarchived_extents.add(2);
        store.unarchived_bytes.add(12);
        store.count_refused(proto::v1::Reason::SegmentSealed);
        registry.register_collector(Box::new(NodeCollector(Arc::new(Fixed(store)))));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "braid_log_budget_bytes 1000.0",
            "braid_log_group_bytes{group=\"2\"} 77.0",
            "braid_group_serving{group=\"1\"} 1.0",
            "braid_group_term{group=\"1\"} 3.0",
            "braid_group_checkpoint_waits{group=\"1\"} 1.0",
            "braid_group_untiered_bytes{group=\"1\"} 70.0",
            "braid_group_tiering_fails{group=\"1\"} 1.0",
            "braid_group_lost_entries{group=\"1\"} 4.0",
            "braid_worker_step_seconds_bucket{le=\"0.001\"} 7",
            "braid_worker_step_seconds_bucket{le=\"+Inf\"} 9",
            "braid_worker_step_seconds_sum 0.012",
            "braid_unarchived_extents_total 2.0",
            "braid_unarchived_bytes_total 12.0",
            "braid_appended_events_total 5.0",
            "braid_refused_total{reason=\"SEGMENT_SEALED\"} 1.0",
            "braid_memory_limit_bytes{class=\"tail\"} 9.0",
            "braid_memory_used_bytes{class=\"tail\"} 5.0",
            "braid_lts_ready 1.0",
            "braid_lts_down_seconds 3.0",
            "braid_lts_breaker{state=\"open\"} 1.0",
            "braid_lts_breaker{state=\"closed\"} 0.0",
            "braid_lts_requests_total{operation=\"put\",outcome=\"ok\"} 2.0",
            "braid_lts_requests_total{operation=\"put\",outcome=\"full\"} 1.0",
            "braid_lts_request_seconds_total{operation=\"put\"} 1.5",
            "braid_lts_request_bytes_total{operation=\"put\"} 70.0",
            "braid_lts_retries_total{operation=\"put\"} 1.0",
            "# TYPE process_cpu_seconds counter",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn resident_memory_reads_from_the_kernel_s_words() {
        assert_eq!(resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t   132 kB\n"), Some(132 * 1024));
        assert_eq!(resident_bytes("VmPeak:\t 9 kB\n"), None);
    }
}
