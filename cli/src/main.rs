//! `braid`, the one binary: runs a server, manages scopes and streams, moves events in and out,
//! and measures.
//!
//! Here the command line is parsed, a runtime is made, and what went wrong becomes an exit code.
//! Each noun has a file of its own. Results go to standard output, remarks and progress to
//! standard error; nothing panics on a closed pipe.

mod allocator;
mod append;
mod args;
mod bench;
mod completion;
mod config;
mod connect;
mod failure;
mod lts;
mod moment;
mod noun;
mod output;
mod place;
mod read;
mod recover;
mod scope;
mod segment;
mod serve;
mod settings;
mod signals;
mod status;
mod stream;
mod wal;
mod writer;

use std::future::Future;
use std::process::ExitCode;

use clap::Parser as _;
use server::TracingFormat;

use crate::args::{Cli, Command};
use crate::failure::Result;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: &Cli) -> Result<()> {
    let log = cli.log.as_deref();
    // A server's settings have a say in its log; everything else is quiet unless told.
    match &cli.command {
        Command::Dev(args) => return serve::dev(args, log),
        Command::Server(args) => return serve::server(args, log),
        _ => serve::start_log(log.unwrap_or("error"), TracingFormat::Text)?,
    }
    match &cli.command {
        Command::Dev(_) | Command::Server(_) => Ok(()),
        Command::Scope(args) => wait(scope::run(args)),
        Command::Stream(args) => wait(stream::run(args)),
        Command::Writer(args) => wait(writer::run(args)),
        Command::Append(args) => wait(append::run(args)),
        Command::Read(args) => wait(read::run(args)),
        Command::Status(args) => wait(status::run(args)),
        Command::Segment(args) => wait(segment::run(args)),
        Command::Wal(args) => wal::run(args),
        Command::Recover(args) => recover::run(args),
        Command::Lts(args) => lts::run(args),
        Command::Config(args) => config::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Completion(args) => completion::run(args),
    }
}

/// Runs a client command. The command itself has this thread and the client's tasks another, so
/// that parsing and sending go on side by side.
fn wait(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let result = runtime.block_on(work);
    // A thread may still wait for a terminal: it ends with the process.
    runtime.shutdown_background();
    result
}
