//! Why a node did not start, told by what a person can do about it.

use std::path::Path;

use replica::StartError;
use wal::OpenError;

use crate::error::ServerError;

pub(crate) fn start_error(dir: &Path) -> impl Fn(StartError) -> ServerError {
    move |error| match is_disk_full(&error) {
        true => ServerError::DiskFull { dir: dir.to_owned(), message: chain(&error) },
        false => not_started(&error),
    }
}

fn not_started(error: &StartError) -> ServerError {
    let damaged = match error {
        StartError::Log(error) => matches!(
            error,
            OpenError::Damaged { .. }
                | OpenError::Missing { .. }
                | OpenError::ForeignStore { .. }
                | OpenError::Version { .. }
                | OpenError::Unknown { .. }
        ),
        // What is in the bucket is as it was; it may answer later.
        StartError::Archive { .. } => false,
        StartError::Thread { .. } | StartError::Append { .. } => false,
        _ => true,
    };
    let component = match error {
        StartError::Log(_) => "log",
        StartError::Kv(_) => "state store",
        _ => "groups",
    };
    ServerError::Start { component, message: chain(error), data_damaged: damaged }
}

fn is_disk_full(error: &StartError) -> bool {
    match error {
        StartError::Kv(error) => error.no_space,
        StartError::Log(OpenError::Io { source, .. }) => {
            source.kind() == std::io::ErrorKind::StorageFull
        }
        StartError::Append { source, .. } => {
            matches!(source, wal::AppendError::Full(wal::FullReason::Disk))
        }
        _ => false,
    }
}

/// An error with all its sources, as one sentence.
pub(crate) fn chain(error: &(impl std::error::Error + ?Sized)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent errors repeat their source.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_full_disk_is_not_reported_as_damage() {
        let no_space = || std::io::Error::new(std::io::ErrorKind::StorageFull, "no space");
        let kv = replica::KvError { action: "open", detail: "no space".to_owned(), no_space: true };
        let log = OpenError::Io { operation: "make a log file", source: no_space() };
        for error in [StartError::Kv(kv.clone()), StartError::Log(log)] {
            let told = start_error(Path::new("/data"))(error);
            assert_eq!(told.kind(), ErrorKind::Failure);
            let text = told.to_string();
            assert!(text.contains("`/data` is full") && text.contains("no space"), "{text}");
        }
        let broken = replica::KvError { no_space: false, ..kv };
        assert_eq!(start_error(Path::new("/data"))(broken.into()).kind(), ErrorKind::Data);
    }
}
