use super::*;
use crate::error::ErrorKind;

fn open(path: &Path) -> Result<DataDir, ServerError> {
    DataDir::open(path, true, &mut Rng::from_seed(1))
}

#[test]
fn a_folder_keeps_its_identity() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/data");
    let first = open(&path).unwrap();
    let identity = first.identity().clone();
    assert!(first.created());
    drop(first);
    let again = DataDir::open(&path, true, &mut Rng::from_seed(2)).unwrap();
    assert!(!again.created());
    assert_eq!(*again.identity(), identity);
    assert_ne!(identity.store, identity.cluster);
}

#[test]
fn a_folder_of_before_long_term_storage_opens_and_what_is_added_stays() {
    let dir = tempfile::tempdir().unwrap();
    let old = open(dir.path()).unwrap();
    let text = std::fs::read_to_string(dir.path().join("STORE")).unwrap();
    assert!(!text.contains("lts"), "as it was written before: {text}");
    drop(old);
    let mut data = open(dir.path()).unwrap();
    data.change_identity(|identity| identity.lts_marker = Some(Uuid(7))).unwrap();
    data.change_identity(|identity| identity.lts_claimed = true).unwrap();
    let identity = data.identity().clone();
    drop(data);
    let data = open(dir.path()).unwrap();
    assert_eq!((data.identity(), identity.lts_claimed), (&identity, true));
    assert_eq!(identity.lts_marker, Some(Uuid(7)));
    assert!(!data.has_log().unwrap());
    std::fs::write(data.wal().join("spare-000000000001"), "").unwrap();
    assert!(!data.has_log().unwrap());
    std::fs::write(data.wal().join("000000000001.wal"), "").unwrap();
    assert!(data.has_log().unwrap());
}

#[test]
fn a_folder_in_use_is_refused_with_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let _held = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&format!("({})", std::process::id())), "{error}");
}

#[test]
fn starts_at_the_same_time_agree_on_the_identity() {
    for round in 0..30 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let start = std::sync::Barrier::new(6);
        let identities: Vec<Identity> = std::thread::scope(|scope| {
            let starts = (0..6).map(|seed| (seed, path.clone(), &start));
            let starts = starts.map(|(seed, path, start)| {
                scope.spawn(move || {
                    let mut rng = Rng::from_seed(round * 6 + seed);
                    start.wait();
                    loop {
                        match DataDir::open(&path, true, &mut rng) {
                            Ok(data) => return data.identity().clone(),
                            Err(ServerError::DataInUse { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            });
            let starts: Vec<_> = starts.collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(identities.iter().all(|found| *found == identities[0]), "{identities:?}");
    }
}

#[test]
fn the_name_of_a_folder_is_durable_before_anything_is_put_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/data/wal");
    let mut synced = Vec::new();
    make_folders(&path, &mut |parent| {
        let inside: Vec<_> = std::fs::read_dir(parent)?.map(|e| e.unwrap().path()).collect();
        let [made] = &inside[..] else { panic!("{inside:?}") };
        assert_eq!(std::fs::read_dir(made)?.count(), 0, "nothing is in it yet");
        synced.push(parent.to_owned());
        Ok(())
    })
    .unwrap();
    let deep = dir.path().join("deep");
    assert_eq!(synced, [dir.path().to_owned(), deep.clone(), deep.join("data")]);
    make_folders(&path, &mut |_| panic!("it is there")).unwrap();
    let data = open(&dir.path().join("other")).unwrap();
    assert!(data.wal().is_dir() && data.state().is_dir(), "they are made with the folder");
}

#[test]
fn a_crash_while_the_identity_is_written_leaves_a_folder_that_opens() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("STORE.new"), "form").unwrap();
    assert!(open(dir.path()).unwrap().created());
}

#[test]
fn a_crash_while_a_recovery_writes_the_identity_leaves_a_folder_in_which_it_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(Unfinished::begin(dir.path(), true).unwrap());
    std::fs::write(dir.path().join("STORE.new"), "form").unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, ServerError::RecoveryUnfinished { .. }), "{error}");
    let again = Unfinished::begin(dir.path(), true).unwrap();
    let identity = Identity::new(&mut Rng::from_seed(1));
    let finished = again.finish(identity.clone()).unwrap();
    assert_eq!(finished.identity(), &identity);
    drop(finished);
    assert!(!open(dir.path()).unwrap().created());
}

#[test]
fn a_folder_with_something_else_in_it_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
    let error = open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(!dir.path().join("LOCK").try_exists().unwrap());
}

#[test]
fn another_version_and_a_damaged_identity_are_refused_with_the_reason() {
    let cases = [
        ("format = 2\ncreated_by = \"braid 9.0.0\"\nnew = 1", "format version 2", "9.0.0"),
        ("format = 0", "format version 0", "reads version 1"),
        ("", "no `format`", "damaged"),
        ("format = 1", "missing field", "damaged"),
        ("\0\0\0\0", "damaged", "STORE"),
    ];
    for (text, first, second) in cases {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("STORE"), text).unwrap();
        let error = open(dir.path()).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(message.contains(first) && message.contains(second), "{text:?}: {message}");
    }
}

#[test]
fn a_volatile_file_system_is_refused_unless_allowed() {
    // Where there is no tmpfs there is nothing to refuse.
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    if common::file_system::volatile_kind(dir.path()).unwrap().is_none() {
        return;
    }
    let error = DataDir::open(dir.path(), false, &mut Rng::from_seed(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("--allow-volatile"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    DataDir::open(dir.path(), true, &mut Rng::from_seed(1)).unwrap();
}

#[test]
fn a_file_in_place_of_the_folder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    std::fs::write(&path, "").unwrap();
    assert!(open(&path).unwrap_err().to_string().contains("data`: create it"));
}
