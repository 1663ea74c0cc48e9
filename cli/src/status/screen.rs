//! The status as people read it: a line for each thing, trouble in words.

use std::time::Duration;

use super::{Group, Lts, Report};
use crate::output::{bytes_text, counted, pairs_text};

/// Groups that are in trouble and told one by one; of more, only the number.
const GROUPS_MAX: usize = 8;

pub(super) fn text(report: &Report) -> String {
    let mut lines = vec![
        ("server", server(report)),
        ("holds", holds(report)),
        ("appends", appends(report)),
        ("reads", rate(report, report.rates.read_bytes_per_second)),
        ("log", log(report)),
        ("not tiered", untiered(report)),
        ("storage", storage(report.lts.as_ref())),
    ];
    if let Some(error) = report.lts.as_ref().and_then(|lts| lts.last_error.clone()) {
        lines.push(("last error", error));
    }
    lines.push(("memory", memory(report)));
    lines.extend(report.memory.classes.iter().map(|class| {
        let used = or_unknown(class.used_bytes.map(bytes_text));
        ("", format!("{:<9} {used} of {}", class.class, bytes_text(class.limit_bytes)))
    }));
    lines.extend(slowed_by(report));
    lines.push(("groups", groups(report)));
    lines.extend(troubled(report).take(GROUPS_MAX).map(|group| ("", trouble(group))));
    let owned = |(name, value): (&str, String)| (name.to_owned(), value);
    pairs_text(&lines.into_iter().map(owned).collect::<Vec<_>>())
}

fn server(report: &Report) -> String {
    let mode = if report.dev { ", dev" } else { "" };
    format!("braid {}{mode}, up {}", report.version, time(report.uptime_seconds))
}

fn holds(report: &Report) -> String {
    match (report.streams, report.scopes) {
        (Some(streams), Some(scopes)) => {
            format!("{} in {}", counted(streams, "stream"), counted(scopes, "scope"))
        }
        _ => "not known: the controller's group does not serve".to_owned(),
    }
}

fn appends(report: &Report) -> String {
    let bytes = rate(report, report.rates.append_bytes_per_second);
    match report.rates.window_seconds {
        0.0 => bytes,
        _ => format!("{:.0} events/s, {bytes}", report.rates.append_events_per_second),
    }
}

/// Bytes a second; nothing is known right after the start.
fn rate(report: &Report, bytes: f64) -> String {
    match report.rates.window_seconds {
        0.0 => "-".to_owned(),
        _ => format!("{}/s", bytes_text(bytes as u64)),
    }
}

fn log(report: &Report) -> String {
    let (used, budget) = (report.log.used_bytes, report.log.budget_bytes);
    let percent = 100.0 * used as f64 / budget.max(1) as f64;
    format!("{} of {} ({percent:.0} %)", bytes_text(used), bytes_text(budget))
}

fn untiered(report: &Report) -> String {
    let bytes = or_unknown(report.untiered.bytes.map(bytes_text));
    match report.untiered.age_seconds {
        Some(age) => format!("{bytes}, the oldest for {}", time(age)),
        None => bytes,
    }
}

fn storage(lts: Option<&Lts>) -> String {
    let Some(lts) = lts else { return "none: the log is all there is".to_owned() };
    let state = match (lts.breaker.as_str(), lts.ready) {
        ("closed", true) if lts.last_error.is_some() => {
            "answers, and does not do what it is asked".to_owned()
        }
        ("closed", true) => "ready".to_owned(),
        ("closed", false) => "not ready: not yet known to be this cluster's".to_owned(),
        _ => format!("does not answer for {}", time(lts.down_seconds)),
    };
    format!("{}, {state}", lts.url)
}

fn memory(report: &Report) -> String {
    let (resident, limit) = (report.memory.resident_bytes, report.memory.limit_bytes);
    format!("{} resident, `memory.limit` is {}", bytes_text(resident), bytes_text(limit))
}

fn slowed_by(report: &Report) -> Option<(&'static str, String)> {
    let largest = report.pressure.iter().max_by(|a, b| a.level.total_cmp(&b.level))?;
    let text = format!("appends wait: {} presses with {:.2} of 1", largest.signal, largest.level);
    (largest.level > 0.0).then_some(("pressure", text))
}

fn groups(report: &Report) -> String {
    let serving = report.groups.iter().filter(|group| group.serving).count();
    let troubled = troubled(report).count();
    let more = if troubled > GROUPS_MAX { ", among them:" } else { "" };
    match troubled {
        0 => format!("{serving} of {} serve", report.groups.len()),
        _ => format!("{serving} of {} serve, {troubled} in trouble{more}", report.groups.len()),
    }
}

fn troubled(report: &Report) -> impl Iterator<Item = &Group> {
    let waits = |group: &Group| group.checkpoint_waits || group.tiering_failure.is_some();
    let stopped = |group: &Group| group.quarantined.is_some() || !group.serving;
    report.groups.iter().filter(move |group| stopped(group) || waits(group))
}

fn trouble(group: &Group) -> String {
    let what = match (&group.quarantined, group.serving, &group.tiering_failure) {
        (Some(reason), _, _) => format!("is quarantined: {reason}"),
        (None, false, _) => "has no leader".to_owned(),
        (None, true, Some(failure)) if !group.checkpoint_waits => {
            format!("does not tier: {failure}")
        }
        (None, true, _) => "waits for space on the disk for a checkpoint".to_owned(),
    };
    format!("group {} {what}", group.group)
}

fn or_unknown(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// In whole seconds.
fn time(seconds: f64) -> String {
    humantime::format_duration(Duration::from_secs(seconds as u64)).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::{Class, Log, Memory, Pressure, Rates, Untiered};
    use super::*;

    fn group(group: u64) -> Group {
        Group {
            group,
            serving: true,
            log_bytes: 5,
            untiered_bytes: Some(1_000),
            untiered_age_seconds: Some(3.0),
            quarantined: None,
            checkpoint_waits: false,
            tiering_failure: None,
            lost_entries: 0,
        }
    }

    fn report() -> Report {
        Report {
            version: "1.2.3".into(),
            dev: true,
            uptime_seconds: 3_725.4,
            scopes: Some(1),
            streams: Some(2),
            rates: Rates {
                window_seconds: 5.0,
                append_events_per_second: 1_000.4,
                append_bytes_per_second: 2e6,
                read_bytes_per_second: 0.0,
            },
            log: Log { used_bytes: 1 << 30, budget_bytes: 8 << 30 },
            untiered: Untiered { bytes: Some(2_000), age_seconds: Some(3.0) },
            lts: Some(Lts {
                url: "s3://b/p".into(),
                ready: true,
                breaker: "closed".into(),
                down_seconds: 0.0,
                last_error: None,
            }),
            memory: Memory {
                limit_bytes: 2 << 30,
                resident_bytes: 100_000_000,
                classes: vec![Class {
                    class: "tail".into(),
                    used_bytes: None,
                    limit_bytes: 128 << 20,
                }],
            },
            pressure: vec![Pressure { signal: "log".into(), level: 0.0 }],
            groups: vec![group(1), group(2), group(3)],
        }
    }

    #[test]
    fn a_healthy_server_is_one_screen() {
        let expected = "\
server      braid 1.2.3, dev, up 1h 2m 5s
holds       2 streams in 1 scope
appends     1000 events/s, 2.00 MB/s
reads       0 B/s
log         1.07 GB of 8.59 GB (12 %)
not tiered  2.00 kB, the oldest for 3s
storage     s3://b/p, ready
memory      100 MB resident, `memory.limit` is 2.15 GB
            tail      - of 134 MB
groups      3 of 3 serve
";
        assert_eq!(text(&report()), expected);
    }

    #[test]
    fn a_store_that_answers_and_takes_nothing_is_not_called_ready() {
        let mut full = report();
        full.lts.as_mut().unwrap().last_error = Some("no space left".into());
        let text = text(&full);
        for line in [
            "storage     s3://b/p, answers, and does not do what it is asked",
            "last error  no space left",
        ] {
            assert!(text.lines().any(|told| told == line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn trouble_is_said_in_words() {
        let mut sick = report();
        sick.streams = None;
        sick.rates.window_seconds = 0.0;
        sick.untiered = Untiered { bytes: None, age_seconds: None };
        let lts = sick.lts.as_mut().unwrap();
        (lts.breaker, lts.down_seconds) = ("open".into(), 61.0);
        lts.last_error = Some("connection refused".into());
        sick.pressure[0].level = 0.25;
        sick.groups[0].serving = false;
        sick.groups[0].quarantined = Some("a hole in its log".into());
        sick.groups[1].checkpoint_waits = true;
        sick.groups[2].tiering_failure = Some("put `0001/...`: denied".into());
        let text = text(&sick);
        for line in [
            "holds       not known: the controller's group does not serve",
            "appends     -",
            "not tiered  -",
            "storage     s3://b/p, does not answer for 1m 1s",
            "last error  connection refused",
            "pressure    appends wait: log presses with 0.25 of 1",
            "groups      2 of 3 serve, 3 in trouble",
            "            group 1 is quarantined: a hole in its log",
            "            group 2 waits for space on the disk for a checkpoint",
            "            group 3 does not tier: put `0001/...`: denied",
        ] {
            assert!(text.lines().any(|told| told == line), "{line:?} is not in\n{text}");
        }
    }
}
