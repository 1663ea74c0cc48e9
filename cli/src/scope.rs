//! `braid scope`: namespaces of streams.

use common::ScopeName;
use futures::TryStreamExt as _;
use serde::Serialize;

use crate::failure::Result;
use crate::noun::{Noun, creation};
use crate::output::{self, Format, Row};

/// Manage scopes, the namespaces of streams
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  braid scope create demo
  braid scope list -o json
  braid scope delete demo")]
pub(crate) struct Args {
    #[command(flatten)]
    noun: Noun<Verb>,
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

impl ScopeRow {
    fn new(scope: &ScopeName) -> Self {
        Self { scope: scope.to_string() }
    }
}

impl Row for ScopeRow {
    const COLUMNS: &'static [&'static str] = &["scope"];

    fn cells(&self) -> Vec<String> {
        vec![self.scope.clone()]
    }
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let Noun { verb, connect, output } = &args.noun;
    let format = output.output;
    let streams = connect.open().await?.streams();
    match verb {
        Verb::Create { scope, if_not_exists } => {
            let created = streams.create_scope(scope).await?;
            done(format, creation(created, *if_not_exists, "scope", scope)?, scope)
        }
        Verb::List => {
            let scopes: Vec<_> = streams.list_scopes().try_collect().await?;
            output::print_list(format, &scopes.iter().map(ScopeRow::new).collect::<Vec<_>>())
        }
        Verb::Delete { scope } => {
            streams.delete_scope(scope).await?;
            done(format, "deleted", scope)
        }
    }
}

fn done(format: Format, verb: &str, scope: &ScopeName) -> Result<()> {
    output::print_done(format, &format!("{verb} scope {scope}"), &ScopeRow::new(scope))
}
