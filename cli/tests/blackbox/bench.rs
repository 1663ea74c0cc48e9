//! Measurements verify what they measure, and save what they print.

use crate::harness::{Braid, Server, temp_dir};

#[test]
fn each_measurement_reports_and_verifies() {
    let server = Server::start();
    let short = ["--duration", "500ms", "--warmup", "100ms", "-o", "json"];
    let bench = |args: &str| {
        let line = format!("bench {args}");
        server.braid(line.split(' ').chain(short)).run().json()
    };
    let append = bench("append --rate 1000 --writers 3 --segments 2");
    assert!(append["verified_events"].as_u64() > Some(300), "{append}");
    assert!(append["latency_millis"]["p50"].as_f64() > Some(0.0), "{append}");
    assert!(append["server_cpu_seconds"].as_f64() >= Some(0.0), "{append}");
    let append = bench("append --rate 500 --pacing spin");
    assert!(append["verified_events"].as_u64() > Some(200), "{append}");
    let append = bench("append --event-size 1KiB");
    assert!(append["verified_events"].as_u64() > Some(0), "{append}");
    let read = bench("read --size 4MiB --readers 2 --segments 3");
    assert!(read["verified_events"].as_u64() > Some(0), "{read}");
    let mixed = bench("mixed --rate 1000");
    assert!(mixed["verified_events"].as_u64() > Some(300), "{mixed}");
    let line = "bench wide --segments 1500 --streams 5 --idle 200ms -o json";
    let wide = server.line(line).run().json();
    let phases: Vec<_> = wide["phases"].as_array().unwrap().iter().collect();
    assert_eq!(phases.len(), 6, "{wide}");
    assert!(phases.iter().all(|phase| phase["seconds"].as_f64() > Some(0.0)), "{wide}");
    assert_eq!(server.line("stream list bench").run().ok().lines().count(), 1, "none is left");
}

#[test]
fn a_measurement_with_its_own_server_leaves_nothing_behind() {
    let dir = temp_dir();
    let file = dir.path().join("result.json");
    let (data, file) = (dir.path().to_str().unwrap(), file.to_str().unwrap());
    let args = [
        "bench",
        "append",
        "--spawn",
        "--data",
        data,
        "--rate",
        "200",
        "--duration",
        "300ms",
        "--warmup",
        "0s",
        "-o",
        file,
    ];
    let table = Braid::new(args).run().ok();
    assert!(table.contains("events/s") && table.contains("p99.9"), "{table}");
    let saved: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(saved["bench"], "append");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the result is left");
}

#[test]
fn a_measurement_may_tier_and_says_where_to_and_how_much_memory_it_took() {
    let dir = temp_dir();
    let data = dir.path().to_str().unwrap();
    let line = "bench append --spawn --lts data --duration 500ms --warmup 0s -o json --data";
    let report = Braid::new(line.split(' ').chain([data])).run().json();
    assert!(report["verified_events"].as_u64() > Some(0), "{report}");
    assert!(report["server_tiers_to"].as_str().unwrap().starts_with("file:///"), "{report}");
    assert!(report["server_peak_resident_bytes"].as_u64() > Some(1 << 20), "{report}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn catching_up_from_objects_is_measured_against_a_plain_reader_of_them() {
    let dir = temp_dir();
    let data = dir.path().to_str().unwrap();
    let line = "bench catch-up --size 8MiB --segments 2 --turns 1 -o json --data";
    let report = Braid::new(line.split(' ').chain([data])).run().json();
    assert_eq!(report["verified_events"].as_u64(), Some(8 << 10), "{report}");
    let turn = &report["turns"][0];
    assert!(turn["plain_megabytes_per_second"].as_f64() > Some(0.0), "{report}");
    assert!(turn["ratio"].as_f64() > Some(0.0), "{report}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn the_log_is_measured_against_a_raw_writer() {
    let dir = temp_dir();
    let data = dir.path().to_str().unwrap();
    let args = [
        "bench",
        "wal",
        "--data",
        data,
        "--block-size",
        "4KiB",
        "--rate",
        "200",
        "--duration",
        "200ms",
        "--turns",
        "2",
        "-o",
        "json",
    ];
    let report = Braid::new(args).run().json();
    let comparison = &report["comparisons"][0];
    assert!(comparison["ratio"].as_f64() > Some(0.0), "{report}");
    assert!(comparison["raw"]["writes"].as_u64() > Some(10), "{report}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn impossible_measurements_are_usage_errors() {
    for args in
        ["append --event-size 8", "append --memory 1MiB", "read --rate 5", "wal --block-size 5000"]
    {
        Braid::new(format!("bench {args}").split(' ')).run().fails(2, &["--"]);
    }
}
