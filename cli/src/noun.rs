//! What the nouns have in common: a verb and the options that all verbs take, and what creating
//! something comes to.

use std::fmt::Display;

use crate::connect::ConnectArgs;
use crate::failure::{Exit, Failure, Result};
use crate::output::OutputArgs;

/// A verb of a noun that a server knows.
#[derive(Debug, clap::Args)]
pub(crate) struct Noun<V: clap::Subcommand> {
    #[command(subcommand)]
    pub(crate) verb: V,

    #[command(flatten)]
    pub(crate) connect: ConnectArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// The word for what came of creating something that may have existed; a conflict, unless that is
/// accepted.
pub(crate) fn creation(
    created: bool,
    if_not_exists: bool,
    noun: &str,
    name: &impl Display,
) -> Result<&'static str> {
    match (created, if_not_exists) {
        (true, _) => Ok("created"),
        (false, true) => Ok("found"),
        (false, false) => {
            let message = format!("{noun} `{name}` exists already; --if-not-exists accepts it");
            Err(Failure::new(Exit::Conflict, message))
        }
    }
}
