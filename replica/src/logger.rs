//! Hands raft-rs's log lines to `tracing`.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};

struct Tracing;

impl Drain for Tracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        // What raft-rs warns about (a peer that does not answer, a rejected vote) is everyday life
        // of a group; what needs a person is reported by the group itself.
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{}", record.msg()),
            Level::Warning | Level::Info => tracing::debug!(target: "raft", "{}", record.msg()),
            Level::Debug | Level::Trace => {}
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        level.is_at_least(Level::Info)
    }
}

pub(crate) fn raft_logger() -> Logger {
    Logger::root(Tracing, o!())
}
