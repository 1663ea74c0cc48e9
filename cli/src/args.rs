//! The command line. What a verb takes is described next to what it does.

use clap::{Parser, Subcommand};

use crate::{
    append, bench, completion, config, lts, read, recover, scope, segment, serve, status, stream,
    wal, writer,
};

/// Braid, an elastic event stream store
#[derive(Debug, Parser)]
#[command(name = "braid", version, arg_required_else_help = true)]
#[command(after_help = "\
Five minutes with braid:
  braid dev                                         # a server; leave it running
  echo 'hello, river' | braid append demo/hello
  braid read demo/hello --from head --until tail
  braid stream describe demo/hello

Client commands find the server by --endpoint, BRAID_ENDPOINT, or at 127.0.0.1:7070.
Results go to standard output; -o table|json|yaml chooses their form.

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 denied, 6 unavailable.")]
pub(crate) struct Cli {
    /// What the program says about itself on standard error: a level, or target=level pairs
    #[arg(long, value_name = "FILTER", env = "BRAID_LOG", global = true)]
    #[arg(hide_short_help = true)]
    pub(crate) log: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Dev(serve::DevArgs),
    Server(serve::ServerArgs),
    Append(append::Args),
    Read(read::Args),
    Scope(scope::Args),
    Stream(stream::Args),
    Segment(segment::Args),
    Writer(writer::Args),
    Status(status::Args),
    Wal(wal::Args),
    Recover(recover::Args),
    Lts(lts::Args),
    Config(config::Args),
    Bench(bench::Args),
    Completion(completion::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;
    use rstest::rstest;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[rstest]
    #[case("braid append demo/hello --key k --rate 100 --writer w")]
    #[case("braid append demo/hello --file - --key-field a --time-field b --time-format %Y")]
    #[case("braid append demo/hello --endpoint somewhere:1 -o json")]
    #[case("braid read demo/hello --from -5m --until tail --limit 3 --format json")]
    #[case("braid read demo/hello --from 1-7:0.#0=128 -o yaml")]
    #[case("braid scope create demo --if-not-exists -o yaml")]
    #[case("braid scope --endpoint somewhere:1 list")]
    #[case("braid stream create demo/hello --segments 4 --create-scope")]
    #[case("braid stream truncate demo/hello --at -1h")]
    #[case("braid stream cut demo/hello")]
    #[case("braid writer list demo/hello -o json")]
    #[case("braid writer describe demo/hello loader --endpoint somewhere:1")]
    #[case("braid writer delete demo/hello loader")]
    #[case("braid segment read demo/hello/0.#0 --offset 12 --events")]
    #[case("braid bench append --rate 1000 --writers 2 --segments 4 -o out.json")]
    #[case("braid bench append --spawn --data /tmp --event-size 1KiB --rate max -o json")]
    #[case("braid bench read --size 64MiB --readers 2")]
    #[case("braid bench mixed --pacing spin --duration 1s --warmup 0s")]
    #[case("braid bench append --spawn --lts data")]
    #[case("braid bench catch-up --size 1GiB --segments 4 --turns 2")]
    #[case("braid bench wal --block-size 4KiB --block-size 256KiB --rate 1000 --turns 2")]
    #[case("braid dev --data d --listen 127.0.0.1:0 --allow-volatile")]
    #[case("braid server --config braid.toml --log info")]
    #[case("braid config show --origin --data d -o json")]
    #[case("braid status -o json --endpoint somewhere:1")]
    #[case("braid dev --lts s3://bucket/p --lts-endpoint http://minio:9000")]
    #[case("braid recover --from-lts file:///srv/lts --data d -o json")]
    #[case("braid recover --from-lts s3://bucket/p --data d --accept-loss")]
    #[case("braid config default")]
    #[case("braid config check braid.toml")]
    #[case("braid wal inspect d")]
    #[case("braid wal repair d --accept-loss")]
    #[case("braid lts ls --data d --objects 0001/ -o json")]
    #[case("braid lts check --lts s3://bucket/p --lts-endpoint http://minio:9000 --grace 2h")]
    #[case("braid lts check --repair --delete-orphans")]
    #[case("braid lts compact --endpoint somewhere:1")]
    #[case("braid lts adopt --lts file:///bucket --yes")]
    #[case("braid completion bash")]
    fn a_command_is_understood(#[case] line: &str) {
        Cli::try_parse_from(line.split(' ')).unwrap();
    }

    #[rstest]
    #[case("braid append demo")]
    #[case("braid append demo/hello/x")]
    #[case("braid append _demo/hello")]
    #[case("braid append demo/hello --key k --key-field f")]
    #[case("braid append demo/hello --time-format rfc3339")]
    #[case("braid append demo/hello --rate 0")]
    #[case("braid append demo/hello --writer a/b")]
    #[case("braid append demo/hello --timeout soon")]
    #[case("braid read demo/hello --from yesterday")]
    #[case("braid read demo/hello --limit -1")]
    #[case("braid read demo/hello --format json -o yaml")]
    #[case("braid scope create a/b")]
    #[case("braid stream create demo/hello --segments 0")]
    #[case("braid segment describe demo/hello/0")]
    #[case("braid writer list demo")]
    #[case("braid writer delete demo/hello")]
    #[case("braid writer delete demo/hello a/b")]
    #[case("braid bench append --rate 0")]
    #[case("braid bench append --data /tmp")]
    #[case("braid bench append --writers 0")]
    #[case("braid server")]
    #[case("braid wal inspect")]
    #[case("braid lts")]
    #[case("braid lts check --grace soon")]
    #[case("braid completion dos")]
    #[case("braid unknown")]
    fn a_bad_command_is_a_usage_error(#[case] line: &str) {
        let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert_ne!(error.kind(), ErrorKind::DisplayHelp);
    }
}
