//! The tour of the README, exactly as it is written there.

use std::process::Command;

use crate::harness::{Running, Server, binary};

/// A command and the lines that stand below it.
struct Step {
    command: String,
    expected: String,
}

/// Every `$ …` line of the ```console blocks, with what follows it.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
            continue;
        }
        if !inside {
            continue;
        }
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => {
                steps.push(Step { command: command.to_owned(), expected: String::new() });
            }
            (None, Some(step)) => step.expected += &format!("{line}\n"),
            (None, None) => panic!("output before the first command: {line}"),
        }
    }
    steps
}

#[test]
fn the_tour_of_the_readme_works_exactly_as_written() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let steps = steps(&std::fs::read_to_string(readme).unwrap());
    assert!(steps.len() >= 10, "only {} commands found", steps.len());
    let server = Server::start();
    let folder = std::path::Path::new(binary()).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    for step in steps {
        let mut shell = Command::new("bash");
        shell.args(["-o", "pipefail", "-c", &step.command]);
        shell.current_dir(server.dir()).env("PATH", &path).env_remove("BRAID_LOG");
        shell.env("BRAID_ENDPOINT", server.address.to_string());
        shell.env("BRAID__DATA__DIR", server.data());
        let finished = Running::spawn(&mut shell).finish();
        assert_eq!(finished.code, Some(0), "{}: {finished:?}", step.command);
        if !step.expected.is_empty() {
            assert_eq!(finished.stdout, step.expected, "{}", step.command);
        }
    }
}
