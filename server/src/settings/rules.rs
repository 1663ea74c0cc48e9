//! What no single value shows: sensible ranges, and rules between settings.

use std::path::Path;

use common::{ByteSize, Period};
use lts::StoreUrl;
use replica::TieringSettings;

use super::storage::absolute;
use super::{LtsUrl, Settings, SettingsError};

/// The least that `memory.limit` can be split.
pub(crate) const MEMORY_MIN: ByteSize = ByteSize::mib(256);

/// Containers of a cluster; their groups are numbered from the controller's on.
pub(crate) const CONTAINERS_MAX: u16 = 1_024;

/// A setting, whether it is right, and what to do where it is not.
type Rule = (&'static str, bool, String);

pub(super) fn check(settings: &Settings) -> Result<(), SettingsError> {
    settings.lts.store.check()?;
    let rules = of_node(settings)
        .into_iter()
        .chain(of_memory(settings))
        .chain(of_lts(settings))
        .chain(of_tiering(settings))
        .chain(of_rounds(settings));
    match rules.into_iter().find(|(_, holds, _)| !holds) {
        Some((key, _, message)) => Err(SettingsError::Rule { key, message }),
        None => Ok(()),
    }
}

fn of_node(settings: &Settings) -> [Rule; 10] {
    let Settings { server, log, containers, limits, .. } = settings;
    [
        (
            "server.listen",
            server.listen.ip().is_loopback() || server.insecure,
            format!(
                "`{}` is reachable from other machines, and there is no encryption and no \
                 authentication yet; listen on 127.0.0.1, or accept that with `--insecure` \
                 (`server.insecure = true`)",
                server.listen
            ),
        ),
        (
            "log.file_size",
            (ByteSize::mib(16)..=ByteSize::gib(1)).contains(&log.file_size)
                && log.file_size.bytes().is_multiple_of(4096),
            format!("`{}` must be from 16MiB to 1GiB and a multiple of 4KiB", log.file_size),
        ),
        (
            "log.budget",
            log.budget.bytes() / 8 >= log.file_size.bytes(),
            format!(
                "`{}` is less than eight files of `{}` (`log.file_size`); raise it",
                log.budget, log.file_size
            ),
        ),
        (
            "containers.count",
            (1..=CONTAINERS_MAX).contains(&containers.count),
            format!("`{}` must be from 1 to {CONTAINERS_MAX}", containers.count),
        ),
        (
            "limits.connections",
            limits.connections >= 1 && limits.connections_per_address >= 1,
            "at least one connection, in all and per address".to_owned(),
        ),
        (
            "limits.first_bytes",
            !limits.first_bytes.0.is_zero(),
            "a connection needs some time to speak".to_owned(),
        ),
        at_least_one("limits.requests_per_connection", limits.requests_per_connection),
        at_least_one("limits.append_streams_per_connection", limits.append_streams_per_connection),
        at_least_one("limits.sessions_per_connection", limits.sessions_per_connection),
        at_least_one("limits.queries", limits.queries),
    ]
}

fn at_least_one(key: &'static str, value: u32) -> Rule {
    (key, value >= 1, "with none of them nothing can be done; allow at least one".to_owned())
}

fn of_memory(settings: &Settings) -> [Rule; 5] {
    let at_least = |key, value: Option<ByteSize>, least: ByteSize, why: &str| {
        let holds = value.is_none_or(|value| value >= least);
        (key, holds, format!("`{}` {why}", value.unwrap_or_default()))
    };
    let append = ByteSize(2 * common::limits::EVENT_BYTES_MAX as u64);
    [
        at_least(
            "limits.append_bytes",
            settings.limits.append_bytes.0,
            append,
            "must hold two largest events: 16MiB",
        ),
        at_least(
            "cache.read",
            settings.cache.read.0,
            ByteSize::mib(32),
            "must hold a few largest entries: 32MiB",
        ),
        at_least(
            "cache.objects",
            settings.cache.objects.0,
            ByteSize::mib(32),
            "must hold a few largest blocks: 32MiB",
        ),
        at_least(
            "cache.objects_ahead",
            settings.cache.objects_ahead.0,
            ByteSize::mib(32),
            "must hold a few largest blocks: 32MiB",
        ),
        at_least(
            "memory.limit",
            settings.memory.limit.0,
            MEMORY_MIN,
            "is too little for a node; give it 256MiB or more",
        ),
    ]
}

fn of_lts(settings: &Settings) -> [Rule; 2] {
    let url = settings.lts_url();
    let remote = matches!(url, Some(StoreUrl::Remote(_)));
    let folder = match &settings.lts.url {
        LtsUrl::At(StoreUrl::Folder(path)) => Some(path.as_path()),
        _ => None,
    };
    let data = absolute(&settings.data.dir);
    let apart = |folder: &Path| {
        let ours = ["wal", "state"].iter().any(|name| folder.starts_with(data.join(name)));
        !ours && !data.starts_with(folder)
    };
    [
        (
            "lts.endpoint",
            settings.lts.store.endpoint.is_empty() || remote,
            "is the address of a remote store; say which bucket of it with `--lts s3://BUCKET` \
             (`lts.url`)"
                .to_owned(),
        ),
        (
            "lts.url",
            folder.is_none_or(apart),
            format!(
                "the bucket must be apart from the log and the state in `{}`; give it a folder of \
                 its own",
                settings.data.dir.display()
            ),
        ),
    ]
}

/// What rounds must take at once at least, in whole MiB.
pub(crate) fn round_bytes_least(settings: &Settings) -> ByteSize {
    let (budget, file_size) = (settings.log.budget, settings.log.file_size);
    let log = wal::LogSettings { budget, file_size, ..wal::LogSettings::default() };
    ByteSize::mib(TieringSettings::round_bytes_least(&log).bytes().div_ceil(1 << 20))
}

/// Where events are archived, a full log must be emptied by what rounds may take at once.
fn of_rounds(settings: &Settings) -> [Rule; 2] {
    let Settings { tiering, log, .. } = settings;
    let (budget, file_size) = (log.budget, log.file_size);
    let least = round_bytes_least(settings);
    let rule = |key, value: ByteSize, rounds: u64, write: ByteSize| {
        let message = format!(
            "`{value}` is too little for a log of `{budget}` (`log.budget`) in files of \
             `{file_size}` (`log.file_size`): the entries of the rounds that empty it when it is \
             full would not fit into the four files that are kept for them; write `{write}` or \
             more, or make the files larger"
        );
        (key, settings.lts_url().is_none() || rounds >= least.bytes(), message)
    };
    let (round, object) = (tiering.round_bytes, tiering.object_bytes);
    let half = ByteSize::mib((least.bytes() >> 20).div_ceil(2));
    [
        rule("tiering.round_bytes", round, round.bytes(), least),
        rule("tiering.object_bytes", object, 2 * object.bytes(), half),
    ]
}

fn of_tiering(settings: &Settings) -> [Rule; 6] {
    let Settings { tiering, log, .. } = settings;
    let objects = ByteSize::mib(1)..=ByteSize(lts::OBJECT_BYTES_MAX);
    [
        (
            "tiering.round_bytes",
            tiering.round_bytes >= ByteSize::mib(1),
            format!("`{}` would make a round of every message; 1MiB or more", tiering.round_bytes),
        ),
        (
            "tiering.round_bytes",
            tiering.round_bytes.bytes() <= log.budget.bytes() / 8,
            format!(
                "`{}` is more than an eighth of the log, `{}` (`log.budget`), which would be full \
                 before a round begins; lower it, or raise the budget",
                tiering.round_bytes, log.budget
            ),
        ),
        (
            "tiering.age",
            tiering.age.0.is_none_or(|age| age >= Period::millis(100)),
            "a round per 100ms is the most that makes sense; raise it".to_owned(),
        ),
        (
            "tiering.object_bytes",
            objects.contains(&tiering.object_bytes),
            format!(
                "`{}` must be from {} to {}, the largest object",
                tiering.object_bytes,
                objects.start(),
                objects.end()
            ),
        ),
        (
            "tiering.checkpoint_bytes",
            tiering.checkpoint_bytes >= tiering.round_bytes,
            format!(
                "`{}` is less than a round, `{}` (`tiering.round_bytes`); raise it",
                tiering.checkpoint_bytes, tiering.round_bytes
            ),
        ),
        (
            "tiering.checkpoint_interval",
            tiering.checkpoint_interval >= Period::seconds(60),
            "state is written as a whole each time; give it 1m or more".to_owned(),
        ),
    ]
}
