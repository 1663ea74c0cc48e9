//! `braid lts`: what long-term storage holds, whether it is whole, and who may clean it up.
//!
//! All but `compact` work on the bucket alone, whether a server runs or not.

mod adopt;
mod check;
mod ls;
mod progress;

use std::path::PathBuf;

use server::Bucket;

use crate::connect::ConnectArgs;
use crate::failure::Result;
use crate::output::{self, OutputArgs};
use crate::settings::SettingsArgs;

/// Look at long-term storage, check it, clean it up
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  braid lts ls --data braid-data
  braid lts ls --lts s3://bucket/prefix --objects 0001/0000000000000002/
  braid lts check --lts s3://bucket/prefix --lts-endpoint http://minio:9000
  braid lts check --data braid-data --repair
  braid lts compact

Which bucket: --lts, or the one of the data folder in --data; settings files and environment variables
count as they do for the server, and credentials come from the same places.")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show what the bucket holds, by group or object by object
    Ls(ls::Args),
    /// Check every reference, checksum and leftover; changes nothing unless told to
    Check(check::Args),
    /// Let a running server look at once for compactions and for objects that can be deleted
    Compact(ConnectArgs),
    /// Let a recovered cluster delete what the cluster before it left
    Adopt(adopt::Args),
}

/// Which bucket.
#[derive(Debug, clap::Args)]
struct BucketArgs {
    /// The bucket: file:///DIR, s3://BUCKET/PREFIX, gs://…, az://…
    #[arg(long, value_name = "URL")]
    lts: Option<String>,

    /// Address of the bucket's server, for stores other than the provider's own
    #[arg(long, value_name = "URL")]
    lts_endpoint: Option<String>,

    /// A data folder, for the bucket in it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// The settings file of the server
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl BucketArgs {
    fn open(&self) -> Result<Bucket> {
        let (data, lts) = (self.data.clone(), self.lts.clone());
        let args = SettingsArgs::of_bucket(data, lts, self.lts_endpoint.clone());
        Ok(Bucket::open(&args.resolve(self.config.clone())?.settings)?)
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let format = args.output.output;
    match &args.verb {
        Verb::Ls(args) => ls::run(args, format),
        Verb::Check(args) => check::run(args, format),
        Verb::Compact(connect) => crate::wait(compact(connect, format)),
        Verb::Adopt(args) => adopt::run(args, format),
    }
}

async fn compact(connect: &ConnectArgs, format: output::Format) -> Result<()> {
    let config = client::ClientConfig::new(&*connect.endpoint);
    let groups = client::look_after_storage(config).await?;
    let done = match groups {
        0 => "the server has no long-term storage to look after".to_owned(),
        groups => format!(
            "{} look for compactions and for what can be deleted; `braid lts ls` shows what is left",
            output::counted(groups.into(), "group")
        ),
    };
    output::print_done(format, &done, &serde_json::json!({ "groups": groups }))
}
