use std::path::Path;

use rstest::rstest;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("braid.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn origin_of(resolved: &Resolved, key: &str) -> Origin {
    resolved.entries().iter().find(|entry| entry.key == key).unwrap().origin.clone()
}

#[test]
fn without_sources_everything_is_a_default() {
    let resolved = resolve(&Sources::default()).unwrap();
    assert_eq!(resolved.settings, Settings::default());
    assert!(resolved.entries().iter().all(|entry| entry.origin == Origin::Default));
}

#[test]
fn each_layer_goes_over_the_one_before_it() {
    let (_dir, path) = file(
        "[log]\nbudget = \"4GiB\"\nfile_size = \"32MiB\"\n[server]\ndrain = \"2s\"\n[containers]\ncount = 2\n",
    );
    let resolved = resolve(&Sources {
        file: Some(path.clone()),
        environment: environment(&[
            ("BRAID__LOG__FILE_SIZE", "16MiB"),
            ("BRAID__SERVER__DRAIN", "3s"),
            ("BRAID_ENDPOINT", "elsewhere"),
            ("PATH", "/bin"),
        ]),
        flags: vec![("server.drain".to_owned(), "4s".to_owned(), "--drain")],
    })
    .unwrap();
    assert_eq!(resolved.settings.log.budget, ByteSize::gib(4));
    assert_eq!(resolved.settings.log.file_size, ByteSize::mib(16));
    assert_eq!(resolved.settings.server.drain, Period::seconds(4));
    assert_eq!(resolved.settings.containers.count, 2);
    assert_eq!(origin_of(&resolved, "log.budget"), Origin::File(path));
    assert_eq!(
        origin_of(&resolved, "log.file_size"),
        Origin::Environment("BRAID__LOG__FILE_SIZE".to_owned())
    );
    assert_eq!(origin_of(&resolved, "server.drain"), Origin::Flag("--drain"));
    assert_eq!(origin_of(&resolved, "cache.tail"), Origin::Default);
}

#[test]
fn what_is_shown_reads_back() {
    let flags = vec![
        ("server.listen".to_owned(), "[::1]:9".to_owned(), "--listen"),
        ("checkpoint.interval".to_owned(), "1m 30s".to_owned(), "--set"),
        ("lts.url".to_owned(), "s3://bucket/prefix".to_owned(), "--lts"),
        ("tiering.age".to_owned(), "1m".to_owned(), "--set"),
        ("memory.limit".to_owned(), "1GiB".to_owned(), "--set"),
    ];
    let resolved = resolve(&Sources { flags, ..Sources::default() }).unwrap();
    let (_dir, path) = file(&resolved.to_toml());
    let again = resolve(&Sources { file: Some(path), ..Sources::default() }).unwrap();
    assert_eq!(resolved.settings, again.settings);
}

#[rstest]
#[case("[log]\nbugdet = \"1GiB\"", &["`log.bugdet`", "did you mean `log.budget`?", "braid.toml"])]
#[case("[serve]\nlisten = \"127.0.0.1:1\"", &["`serve.listen`", "`server.listen`"])]
#[case("verbose = true", &["`verbose`", "braid config show"])]
#[case("[log]\nbudget = \"plenty\"", &["`log.budget`", "`plenty` is not a size", "64MiB"])]
#[case("[log]\nbudget = 7", &["`log.budget`", "string"])]
#[case("[log]\nbudget = \"100MiB\"", &["`log.budget`", "eight files"])]
#[case("[server]\ndrain = \"soon\"", &["`server.drain`", "`soon` is not a duration", "10s"])]
#[case("[server]\nlisten = \"localhost\"", &["`server.listen`"])]
#[case("[server]\nlisten = \"0.0.0.0:7070\"", &["0.0.0.0:7070", "--insecure"])]
#[case("[containers]\ncount = 0", &["`containers.count`", "1 to 1024"])]
#[case("[tracing]\nformat = \"xml\"", &["`tracing.format`", "`xml`"])]
#[case("[lts]\nregoin = \"x\"", &["`lts.regoin`", "did you mean `lts.region`?"])]
#[case("[lts]\nurl = \"/data/lts\"", &["`lts.url`", "`file:///data/lts`", "`none`"])]
#[case("[lts]\nattempts = 0", &["`lts.attempts`", "a number from 1"])]
#[case("[lts]\nattempts = \"x\"", &["`lts.attempts`", "braid.toml"])]
#[case("[lts]\nendpoint = \"http://minio:9000\"", &["`lts.endpoint`", "`--lts s3://BUCKET`"])]
#[case("[data]\ndir = \"/d\"\n[lts]\nurl = \"file:///d/wal/x\"", &["`lts.url`", "apart"])]
#[case("[data]\ndir = \"/d\"\n[lts]\nurl = \"file:///\"", &["`lts.url`", "apart"])]
#[case("[tiering]\nround_bytes = \"2GiB\"", &["`tiering.round_bytes`", "`log.budget`"])]
#[case("[tiering]\nround_bytes = \"1KiB\"", &["`tiering.round_bytes`", "1MiB"])]
#[case(
    "[log]\nbudget = \"16GiB\"\nfile_size = \"16MiB\"\n[tiering]\nround_bytes = \"1MiB\"",
    &["`tiering.round_bytes`", "`log.budget`", "write `2MiB`", "make the files larger"]
)]
#[case(
    "[log]\nbudget = \"64GiB\"\nfile_size = \"16MiB\"\n[tiering]\nobject_bytes = \"2MiB\"",
    &["`tiering.object_bytes`", "`log.file_size`", "write `4MiB`"]
)]
#[case("[tiering]\nage = \"soon\"", &["`tiering.age`", "`soon` is not a duration"])]
#[case("[tiering]\nage = \"0s\"", &["`tiering.age`", "100ms"])]
#[case("[tiering]\nobject_bytes = \"65MiB\"", &["`tiering.object_bytes`", "64MiB"])]
#[case("[tiering]\ncheckpoint_bytes = \"1MiB\"", &["`tiering.checkpoint_bytes`", "16MiB"])]
#[case("[tiering]\ncheckpoint_interval = \"59s\"", &["`tiering.checkpoint_interval`", "1m"])]
#[case("[memory]\nlimit = \"255MiB\"", &["`memory.limit`", "256MiB"])]
#[case("[cache]\nread = \"1MiB\"", &["`cache.read`", "32MiB"])]
#[case("[limits]\nappend_bytes = \"1MiB\"", &["`limits.append_bytes`", "16MiB"])]
#[case("[limits]\nqueries = 0", &["`limits.queries`", "at least one"])]
#[case("[limits]\nsessions_per_connection = 0", &["`limits.sessions_per_connection`", "at least one"])]
#[case(
    "[limits]\nappend_streams_per_connection = 0",
    &["`limits.append_streams_per_connection`", "at least one"]
)]
#[case("[limits]\nrequests_per_connection = 0", &["`limits.requests_per_connection`", "at least one"])]
#[case("[log", &["not TOML"])]
fn a_bad_file_is_refused_with_what_is_wrong(#[case] text: &str, #[case] expected: &[&str]) {
    let (_dir, path) = file(text);
    let message =
        resolve(&Sources { file: Some(path), ..Sources::default() }).unwrap_err().to_string();
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[rstest]
#[case("BRAID__LOG__BUDGE", "1GiB", &["`log.budge`", "BRAID__LOG__BUDGE", "`log.budget`"])]
#[case("BRAID__CONTAINERS__COUNT", "many", &["BRAID__CONTAINERS__COUNT", "not a whole number"])]
#[case("BRAID__DATA__ALLOW_VOLATILE", "yes", &["neither `true` nor `false`"])]
#[case("BRAID__CONTAINERS__COUNT", "70000", &["`containers.count`", "70000"])]
fn a_bad_variable_is_refused_by_its_name(
    #[case] name: &str,
    #[case] text: &str,
    #[case] expected: &[&str],
) {
    let sources = Sources { environment: environment(&[(name, text)]), ..Sources::default() };
    let message = resolve(&sources).unwrap_err().to_string();
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn long_term_storage_is_in_the_data_folder_unless_told_otherwise() {
    let of = |flags: &[(&str, &str)]| {
        let flag = |(key, text): &(&str, &str)| ((*key).to_owned(), (*text).to_owned(), "--set");
        let flags = flags.iter().map(flag).collect();
        resolve(&Sources { flags, ..Sources::default() }).unwrap().settings
    };
    let default = of(&[("data.dir", "/d"), ("data.allow_volatile", "true")]);
    let url = default.lts_url().unwrap();
    assert_eq!(url.to_string(), "file:///d/lts");
    assert!(default.lts_store().allow_volatile, "it is as volatile as the data folder");
    assert_eq!(default.tiering.age_for(&url), Period::seconds(10));
    let relative = of(&[]).lts_url().unwrap().to_string();
    assert!(relative.starts_with("file:///") && relative.ends_with("/braid-data/lts"));
    assert_eq!(of(&[("lts.url", "none")]).lts_url(), None);
    let remote = of(&[("lts.url", "s3://b/p"), ("data.allow_volatile", "true")]);
    let url = remote.lts_url().unwrap();
    assert_eq!(url.to_string(), "s3://b/p");
    assert!(!remote.lts_store().allow_volatile);
    assert_eq!(remote.tiering.age_for(&url), Period::seconds(300));
    let aged = of(&[("lts.url", "s3://b/p"), ("tiering.age", "7s")]);
    assert_eq!(aged.tiering.age_for(&url), Period::seconds(7));
}

#[test]
fn what_may_be_chosen_for_people_is_empty_or_auto() {
    for text in ["", "auto"] {
        let flags = vec![("cache.tail".to_owned(), text.to_owned(), "--set")];
        let resolved = resolve(&Sources { flags, ..Sources::default() }).unwrap();
        assert_eq!(resolved.settings.cache.tail, Auto(None));
    }
}

#[test]
fn a_missing_file_is_named() {
    let path = PathBuf::from("no/such/braid.toml");
    let sources = Sources { file: Some(path), ..Sources::default() };
    assert!(resolve(&sources).unwrap_err().to_string().contains("no/such/braid.toml"));
}

#[test]
fn small_machines_serve_connections_with_one_thread() {
    let mut settings = Settings::default();
    assert_eq!([1, 2, 4, 16].map(|cores| settings.net_threads(cores)), [1, 1, 1, 4]);
    settings.server.net_threads = 3;
    assert_eq!(settings.net_threads(2), 3);
}

#[test]
fn every_setting_is_in_the_operations_manual() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    for entry in resolve(&Sources::default()).unwrap().entries() {
        assert!(manual.contains(&format!("`{}`", entry.key)), "{} is not described", entry.key);
    }
}
