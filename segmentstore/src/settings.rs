//! What an operator may set of the segment store.

use common::ByteSize;

/// Settings of the segment store; defaults suit a machine with 2 cores and a few GiB of memory.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Memory for the newest bytes of all segments together, which tail readers share. More pays
    /// only where readers lag by more than this; much more costs appends page faults.
    pub tail_cache: ByteSize,
    /// Memory for log entries that catch-up readers have just read or are about to read.
    pub read_cache: ByteSize,
    /// Memory for blocks of objects in long-term storage that catch-up readers have just read; what
    /// is read again and again stays, a reader that passes through once does not push it out.
    pub object_cache: ByteSize,
    /// Memory for what all catch-up readers together read from long-term storage at a time and have
    /// read ahead.
    pub object_read_ahead: ByteSize,
    /// Bytes of appends that may wait for their acknowledgement in the whole process. Beyond it
    /// the server stops reading from clients, which HTTP/2 pushes back to them.
    pub append_memory: ByteSize,
    /// Memory for the sessions of writers on segments that connections have open or had.
    pub session_memory: ByteSize,
    /// Sessions that one append connection may open in its life.
    pub connection_sessions: usize,
    /// Questions to containers under way at a time, over all connections.
    pub questions: usize,
    /// Threads that read from the log. A few keep a disk busy.
    pub read_threads: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tail_cache: ByteSize::mib(128),
            read_cache: ByteSize::mib(64),
            object_cache: ByteSize::mib(64),
            object_read_ahead: ByteSize::mib(64),
            append_memory: ByteSize::mib(64),
            session_memory: ByteSize::mib(64),
            connection_sessions: 1 << 18,
            questions: 1_024,
            read_threads: 2,
        }
    }
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting `{name}` is {value}; {rule}")]
pub struct SettingError {
    pub name: &'static str,
    pub value: String,
    pub rule: &'static str,
}

impl Settings {
    /// Refuses values with which the store could not do its work.
    pub fn check(&self) -> Result<(), SettingError> {
        let one_message = common::limits::DATA_MESSAGE_BYTES_MAX as u64;
        let error = |name, value, rule| Err(SettingError { name, value, rule });
        if self.append_memory.bytes() < one_message {
            let rule = "give it at least 10MiB, the largest message";
            return error("append_memory", self.append_memory.to_string(), rule);
        }
        if self.read_cache.bytes() < 2 * one_message {
            let rule = "give it at least 20MiB, two of the largest entries";
            return error("read_cache", self.read_cache.to_string(), rule);
        }
        if self.object_cache.bytes() < 2 * one_message {
            let rule = "give it at least 20MiB, two of the largest blocks";
            return error("object_cache", self.object_cache.to_string(), rule);
        }
        if self.object_read_ahead.bytes() < 2 * one_message {
            let rule = "give it at least 20MiB, two of the largest blocks";
            return error("object_read_ahead", self.object_read_ahead.to_string(), rule);
        }
        if self.connection_sessions == 0 {
            return error("connection_sessions", "0".to_owned(), "allow at least one");
        }
        if self.questions == 0 {
            return error("questions", "0".to_owned(), "allow at least one");
        }
        if self.read_threads == 0 || self.read_threads > 64 {
            return error("read_threads", self.read_threads.to_string(), "choose 1 to 64");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_useless_values_are_refused_by_name() {
        assert_eq!(Settings::default().check(), Ok(()));
        let cases = [
            Settings { append_memory: ByteSize::mib(1), ..Settings::default() },
            Settings { read_cache: ByteSize(0), ..Settings::default() },
            Settings { object_cache: ByteSize::mib(19), ..Settings::default() },
            Settings { object_read_ahead: ByteSize::mib(19), ..Settings::default() },
            Settings { connection_sessions: 0, ..Settings::default() },
            Settings { questions: 0, ..Settings::default() },
            Settings { read_threads: 0, ..Settings::default() },
        ];
        let names = [
            "append_memory",
            "read_cache",
            "object_cache",
            "object_read_ahead",
            "connection_sessions",
            "questions",
            "read_threads",
        ];
        for (settings, name) in cases.iter().zip(names) {
            assert_eq!(settings.check().unwrap_err().name, name);
        }
    }
}
