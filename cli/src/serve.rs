//! What a server in this process shares with the other commands: its log and its errors.

use server::{ErrorKind, ServerError, TracingFormat};
use tracing_subscriber::EnvFilter;

use crate::failure::{Exit, Failure, Result};

/// Messages of the libraries go to standard error.
pub(crate) fn start_log(filter: &str, format: TracingFormat) -> Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::usage(format!(
            "log filter `{filter}` is not valid ({error}); write a level such as `info`, or \
             `target=level` pairs"
        ))
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        TracingFormat::Text => log.init(),
        TracingFormat::Json => log.json().init(),
    }
    Ok(())
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let exit = match error.kind() {
            ErrorKind::Usage => Exit::Usage,
            ErrorKind::Conflict => Exit::Conflict,
            ErrorKind::Denied => Exit::Denied,
            ErrorKind::Data | ErrorKind::Failure => Exit::Failure,
        };
        Failure::new(exit, error.to_string())
    }
}
