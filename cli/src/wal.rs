//! `braid wal`: the write-ahead log of a server that does not run.

mod rows;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{GroupId, Rng, SystemClock};
use server::{DataDir, Settings};
use wal::{Inspection, LogSettings, OpenError, RealDisk, SavedStates};

use self::rows::InspectionRow;
use crate::failure::{Exit, Failure, Result};
use crate::output::{self, OutputArgs, note};
use crate::settings::SettingsArgs;

/// Look at the write-ahead log of a stopped server, and repair it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  braid wal inspect braid-data
  braid wal inspect braid-data -o json
  braid wal repair braid-data                    # says what would be lost, changes nothing
  braid wal repair braid-data --accept-loss")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show what the log holds and whether it is whole; changes nothing
    Inspect {
        /// The data folder, or the log's own folder
        dir: PathBuf,
    },
    /// Give up what damage has taken, so that the server starts with the rest
    Repair {
        /// The data folder
        dir: PathBuf,
        /// Give up what is lost, for good
        #[arg(long)]
        accept_loss: bool,
        /// Do not ask long-term storage what it has: what is only there counts as lost
        #[arg(long)]
        without_lts: bool,
        /// The bucket, where the server is told of it by a flag
        #[arg(long, value_name = "URL")]
        lts: Option<String>,
        /// Address of the bucket's server, likewise
        #[arg(long, value_name = "URL")]
        lts_endpoint: Option<String>,
        /// The settings file of the server
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Inspect { dir } => inspect(dir, args),
        Verb::Repair { dir, accept_loss, without_lts, lts, lts_endpoint, config } => {
            let of_server =
                SettingsArgs::of_bucket(Some(dir.clone()), lts.clone(), lts_endpoint.clone());
            let settings = of_server.resolve(config.clone())?.settings;
            repair(dir, *accept_loss, *without_lts, &settings, args)
        }
    }
}

/// Exit code 1 says that acknowledged data is damaged.
fn inspect(dir: &Path, args: &Args) -> Result<()> {
    let disk = open_disk(&log_dir(dir)?)?;
    let mut found = wal::inspect(&*disk, &SavedStates::new())?;
    if !found.losses.is_empty() {
        match server::saved_states(dir, groups(&found)) {
            Ok(saved) => found = wal::inspect(&*disk, &saved)?,
            Err(error) => {
                note(format_args!("what is lost is told without the saved state: {error}"))
            }
        }
    }
    InspectionRow::new(&found).print(args.output.output)?;
    if found.damage.is_empty() {
        return Ok(());
    }
    Err(Failure::general(format!(
        "acknowledged data is damaged; restore the files from a copy, or give up what is lost \
         with `braid wal repair {} --accept-loss`",
        dir.display()
    )))
}

fn repair(
    dir: &Path,
    accept_loss: bool,
    without_lts: bool,
    settings: &Settings,
    args: &Args,
) -> Result<()> {
    let wal_dir = log_dir(dir)?;
    // Its lock says that no server runs on it.
    let data = DataDir::open(dir, true, &mut Rng::from_entropy())?;
    let disk = open_disk(&wal_dir)?;
    let log_settings = LogSettings {
        budget: settings.log.budget,
        file_size: settings.log.file_size,
        allow_volatile: true,
        store_id: Some(data.identity().store.0),
        ..LogSettings::default()
    };
    let show = |found: &Inspection| {
        for loss in &found.losses {
            note(format_args!("{}", rows::loss_text(loss)));
        }
        accept_loss
    };
    let found = wal::inspect(&*disk, &SavedStates::new())?;
    if found.losses.is_empty() {
        return output::print_done(
            args.output.output,
            "nothing is lost, nothing to repair",
            &[(); 0],
        );
    }
    let clock = SystemClock::shared();
    let mut saved = server::saved_states(dir, groups(&found))?;
    if !without_lts {
        let damaged = found.losses.iter().map(|loss| loss.group);
        server::archived_ends(settings, data.identity(), damaged, &mut saved)
            .map_err(no_archive)?;
    }
    let lost = wal::repair(disk, log_settings, clock, Rng::from_entropy(), &saved, show)?;
    if !accept_loss {
        return Err(Failure::general(
            "nothing was changed; --accept-loss gives up what stands above, for good",
        ));
    }
    let rows: Vec<_> = lost.iter().map(rows::LossRow::new).collect();
    let given_up = lost.iter().filter(|loss| loss.behind != wal::Behind::Archived).count();
    let done = match given_up {
        0 => {
            "repaired, and nothing is lost: start the server with its long-term storage, which has \
              what the log lacks"
                .to_owned()
        }
        given_up => format!(
            "repaired, {} given up; start the server, then compare with what the writers have",
            output::counted(given_up as u64, "range")
        ),
    };
    output::print_done(args.output.output, &done, &rows)
}

fn no_archive(error: server::ServerError) -> Failure {
    Failure::general(format!(
        "long-term storage cannot be asked what it has of the damaged groups: {error}; nothing was \
         changed: run this again when it answers, or with --without-lts, which counts what is only \
         there as lost"
    ))
}

fn groups(found: &Inspection) -> impl Iterator<Item = GroupId> {
    found.groups.iter().map(|state| state.group)
}

/// The log's folder inside a data folder, or the folder itself where it is the log's.
fn log_dir(dir: &Path) -> Result<PathBuf> {
    let is_dir = |path: &Path| path.metadata().map(|metadata| metadata.is_dir());
    let inside = dir.join("wal");
    if is_dir(&inside).unwrap_or(false) {
        return Ok(inside);
    }
    match is_dir(dir) {
        Ok(true) => Ok(dir.to_owned()),
        Ok(false) => Err(Failure::usage(format!("`{}` is not a folder", dir.display()))),
        Err(error) => {
            let exit = match error.kind() {
                std::io::ErrorKind::PermissionDenied => Exit::Denied,
                _ => Exit::NotFound,
            };
            Err(Failure::new(exit, format!("open folder `{}`: {error}", dir.display())))
        }
    }
}

fn open_disk(dir: &Path) -> Result<Arc<RealDisk>> {
    // Only reading: where the folder lies does not matter.
    let disk = RealDisk::open(dir, true);
    Ok(Arc::new(disk.map_err(|error| {
        Failure::general(format!("open log folder `{}`: {error}", dir.display()))
    })?))
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            message += &format!(": {source}");
        }
        Failure::general(message)
    }
}
