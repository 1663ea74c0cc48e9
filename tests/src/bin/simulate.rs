//! Runs many seeds of the protocol simulation, or replays one: `docs/testing.md` says how.

use std::fs::File;
use std::io::BufWriter;
use std::process::ExitCode;

use tests::history::write_lines;
use tests::sim::{Coverage, Options, Report, run};

struct Arguments {
    from: u64,
    seeds: u64,
    print: bool,
    history: Option<String>,
}

const USAGE: &str = "usage: simulate [--from SEED] [--seeds COUNT] [--print] [--history FILE]";

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments { from: 0, seeds: 100, print: false, history: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value; {USAGE}"));
        let number = |text: String| text.parse().map_err(|_| format!("`{text}` is not a number"));
        match word.as_str() {
            "--from" => parsed.from = number(value()?)?,
            "--seeds" => parsed.seeds = number(value()?)?,
            "--print" => parsed.print = true,
            "--history" => parsed.history = Some(value()?),
            _ => return Err(format!("`{word}` is not an argument; {USAGE}")),
        }
    }
    Ok(parsed)
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]
fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let mut total = Coverage::default();
    let mut failed = 0;
    for seed in arguments.from..arguments.from + arguments.seeds {
        let report = run(&Options { seed, print: arguments.print });
        total.add(&report.coverage);
        if arguments.seeds == 1 || !report.is_good() {
            println!("{}", report.line());
            println!("  {:?}", report.summary);
        }
        if !report.is_good() {
            failed += 1;
            tell(&report);
        }
        if let Some(path) = &arguments.history
            && let Err(error) = File::create(path)
                .map_err(anyhow::Error::from)
                .and_then(|file| write_lines(&report.history, BufWriter::new(file)))
        {
            eprintln!("write history to `{path}`: {error}");
            return ExitCode::FAILURE;
        }
    }
    println!("{} seeds, {failed} failed; {total:?}", arguments.seeds);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "a command's output")]
fn tell(report: &Report) {
    for problem in &report.problems {
        println!("  problem: {problem}");
    }
    for violation in report.violations.iter().take(10) {
        println!("  {violation}");
    }
}
