//! `braid config`: a server's settings, and where each comes from.

use std::path::PathBuf;

use serde::Serialize;
use server::{Entry, Origin};

use crate::failure::Result;
use crate::output::{self, Format, OutputArgs, Row};
use crate::settings::SettingsArgs;

/// Show and check the settings of a server
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  braid config default > braid.toml
  braid config show --config braid.toml --origin
  BRAID__LOG__BUDGET=4GiB braid config show -o json
  braid config check braid.toml

Settings come from defaults, the file, the environment (BRAID__SECTION__KEY) and flags, each over
the one before it.")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print the settings that a server would use here
    Show {
        /// A settings file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Say where each value comes from
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        settings: Box<SettingsArgs>,
    },
    /// Print a settings file with every default
    Default,
    /// Read a settings file without starting anything
    Check { file: PathBuf },
}

/// A setting.
#[derive(Debug, Serialize)]
struct SettingRow {
    setting: String,
    /// As TOML writes it.
    value: String,
    origin: String,
}

impl From<&Entry> for SettingRow {
    fn from(entry: &Entry) -> Self {
        Self {
            setting: entry.key.clone(),
            value: entry.value.clone(),
            origin: entry.origin.to_string(),
        }
    }
}

impl Row for SettingRow {
    const COLUMNS: &'static [&'static str] = &["setting", "value", "origin"];

    fn cells(&self) -> Vec<String> {
        vec![self.setting.clone(), self.value.clone(), self.origin.clone()]
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let format = args.output.output;
    match &args.verb {
        Verb::Show { config, origin, settings } => {
            let resolved = settings.resolve(config.clone())?;
            if *origin {
                let rows: Vec<_> = resolved.entries().iter().map(SettingRow::from).collect();
                return output::print_list(format, &rows);
            }
            print_settings(format, &resolved)
        }
        Verb::Default => {
            let resolved = server::resolve(&server::Sources::default())?;
            print_settings(format, &resolved)
        }
        Verb::Check { file } => {
            let sources =
                server::Sources { file: Some(file.clone()), ..server::Sources::default() };
            let resolved = server::resolve(&sources)?;
            let set = resolved.entries().iter().filter(|entry| entry.origin != Origin::Default);
            let rows: Vec<_> = set.map(SettingRow::from).collect();
            let done = format!(
                "`{}` is a valid settings file; it sets {}",
                file.display(),
                output::counted(rows.len() as u64, "value")
            );
            output::print_done(format, &done, &rows)
        }
    }
}

/// As a settings file, or in the other forms.
fn print_settings(format: Format, resolved: &server::Resolved) -> Result<()> {
    output::print_done(format, resolved.to_toml().trim_end(), &resolved.settings)
}
