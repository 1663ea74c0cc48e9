//! Where a server's settings come from: defaults, a file, the environment, flags.

use std::io::ErrorKind;
use std::path::PathBuf;

use server::{Resolved, SettingsError, Sources, resolve};

use crate::failure::{Exit, Failure, Result};

/// Flags that stand for settings; they go over the file and the environment.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct SettingsArgs {
    /// The data folder; made where it does not exist
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Long-term storage: file:///DIR, s3://BUCKET/PREFIX, gs://…, az://…; `none`: the log is all
    /// there is [default: lts in the data folder]
    #[arg(long, value_name = "URL")]
    lts: Option<String>,

    /// Address of the server of long-term storage, for stores other than the provider's own
    #[arg(long, value_name = "URL")]
    lts_endpoint: Option<String>,

    /// Where to listen for gRPC and HTTP; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,

    /// Listen beyond loopback although there is no encryption and no authentication yet
    #[arg(long)]
    insecure: bool,

    /// Use a data folder and long-term storage on a file system that does not keep data across a power cut
    #[arg(long)]
    allow_volatile: bool,
}

impl SettingsArgs {
    /// What a recovery takes of them.
    pub(crate) fn of_recovery(
        data: PathBuf,
        lts: String,
        lts_endpoint: Option<String>,
        allow_volatile: bool,
    ) -> Self {
        let (data, lts) = (Some(data), Some(lts));
        Self { data, lts, lts_endpoint, allow_volatile, ..Self::default() }
    }

    /// Those that say where long-term storage is.
    pub(crate) fn of_bucket(
        data: Option<PathBuf>,
        lts: Option<String>,
        lts_endpoint: Option<String>,
    ) -> Self {
        Self { data, lts, lts_endpoint, ..Self::default() }
    }

    /// All layers, with the file in `file`.
    pub(crate) fn resolve(&self, file: Option<PathBuf>) -> Result<Resolved> {
        let mut flags = Vec::new();
        let mut set = |key: &str, value: Option<String>, flag| {
            flags.extend(value.map(|value| (key.to_owned(), value, flag)));
        };
        let yes = |given: bool| given.then(|| "true".to_owned());
        set("data.dir", self.data.as_ref().map(|dir| dir.display().to_string()), "--data");
        set("lts.url", self.lts.clone(), "--lts");
        set("lts.endpoint", self.lts_endpoint.clone(), "--lts-endpoint");
        set("server.listen", self.listen.clone(), "--listen");
        set("server.insecure", yes(self.insecure), "--insecure");
        set("data.allow_volatile", yes(self.allow_volatile), "--allow-volatile");
        set("lts.allow_volatile", yes(self.allow_volatile), "--allow-volatile");
        resolve(&Sources { file, environment: environment()?, flags }).map_err(Failure::from)
    }
}

/// The environment as text. A name that is none cannot be a setting's; a setting's value must be.
fn environment() -> Result<Vec<(String, String)>> {
    let texts = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        match value.into_string() {
            Ok(value) => Some(Ok((name, value))),
            Err(_) if name.starts_with(server::ENVIRONMENT_PREFIX) => {
                let message = format!("environment variable `{name}` is not UTF-8 text");
                Some(Err(Failure::usage(message)))
            }
            Err(_) => None,
        }
    });
    texts.collect()
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        match &error {
            SettingsError::Read { source, .. } if source.kind() == ErrorKind::NotFound => {
                Failure::new(Exit::NotFound, error.to_string())
            }
            _ => Failure::usage(error.to_string()),
        }
    }
}
