//! What a measurement prints and saves.

use std::path::PathBuf;
use std::str::FromStr;

use common::ByteSize;
use serde::Serialize;

use super::latency::Percentiles;
use super::machine::Usage;
use crate::failure::{Failure, Result};
use crate::output::{self, Format, note, pairs_text};

/// Where the result goes: `table`, `json` and `yaml` are forms on standard output, anything else
/// is a file that the JSON is saved to as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    Print(Format),
    Save(PathBuf),
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "" => return Err("write table, json, yaml or the name of a file".to_owned()),
            "table" => Destination::Print(Format::Table),
            "json" => Destination::Print(Format::Json),
            "yaml" => Destination::Print(Format::Yaml),
            file => Destination::Save(PathBuf::from(file)),
        })
    }
}

/// The server that was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ServerFacts {
    pub(super) server_version: String,
    /// The bucket; `None` where there is none.
    pub(super) server_tiers_to: Option<String>,
    /// The most memory that it had at once; of a server of the measurement's own.
    pub(super) server_peak_resident_bytes: Option<u64>,
}

/// Figures of one run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) bench: &'static str,
    pub(super) version: &'static str,
    #[serde(flatten)]
    pub(super) server: ServerFacts,
    /// What was measured, as asked for.
    pub(super) event_size: usize,
    pub(super) writers: u32,
    pub(super) segments: u32,
    pub(super) readers: u32,
    /// Events per second as asked for; `None`: as fast as it goes.
    pub(super) rate: Option<u64>,
    /// How the sender waited between events, where it did.
    pub(super) sender: Option<String>,
    pub(super) seconds: f64,
    pub(super) events: u64,
    pub(super) events_per_second: f64,
    /// Millions of bytes of events, without their framing.
    pub(super) megabytes_per_second: f64,
    /// From when to when.
    pub(super) latency_is: &'static str,
    pub(super) latency_millis: Option<Percentiles>,
    /// How much later than meant events were sent; part of the latency above.
    pub(super) sender_lateness_millis: Option<Percentiles>,
    #[serde(flatten)]
    pub(super) usage: Usage,
    pub(super) events_per_server_cpu_second: Option<f64>,
    /// Events that were read back and found whole, in order and complete.
    pub(super) verified_events: u64,
    /// What makes the figures doubtful.
    pub(super) doubts: Vec<String>,
}

impl Report {
    /// Prints the report, or saves it and prints the table.
    pub(super) fn deliver(&self, destination: &Destination) -> Result<()> {
        for doubt in &self.doubts {
            note(format_args!("warning: {doubt}"));
        }
        let table = pairs_text(&self.pairs());
        match destination {
            Destination::Print(format) => output::print_done(*format, table.trim_end(), self),
            Destination::Save(file) => {
                save(file, self)?;
                output::print(&table)
            }
        }
    }

    fn pairs(&self) -> Vec<(String, String)> {
        let rate = self.rate.map_or_else(|| "max".to_owned(), |rate| format!("{rate} events/s"));
        let cpu = |seconds: f64| {
            format!("{seconds:.2} s ({:.0} % of a core)", 100.0 * seconds / self.seconds)
        };
        let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
        let mut pairs = vec![
            ("bench", format!("{} of {} B", self.bench, self.event_size)),
            ("writers", format!("{} on {} segments", self.writers, self.segments)),
            ("rate", rate),
            ("measured", format!("{:.1} s, {} events", self.seconds, self.events)),
            ("events/s", format!("{:.0}", self.events_per_second)),
            ("MB/s", format!("{:.1}", self.megabytes_per_second)),
        ];
        if let Some(latency) = &self.latency_millis {
            pairs.push(("latency", format!("{} ({})", latency.text(), self.latency_is)));
        }
        if let Some(sender) = &self.sender {
            pairs.push(("sender", sender.clone()));
        }
        if let Some(late) = &self.sender_lateness_millis {
            pairs.push(("sent late by", late.text()));
        }
        let usage = &self.usage;
        pairs.extend([
            ("client CPU", cpu(usage.client_cpu_seconds)),
            ("server CPU", or_unknown(usage.server_cpu_seconds.map(cpu))),
            (
                "events per server CPU second",
                or_unknown(self.events_per_server_cpu_second.map(|events| format!("{events:.0}"))),
            ),
            (
                "machine",
                format!(
                    "{} cores, stolen {:.1} %, others {:.1} %",
                    usage.cores, usage.steal_percent, usage.others_percent
                ),
            ),
            ("verified", format!("{} events read back", self.verified_events)),
        ]);
        if let Some(url) = &self.server.server_tiers_to {
            pairs.push(("tiers to", url.clone()));
        }
        if let Some(bytes) = self.server.server_peak_resident_bytes {
            pairs.push(("server memory", format!("{} at most", ByteSize(bytes))));
        }
        if self.readers > 0 {
            pairs[1].1 += &format!(", {} readers", self.readers);
        }
        pairs.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
    }
}

pub(super) fn save(file: &std::path::Path, report: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(report)? + "\n";
    std::fs::write(file, json)
        .map_err(|error| Failure::general(format!("save to `{}`: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_form_or_a_file() {
        assert_eq!("json".parse(), Ok(Destination::Print(Format::Json)));
        assert_eq!("out.json".parse(), Ok(Destination::Save("out.json".into())));
        assert!("".parse::<Destination>().is_err());
    }
}
