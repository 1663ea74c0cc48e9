//! `braid scope`: namespaces of streams.

use common::ScopeName;
use futures::TryStreamExt as _;
use serde::Serialize;

use crate::connect::ConnectArgs;
use crate::failure::{Exit, Failure, Result};
use crate::output::{self, OutputArgs, Row};

/// Manage scopes, the namespaces of streams
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  braid scope create demo
  braid scope list -o json
  braid scope delete demo")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    connect: ConnectArgs,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Create a scope
    Create {
        scope: ScopeName,
        /// Succeed where it exists already
        #[arg(long)]
        if_not_exists: bool,
    },
    /// List all scopes
    List,
    /// Delete a scope, which must have no streams
    Delete { scope: ScopeName },
}

#[derive(Debug, Serialize)]
struct ScopeRow {
    scope: String,
}

impl Row for ScopeRow {
    const COLUMNS: &'static [&'static str] = &["scope"];

    fn cells(&self) -> Vec<String> {
        vec![self.scope.clone()]
    }
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let format = args.output.output;
    let streams = args.connect.open().await?.streams();
    match &args.verb {
        Verb::Create { scope, if_not_exists } => {
            let created = streams.create_scope(scope).await?;
            if !created && !if_not_exists {
                let message = format!("scope `{scope}` exists already; --if-not-exists accepts it");
                return Err(Failure::new(Exit::Conflict, message));
            }
            let done = if created { "created" } else { "found" };
            let row = ScopeRow { scope: scope.to_string() };
            output::print_done(format, &format!("{done} scope {scope}"), &row)
        }
        Verb::List => {
            let scopes: Vec<_> = streams.list_scopes().try_collect().await?;
            let rows: Vec<_> =
                scopes.iter().map(|scope| ScopeRow { scope: scope.to_string() }).collect();
            output::print_list(format, &rows)
        }
        Verb::Delete { scope } => {
            streams.delete_scope(scope).await?;
            let row = ScopeRow { scope: scope.to_string() };
            output::print_done(format, &format!("deleted scope {scope}"), &row)
        }
    }
}
