//! Forms of input and output: what is taken as an event, and how results look to programs.

use crate::harness::{Braid, Finished, Server};

/// Every verb in the order in which a scope named after the form lives with them.
const LIFE: [&str; 19] = [
    "scope create FORM",
    "scope create FORM --if-not-exists",
    "stream create FORM/a --segments 1",
    "append FORM/a",
    "append FORM/a --writer w",
    "scope list",
    "stream list",
    "stream list FORM",
    "stream describe FORM/a",
    "stream cut FORM/a",
    "segment list FORM/a",
    "segment describe FORM/a/0.#0",
    "config show",
    "config show --origin",
    "config default",
    "stream truncate FORM/a --at tail",
    "stream seal FORM/a",
    "stream delete FORM/a",
    "scope delete FORM",
];

/// A result looks as it was asked for.
fn check_form(form: &str, what: &str, result: Finished) {
    match form {
        "json" => _ = result.json(),
        "yaml" => {
            let text = result.ok();
            assert!(text == "[]\n" || text.contains(": "), "{what}: {text}");
            assert!(!text.starts_with('{'), "{what}: {text}");
        }
        _ => {
            let text = result.ok();
            assert!(!text.is_empty() && !text.starts_with('{'), "{what}: {text}");
        }
    }
}

#[test]
fn every_verb_answers_as_a_table_as_json_and_as_yaml() {
    let mut server = Server::start();
    for form in ["table", "json", "yaml"] {
        for line in LIFE {
            let line = format!("{line} -o FORM").replace("FORM", form);
            check_form(form, &line, server.line(&line).input("x\n").run());
        }
    }
    server.stop(rustix::process::Signal::TERM);
    let data = server.data();
    for form in ["table", "json", "yaml"] {
        for verb in [["inspect"].as_slice(), &["repair", "--accept-loss"]] {
            let data = data.to_str().unwrap();
            let args = ["wal", "-o", form].into_iter().chain(verb.iter().copied()).chain([data]);
            check_form(form, verb[0], Braid::new(args).run());
        }
    }
    Braid::new(["scope", "list", "-o", "xml"]).run().fails(2, &["table", "json", "yaml"]);
}

#[test]
fn lines_are_events_with_their_exact_bytes() {
    let server = Server::start();
    let read = |stream: &str| {
        let line = format!("read {stream} --from head --until tail");
        server.line(&line).run().stdout_bytes
    };
    let cases: [(&str, &[u8], &str, &[u8]); 6] = [
        ("empty", b"", "", b""),
        ("blank", b"\n\n", "", b"\n\n"),
        ("open", b"a\nb", "", b"a\nb\n"),
        ("crlf", b"a\r\nb\r\n", "", b"a\r\nb\r\n"),
        ("crlf-cut", b"a\r\nb\r\n", " --delimiter \\r\\n", b"a\nb\n"),
        ("bytes", b"\xff\x00\xfe\n", "", b"\xff\x00\xfe\n"),
    ];
    for (name, input, options, expected) in cases {
        let append = server.line(&format!("append demo/{name} --key k{options}")).input(input);
        append.run().ok();
        assert_eq!(read(&format!("demo/{name}")), expected, "{name}");
    }
}

#[test]
fn a_json_array_is_its_elements_and_anything_else_is_lines() {
    let server = Server::start();
    let stored = |name: &str, input: &str| {
        server.line(&format!("append demo/{name} --key k")).input(input).run().ok();
        server.read_all(&format!("demo/{name}"))
    };
    let array = " [1, {\"a\": [2, 3]},\n \"four\" , null]\n";
    assert_eq!(stored("array", array), ["1", "{\"a\": [2, 3]}", "\"four\"", "null"]);
    assert!(stored("none", "[]").is_empty());
    assert_eq!(stored("arrays", "[1,2]\n[3,4]\n"), ["[1,2]", "[3,4]"]);
    let cut_off = server.line("append demo/cut --key k").input("[1, 2").run();
    cut_off.fails(1, &["ends inside the JSON array"]);
    assert_eq!(server.read_all("demo/cut"), ["1"]);
}

#[test]
fn times_are_understood_in_every_form_that_the_help_names() {
    let server = Server::start();
    server.line("append demo/a").input("x\n").run().ok();
    for past in ["2001-01-01T00:00:00Z", "2001-01-01T02:00:00+02:00", "978307200", "978307200000"] {
        let read = ["read", "demo/a", "--until", "tail", "--from", past];
        assert_eq!(server.braid(read).run().ok(), "x\n", "{past}");
        let until = ["read", "demo/a", "--from", "head", "--until", past];
        assert_eq!(server.braid(until).run().ok(), "", "{past}");
    }
    for bad in ["-1", "5m", "17900000000000000000", "1969-12-31T00:00:00Z"] {
        let read = ["read", "demo/a", "--until", "tail", "--from", bad];
        server.braid(read).run().fails(2, &[bad]);
    }
    let fields = [
        ("epoch-s", "5", "1970-01-01T00:00:05Z"),
        ("epoch-ms", "5", "1970-01-01T00:00:00.005Z"),
        ("epoch-us", "5", "1970-01-01T00:00:00.000005Z"),
        ("rfc3339", "\"2001-01-01T00:00:00Z\"", "2001-01-01T00:00:00Z"),
    ];
    for (format, value, shown) in fields {
        let append = format!("append demo/{format} --key k --time-field t --time-format {format}");
        server.line(&append).input(format!("{{\"t\":{value}}}\n")).run().ok();
        let read = format!("read demo/{format} --from head --until tail -o json");
        let event = server.line(&read).run().json();
        assert_eq!(event["time"], shown, "{format}");
    }
}
