//! `braid lts adopt`: the cluster before a recovery is gone for good.

use serde::Serialize;

use super::BucketArgs;
use crate::failure::{Failure, Result};
use crate::output::{self, Format};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
After `braid recover` the bucket belongs to the recovered cluster, and still holds what the cluster
before it put there. The recovered one deletes nothing of that, so that it could be recovered from
once more, also with other settings. Once nobody will do that, `adopt` lets it delete what it does
not need itself. Nothing is deleted by this command; it cannot be taken back.")]
pub(super) struct Args {
    #[command(flatten)]
    bucket: BucketArgs,

    /// Nobody needs the cluster before the recovery any more
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct Adopted {
    incarnation: u16,
    new: bool,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let bucket = args.bucket.open()?;
    if !args.yes {
        return Err(Failure::usage(
            "nothing was changed; `--yes` lets the recovered cluster delete what earlier ones put \
             and it does not need, after which nobody can recover from before it",
        ));
    }
    let (incarnation, new) = bucket.adopt()?;
    let number = incarnation.0;
    let done = match new {
        true => {
            format!("incarnation {number} may delete what earlier ones left and it does not need")
        }
        false => format!("incarnation {number} was allowed that already"),
    };
    output::print_done(format, &done, &Adopted { incarnation: number, new })
}
