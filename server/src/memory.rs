//! One memory limit, split among all who hold memory that grows with the load.
//!
//! The split is the table [`SHARES`], which the operations manual repeats. What is not shared out
//! (at least a tenth of the limit, about half of it by default) is for what is counted elsewhere or
//! not at all: the state of segments, what connections are made of, the log's buffers.

mod machine;

use common::ByteSize;

pub(crate) use self::machine::default_limit;
use crate::settings::{Settings, SettingsError, round_bytes_least};

/// Of the limit, what the shares may make together.
const SHARED_PERCENT: u64 = 90;

/// Rounds that are in memory at a time, as many as there are threads that make them; and of a node
/// whose share of tiering is small.
const ROUNDS: usize = 4;
const ROUNDS_SMALL: usize = 2;

/// A share of tiering up to this one goes to few rounds, and none of it to what they will take next.
const SMALL_TIERING: ByteSize = ByteSize::mib(32);

/// Who holds memory that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MemoryClass {
    /// The newest events, for readers at the tail.
    Tail,
    /// Log entries, for readers that catch up.
    LogRead,
    /// Blocks of objects, for readers that catch up.
    Objects,
    /// Blocks of objects on their way to readers, and read ahead for them.
    ObjectsAhead,
    /// RocksDB: buffers and cache.
    State,
    /// Appends admitted and not yet durable.
    Appends,
    /// Buffers of rounds on their way to long-term storage.
    Tiering,
    /// What clients may have on the way to the server: HTTP/2 windows, and frames not admitted yet.
    Receive,
    /// What is on the way to clients, or waits for them to take it.
    Send,
    /// Writer tables of segments, and the sessions that connections have open.
    Writers,
}

impl MemoryClass {
    /// A stable word for metrics and status.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tail => "tail",
            Self::LogRead => "log_read",
            Self::Objects => "objects",
            Self::ObjectsAhead => "objects_ahead",
            Self::State => "state",
            Self::Appends => "appends",
            Self::Tiering => "tiering",
            Self::Receive => "receive",
            Self::Send => "send",
            Self::Writers => "writers",
        }
    }
}

/// What a class may hold, and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClassUse {
    pub(crate) class: MemoryClass,
    pub(crate) limit: ByteSize,
    pub(crate) used: u64,
}

/// What one class gets of the limit.
struct Share {
    class: MemoryClass,
    /// In 128ths of the limit.
    parts: u64,
    /// Below it the class cannot do its work.
    least: ByteSize,
}

const fn share(class: MemoryClass, parts: u64, least_mib: u64) -> Share {
    Share { class, parts, least: ByteSize::mib(least_mib) }
}

/// The split. At 2 GiB, the default of a large machine: 128, 64, 384, 128, 16, 64, 256, 160, 64 and
/// 96 MiB. At 256 MiB, the least, the minima make it 16, 32, 32, 32, 16, 16, 32, 30, 8 and 16 MiB,
/// nine tenths of the limit.
const SHARES: [Share; 10] = [
    share(MemoryClass::Tail, 8, 16),
    // A few of the largest entries, which readers share.
    share(MemoryClass::LogRead, 4, 32),
    // A few of the largest blocks.
    share(MemoryClass::Objects, 24, 32),
    // Two windows of a sequential reader.
    share(MemoryClass::ObjectsAhead, 8, 32),
    // Below it RocksDB flushes for every checkpoint of one large segment.
    share(MemoryClass::State, 1, 16),
    // Two of the largest events.
    share(MemoryClass::Appends, 4, 16),
    // One object.
    share(MemoryClass::Tiering, 16, 32),
    // A window and a frame of each of 256 connections that append.
    share(MemoryClass::Receive, 10, 30),
    share(MemoryClass::Send, 4, 8),
    // Sessions of 64 writers on a thousand segments each.
    share(MemoryClass::Writers, 6, 16),
];

/// The limit and everyone's share of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemoryPlan {
    pub(crate) limit: ByteSize,
    shares: Vec<(MemoryClass, ByteSize)>,
}

impl MemoryPlan {
    /// The split that settings ask for; `default_limit` where they leave the limit open. Where
    /// single shares are set and do not fit, objects give way.
    pub(crate) fn new(settings: &Settings, default_limit: ByteSize) -> Result<Self, SettingsError> {
        let limit = settings.memory.limit.0.unwrap_or(default_limit);
        let of_limit = |share: &Share| {
            let set = match share.class {
                MemoryClass::Tail => settings.cache.tail.0,
                MemoryClass::LogRead => settings.cache.read.0,
                MemoryClass::Appends => settings.limits.append_bytes.0,
                MemoryClass::Objects => settings.cache.objects.0,
                MemoryClass::ObjectsAhead => settings.cache.objects_ahead.0,
                MemoryClass::State
                | MemoryClass::Tiering
                | MemoryClass::Receive
                | MemoryClass::Send
                | MemoryClass::Writers => None,
            };
            let part = ByteSize(limit.bytes() / 128 * share.parts);
            (share.class, set.unwrap_or_else(|| part.max(share.least)))
        };
        let mut plan = Self { limit, shares: SHARES.iter().map(of_limit).collect() };
        let excess = plan.total().saturating_sub(limit.bytes() / 100 * SHARED_PERCENT);
        let least = SHARES.iter().find(|share| share.class == MemoryClass::Objects);
        let least = least.map_or(0, |share| share.least.bytes());
        for (_, bytes) in plan.shares.iter_mut().filter(|(class, _)| *class == MemoryClass::Objects)
        {
            *bytes = ByteSize(bytes.bytes().saturating_sub(excess).max(least));
        }
        plan.check(settings)?;
        Ok(plan)
    }

    pub(crate) fn share(&self, class: MemoryClass) -> ByteSize {
        let found = self.shares.iter().find(|(of, _)| *of == class);
        found.map(|(_, bytes)| *bytes).expect("every class is in the table")
    }

    /// What one round may have in memory.
    pub(crate) fn round(&self) -> ByteSize {
        let rounds = self.share(MemoryClass::Tiering).bytes() - self.kept_for_rounds().bytes();
        ByteSize(rounds / self.rounds() as u64)
    }

    /// How many rounds are made at a time.
    pub(crate) fn rounds(&self) -> usize {
        match self.share(MemoryClass::Tiering) <= SMALL_TIERING {
            true => ROUNDS_SMALL,
            false => ROUNDS,
        }
    }

    /// What all groups together may keep of the log for their next rounds.
    pub(crate) fn kept_for_rounds(&self) -> ByteSize {
        let spare = self.share(MemoryClass::Tiering).bytes().saturating_sub(SMALL_TIERING.bytes());
        ByteSize(spare / 2)
    }

    pub(crate) fn shares(&self) -> &[(MemoryClass, ByteSize)] {
        &self.shares
    }

    fn total(&self) -> u64 {
        self.shares.iter().map(|(_, bytes)| bytes.bytes()).sum()
    }

    fn check(&self, settings: &Settings) -> Result<(), SettingsError> {
        if self.total() > self.limit.bytes() / 100 * SHARED_PERCENT {
            let shares: Vec<_> =
                self.shares.iter().map(|(of, bytes)| format!("{} {bytes}", of.as_str())).collect();
            let message = format!(
                "`{}` is too little for these shares, which may take {SHARED_PERCENT} % of it: {}; \
                 raise it, or lower `cache.tail`, `cache.read`, `cache.objects`, `cache.objects_ahead` or \
                 `limits.append_bytes`",
                self.limit,
                shares.join(", ")
            );
            return Err(SettingsError::Rule { key: "memory.limit", message });
        }
        let (object, tiering) = (settings.tiering.object_bytes, self.share(MemoryClass::Tiering));
        if object > tiering {
            let message = format!(
                "`{object}` is more than tiering may have in memory, {tiering} of `{}` \
                 (`memory.limit`); lower it, or raise the limit",
                self.limit
            );
            return Err(SettingsError::Rule { key: "tiering.object_bytes", message });
        }
        let least = round_bytes_least(settings);
        if settings.lts_url().is_some() && self.round().bytes() < least.bytes() {
            let message = format!(
                "`{}` leaves rounds {} in memory each; a log of `{}` (`log.budget`) in files of `{}` \
                 (`log.file_size`) needs rounds of {least}: raise the limit, or make the files larger",
                self.limit,
                self.round(),
                settings.log.budget,
                settings.log.file_size
            );
            return Err(SettingsError::Rule { key: "memory.limit", message });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
