//! `braid dev` and `braid server`: a server in this process.

use std::path::PathBuf;
use std::time::Duration;

use common::tasks::spawn_thread;
use rustix::process::{Signal, getpid, kill_process};
use server::{ErrorKind, Origin, Resolved, ServerError, Stop, TracingFormat};
use tracing_subscriber::EnvFilter;

use crate::failure::{Exit, Failure, Result};
use crate::output;
use crate::settings::SettingsArgs;

/// Run all roles on this machine, with durable data
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  braid dev
  braid dev --data /var/tmp/braid --listen 127.0.0.1:7071

It says where it is reached and what to try next, and stops on SIGINT and SIGTERM; a second one
does not wait for clients. Scopes and streams are created by the first append to them.")]
pub(crate) struct DevArgs {
    /// A settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: SettingsArgs,
}

/// Run a server with a settings file
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  braid config default > braid.toml
  braid server --config braid.toml
  BRAID__LOG__BUDGET=4GiB braid server --config braid.toml")]
pub(crate) struct ServerArgs {
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    #[command(flatten)]
    settings: SettingsArgs,
}

/// `log`: the filter of --log, where it was given.
pub(crate) fn dev(args: &DevArgs, log: Option<&str>) -> Result<()> {
    let resolved = args.settings.resolve(args.config.clone())?;
    let filter = filter(&resolved, log, "warn");
    start_log(&filter, resolved.settings.tracing.format)?;
    Ok(server::dev(&resolved.settings, Stop::OnSignal, &mut std::io::stdout())?)
}

pub(crate) fn server(args: &ServerArgs, log: Option<&str>) -> Result<()> {
    let resolved = args.settings.resolve(Some(args.config.clone()))?;
    let filter = filter(&resolved, log, "info");
    start_log(&filter, resolved.settings.tracing.format)?;
    Ok(server::run(&resolved.settings, Stop::OnSignal, |ready| {
        output::note(format_args!(
            "ready at {} with its data in {}",
            ready.address,
            ready.data.display()
        ));
    })?)
}

/// --log, else the setting where someone set it, else `quiet`.
fn filter(resolved: &Resolved, log: Option<&str>, quiet: &str) -> String {
    let is_set = |key: &str| {
        resolved.entries().iter().any(|entry| entry.key == key && entry.origin != Origin::Default)
    };
    match log {
        Some(filter) => filter.to_owned(),
        None if is_set("tracing.filter") => resolved.settings.tracing.filter.clone(),
        None => quiet.to_owned(),
    }
}

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

/// How long the end of a process may take that has nothing left to save.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A call that hangs in a disk keeps threads of the state store from ending, and with them the
/// process: it then ends as it stands. The log has all that was acknowledged.
fn end_for_sure() {
    let ending = spawn_thread("last-resort", || {
        let (_held, never) = std::sync::mpsc::channel::<()>();
        let waited = never.recv_timeout(END_LIMIT);
        tracing::error!(?waited, "the process does not end by itself; it is killed");
        if let Err(error) = kill_process(getpid(), Signal::KILL) {
            tracing::error!(%error, "it cannot be killed; use SIGKILL");
        }
    });
    if let Err(error) = ending {
        tracing::warn!(%error, "nobody looks after the end of the process");
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        if matches!(error, ServerError::Fatal { .. } | ServerError::Interrupted) {
            end_for_sure();
        }
        let exit = match error.kind() {
            ErrorKind::Usage => Exit::Usage,
            ErrorKind::NotFound => Exit::NotFound,
            ErrorKind::Conflict => Exit::Conflict,
            ErrorKind::Denied => Exit::Denied,
            ErrorKind::Unavailable => Exit::Unavailable,
            ErrorKind::Data | ErrorKind::Failure => Exit::Failure,
        };
        Failure::new(exit, error.to_string())
    }
}
