//! What a run costs and whether the machine had time for it: CPU of client and server, time
//! stolen by the hypervisor, time taken by others.

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::scrape::Scrape;

/// CPU counters at a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    client_seconds: f64,
    server_seconds: Option<f64>,
    machine: MachineTime,
}

/// Of all cores together, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct MachineTime {
    total: u64,
    idle: u64,
    steal: u64,
}

/// What happened between two samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Usage {
    pub(super) client_cpu_seconds: f64,
    /// `None` where the server does not tell.
    pub(super) server_cpu_seconds: Option<f64>,
    pub(super) cores: usize,
    /// Of the time of all cores, what the hypervisor gave to other machines.
    pub(super) steal_percent: f64,
    /// Of the time of all cores, what neither client nor server used.
    pub(super) others_percent: f64,
}

/// Above this share of stolen time figures can be wrong by a factor.
const STEAL_PERCENT_MAX: f64 = 2.0;

/// Above this share of other work figures are those of a shared machine.
const OTHERS_PERCENT_MAX: f64 = 10.0;

impl Sample {
    /// `server`: where its metrics are, where there is one.
    pub(super) async fn take(server: Option<&str>) -> Self {
        let server_seconds = match server {
            Some(endpoint) => server_cpu_seconds(endpoint).await,
            None => None,
        };
        Self { client_seconds: own_cpu_seconds(), server_seconds, machine: read_machine_time() }
    }

    pub(super) fn until(&self, end: &Sample) -> Usage {
        let client_cpu_seconds = end.client_seconds - self.client_seconds;
        let server_cpu_seconds = match (self.server_seconds, end.server_seconds) {
            (Some(start), Some(end)) => Some(end - start),
            _ => None,
        };
        let (a, b) = (self.machine, end.machine);
        let total = (b.total - a.total).max(1) as f64;
        let steal = b.steal.saturating_sub(a.steal) as f64;
        let busy = total - b.idle.saturating_sub(a.idle) as f64 - steal;
        let ours = (client_cpu_seconds + server_cpu_seconds.unwrap_or(0.0)) * TICKS_PER_SECOND;
        Usage {
            client_cpu_seconds,
            server_cpu_seconds,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            steal_percent: 100.0 * steal / total,
            others_percent: 100.0 * (busy - ours).max(0.0) / total,
        }
    }
}

impl Usage {
    /// What makes the figures doubtful.
    pub(super) fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.steal_percent > STEAL_PERCENT_MAX {
            doubts.push(format!(
                "the hypervisor took {:.1} % of the machine's time; do not trust these figures, \
                 measure again later",
                self.steal_percent
            ));
        }
        if self.server_cpu_seconds.is_some() {
            doubts.extend(others_doubt(self));
        }
        doubts
    }
}

/// Work that is neither the client's nor the server's, where both are known.
pub(super) fn others_doubt(usage: &Usage) -> Option<String> {
    (usage.others_percent > OTHERS_PERCENT_MAX).then(|| {
        format!(
            "other programs (and the kernel's own work) took {:.1} % of the machine's time; the \
             machine is too busy to measure",
            usage.others_percent
        )
    })
}

/// The unit of `/proc/stat`: fixed for programs on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of all threads of this process.
fn own_cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn read_machine_time() -> MachineTime {
    std::fs::read_to_string("/proc/stat")
        .ok()
        .and_then(|text| parse_stat(&text))
        .unwrap_or_default()
}

/// The first line: user, nice, system, idle, iowait, irq, softirq, steal, …
fn parse_stat(text: &str) -> Option<MachineTime> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    if ticks.len() < 8 {
        return None;
    }
    // Guest time, which follows, is part of user time.
    let total = ticks[..8].iter().sum();
    Some(MachineTime { total, idle: ticks[3] + ticks[4], steal: ticks[7] })
}

async fn server_cpu_seconds(endpoint: &str) -> Option<f64> {
    Scrape::of(endpoint).await.ok()?.value("process_cpu_seconds_total")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_time_is_read_from_the_first_line() {
        let time = parse_stat("cpu  10 1 5 100 4 0 1 2 7 0\ncpu0 5 0 2 50 2 0 0 1 3 0\n");
        assert_eq!(time, Some(MachineTime { total: 123, idle: 104, steal: 2 }));
        assert_eq!(parse_stat("nothing"), None);
    }

    #[test]
    fn a_stolen_machine_is_doubted() {
        let machine = |total, idle, steal| MachineTime { total, idle, steal };
        let start = Sample::default();
        let end = Sample {
            client_seconds: 0.5,
            server_seconds: Some(0.2),
            machine: machine(1_000, 850, 50),
        };
        let start = Sample { server_seconds: Some(0.0), ..start };
        let usage = start.until(&end);
        assert_eq!((usage.steal_percent, usage.others_percent), (5.0, 3.0));
        assert_eq!(usage.doubts().len(), 1);
    }
}
