//! What only a folder can do or suffer.

use std::time::Duration;

use common::{Rng, SystemClock};
use futures::FutureExt;

use super::*;
use crate::test_support::{path, pattern, payload, test_directory};

fn open(root: &Path) -> Folder {
    Folder::open(root, false, SystemClock::shared(), Rng::from_seed(1)).unwrap()
}

#[tokio::test]
async fn objects_are_there_after_a_restart() {
    let directory = test_directory();
    let root = directory.path().join("new/lts");
    let folder = open(&root);
    assert_eq!(folder.url(), format!("file://{}", root.display()));
    folder.put(&path("a/b"), payload("kept")).await.unwrap();
    drop(folder);
    assert_eq!(open(&root).get(&path("a/b"), 0..4).await.unwrap(), "kept");
    assert_eq!(fs::read(root.join("a/b")).unwrap(), b"kept");
}

#[tokio::test]
async fn a_folder_on_the_way_is_no_object_and_an_object_no_folder() {
    let directory = test_directory();
    let folder = open(directory.path());
    folder.put(&path("a/b"), payload("b")).await.unwrap();
    for name in ["a", "a/b/c"].map(path) {
        let missing = folder.get(&name, 0..1).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
        assert_eq!(folder.head(&name).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    folder.delete(&[path("a/b/c")]).await.unwrap();
    assert_eq!(folder.get(&path("a/b"), 0..1).await.unwrap(), "b");
}

#[tokio::test]
async fn what_a_crash_left_is_no_object_and_is_found_by_its_age_and_removed() {
    let directory = test_directory();
    let folder = open(directory.path());
    let staged = directory.path().join(STAGING).join("00ff");
    fs::write(&staged, b"half an obj").unwrap();
    assert!(folder.list("", None, 10).await.unwrap().objects.is_empty());
    assert_eq!(folder.leftovers(Duration::from_secs(3600)).await.unwrap(), []);

    let found = folder.leftovers(Duration::ZERO).await.unwrap();
    assert_eq!((found.len(), found[0].name.as_str(), found[0].length), (1, "00ff", 11));
    folder.remove_leftovers(&found).await.unwrap();
    folder.remove_leftovers(&found).await.unwrap();
    assert!(!staged.try_exists().unwrap());
}

#[tokio::test]
async fn a_put_under_way_is_no_leftover_and_ends_though_nobody_waits() {
    let directory = test_directory();
    let folder = open(directory.path());
    let staged = folder.shared.stage().unwrap();
    fs::write(&staged.path, b"under way").unwrap();
    assert_eq!(folder.leftovers(Duration::ZERO).await.unwrap(), []);
    drop(staged);
    assert_eq!(folder.leftovers(Duration::ZERO).await.unwrap().len(), 1);

    // The first poll hands the job to a thread; then the caller loses interest.
    let name = path("a");
    assert!(folder.put(&name, payload("a")).now_or_never().is_none());
    let again = folder.put(&name, payload("b")).await;
    let third = folder.put(&name, payload("c")).await.unwrap_err();
    assert_eq!(third.kind(), ErrorKind::AlreadyExists);
    let stored = folder.get(&name, 0..1).await.unwrap();
    assert_eq!(stored, if again.is_ok() { "b" } else { "a" });
}

#[tokio::test]
async fn emptied_folders_go_and_come_again_also_while_others_put_into_them() {
    let directory = test_directory();
    let folder = open(directory.path());
    let (a, b) = (path("0001/02/03/a"), path("0001/02/03/b"));
    for round in 0..50 {
        folder.put(&a, payload("a")).await.unwrap();
        let gone = [a.clone()];
        let (put, deleted) = futures::join!(folder.put(&b, payload("b")), folder.delete(&gone));
        put.unwrap();
        deleted.unwrap();
        assert_eq!(folder.get(&b, 0..1).await.unwrap(), "b", "{round}");
        folder.delete(std::slice::from_ref(&b)).await.unwrap();
        assert!(!directory.path().join("0001").try_exists().unwrap());
    }
}

#[tokio::test]
async fn another_process_may_remove_an_empty_folder_at_any_time() {
    let directory = test_directory();
    let (ours, theirs) = (open(directory.path()), open(directory.path()));
    ours.put(&path("0001/a"), payload("a")).await.unwrap();
    theirs.delete(&[path("0001/a")]).await.unwrap();
    assert!(!directory.path().join("0001").try_exists().unwrap());
    ours.put(&path("0001/b"), payload("b")).await.unwrap();
    assert_eq!(theirs.get(&path("0001/b"), 0..1).await.unwrap(), "b");
}

#[tokio::test]
async fn after_a_failed_sync_of_a_folder_nothing_more_is_taken_but_all_is_read() {
    let directory = test_directory();
    let folder = open(directory.path());
    folder.put(&path("a"), payload("a")).await.unwrap();
    folder.shared.sync_failed.store(true, Ordering::Release);
    let refused = folder.put(&path("b"), payload("b")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains("restart"), "{refused}");
    folder.delete(&[path("a")]).await.unwrap_err();
    assert_eq!(folder.get(&path("a"), 0..1).await.unwrap(), "a");
}

#[test]
fn a_file_system_that_keeps_nothing_is_refused_unless_allowed() {
    let memory = Path::new("/dev/shm");
    if !memory.try_exists().unwrap() {
        return;
    }
    let directory = tempfile::tempdir_in(memory).unwrap();
    let open = |allow| {
        let (clock, rng) = (SystemClock::shared(), Rng::from_seed(1));
        Folder::open(directory.path(), allow, clock, rng)
    };
    let refused = open(false).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let text = refused.to_string();
    assert!(text.contains("tmpfs") && text.contains("--allow-volatile"), "{text}");
    open(true).unwrap();
}

#[test]
fn an_object_leaves_room_to_others_and_one_that_frees_space_takes_most_of_that() {
    const MIB: u64 = 1 << 20;
    assert_eq!(room(160 * MIB, false), 10 * MIB);
    assert_eq!(room(160 * MIB, true), 10 * MIB / 4);
    assert_eq!(room(1 << 50, false), 1 << 30);
    assert_eq!(room(1 << 50, true), 16 * MIB, "a log leaves more");
    let directory = test_directory();
    open(directory.path()).shared.check_room(&payload("a")).unwrap();
}

#[tokio::test]
async fn errors_of_the_machine_become_kinds_that_say_what_to_do() {
    use io::ErrorKind as Io;
    let cases = [
        (Io::StorageFull, ErrorKind::Full),
        (Io::QuotaExceeded, ErrorKind::Full),
        (Io::ReadOnlyFilesystem, ErrorKind::Denied),
        (Io::PermissionDenied, ErrorKind::Denied),
        (Io::NotFound, ErrorKind::Unavailable),
        (Io::Other, ErrorKind::Unavailable),
    ];
    for (io, kind) in cases {
        assert_eq!(kind_of(Operation::Put, io), kind, "{io:?}");
    }
    // A put of a folder that is gone is no missing object.
    let directory = test_directory();
    let folder = open(directory.path());
    fs::remove_dir(directory.path().join(STAGING)).unwrap();
    let error = folder.put(&path("a"), payload("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[test]
fn a_stepped_file_holds_what_was_written_whatever_the_sizes() {
    let directory = test_directory();
    let whole = pattern(3 * write_back::STEP_BYTES + 17);
    for (number, size) in [1 << 12, 1 << 20, (1 << 20) + 1, whole.len()].into_iter().enumerate() {
        let name = directory.path().join(number.to_string());
        let file = File::create_new(&name).unwrap();
        let mut stepped = Stepped::new(&file);
        for piece in whole.chunks(size) {
            stepped.write_all(piece).unwrap();
        }
        assert!(fs::read(&name).unwrap() == whole, "{size}");
    }
}

#[test]
fn a_file_past_the_page_cache_holds_what_was_written_whatever_the_sizes() {
    let directory = test_directory();
    for (number, bytes) in
        [1, 4096, 4097, 1 << 20, (1 << 20) + 1, 3_333_333].into_iter().enumerate()
    {
        let whole = pattern(bytes);
        for size in [4096, 1 << 20, 700_001] {
            let mut payload = Payload::default();
            whole.chunks(size).for_each(|piece| payload.push(Bytes::copy_from_slice(piece)));
            let name = directory.path().join(format!("{number}-{size}"));
            // A file system without such writes has nothing to show.
            if direct::write(&name, &payload).unwrap().is_some() {
                assert!(fs::read(&name).unwrap() == whole, "{bytes} in pieces of {size}");
            }
        }
    }
}

#[tokio::test]
async fn a_file_system_that_takes_only_writes_through_its_cache_is_given_those() {
    let directory = test_directory();
    let folder = open(directory.path());
    folder.shared.buffered.store(true, Ordering::Relaxed);
    let large = pattern(2 << 20);
    let mut payload = Payload::default();
    payload.push(large.clone());
    folder.put(&path("a"), payload).await.unwrap();
    assert!(folder.get(&path("a"), 0..2 << 20).await.unwrap() == large);
}
