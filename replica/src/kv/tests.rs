//! One suite for every [`Kv`].

use std::sync::Arc;

use common::{ByteSize, LogIndex, Rng, Term, WallTime};
use rstest::rstest;

use super::*;

/// A store that a test can close without flushing and open again.
trait Reopen {
    fn open(&mut self) -> Arc<dyn Kv>;
    fn crash(&mut self, kv: Arc<dyn Kv>);
    /// The disk has no space for the files of a flush, or has it again.
    fn set_full(&mut self, full: bool);
}

struct Memory(MemKv);

impl Reopen for Memory {
    fn open(&mut self) -> Arc<dyn Kv> {
        Arc::new(self.0.clone())
    }

    fn crash(&mut self, _kv: Arc<dyn Kv>) {
        self.0.crash(&mut Rng::from_seed(3));
    }

    fn set_full(&mut self, full: bool) {
        self.0.set_full(full);
    }
}

struct Rocks {
    dir: tempfile::TempDir,
    incarnation: u32,
    open: Option<Arc<RocksKv>>,
}

impl Rocks {
    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join(self.incarnation.to_string())
    }
}

impl Reopen for Rocks {
    fn open(&mut self) -> Arc<dyn Kv> {
        let kv = Arc::new(RocksKv::open(&self.path(), ByteSize::mib(4)).unwrap());
        self.open = Some(kv.clone());
        kv
    }

    /// Goes on in a copy that the running store makes of itself: a clean close would flush, and files
    /// that are copied while it runs may be gone before it is their turn.
    fn crash(&mut self, kv: Arc<dyn Kv>) {
        self.incarnation += 1;
        let open = self.open.take().expect("only an open store crashes");
        open.copy_as_crashed(&self.path()).unwrap();
        drop((kv, open));
    }

    fn set_full(&mut self, full: bool) {
        fill(&self.path(), |number| format!("{number:06}.sst"), full);
    }
}

/// Numbers of files that a store makes in a test.
const FILE_NUMBERS: std::ops::Range<u32> = 1..300;

/// Writing to the files that a store is going to make fails as on a full disk, on any machine and
/// for any user: the names are there already and lead to a device that is always full.
fn fill(dir: &std::path::Path, name: impl Fn(u32) -> String, full: bool) {
    for path in FILE_NUMBERS.map(|number| dir.join(name(number))) {
        match path.symlink_metadata() {
            Ok(found) if found.is_symlink() && !full => std::fs::remove_file(path).unwrap(),
            Err(_) if full => std::os::unix::fs::symlink("/dev/full", path).unwrap(),
            _ => {}
        }
    }
}

fn memory() -> Box<dyn Reopen> {
    Box::new(Memory(MemKv::new()))
}

fn rocks() -> Box<dyn Reopen> {
    Box::new(Rocks { dir: tempfile::tempdir().unwrap(), incarnation: 0, open: None })
}

fn applied(index: u64) -> Applied {
    let stamp = Stamp { wall: WallTime(index), up_micros: 3 };
    Applied { index: LogIndex(index), term: Term(7), stamp, digest: 11 }
}

fn put(key: &str, value: &str) -> Change {
    Change { key: key.into(), value: Some(Bytes::copy_from_slice(value.as_bytes())) }
}

fn of(machine: &[Change]) -> Changes<'_> {
    Changes { machine, archive: &[] }
}

fn remove(key: &str) -> Change {
    Change { key: key.into(), value: None }
}

fn pairs(kv: &dyn Kv, group: u64) -> Vec<(String, String)> {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    kv.scan(GroupId(group), Space::Machine)
        .unwrap()
        .map(|pair| pair.map(|(key, value)| (text(key), text(value))).unwrap())
        .collect()
}

fn owned(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[rstest]
#[case::memory(memory())]
#[case::rocks(rocks())]
fn groups_do_not_see_each_other_and_keys_come_in_order(#[case] mut store: Box<dyn Reopen>) {
    let kv = store.open();
    assert_eq!(kv.applied(GroupId(1)), Ok(None));
    kv.write(GroupId(1), applied(5), of(&[put("b", "1"), put("a", "2"), put("", "3")])).unwrap();
    kv.write(GroupId(2), applied(9), of(&[put("a", "other")])).unwrap();
    kv.write(GroupId(1), applied(6), of(&[remove("b"), put("c", "4")])).unwrap();
    assert_eq!(pairs(&*kv, 1), owned(&[("", "3"), ("a", "2"), ("c", "4")]));
    assert_eq!(pairs(&*kv, 2), owned(&[("a", "other")]));
    assert_eq!(pairs(&*kv, 3), owned(&[]));
    assert_eq!(kv.applied(GroupId(1)), Ok(Some(applied(6))));
}

#[rstest]
#[case::memory(memory())]
#[case::rocks(rocks())]
fn what_is_written_counts_as_memory(#[case] mut store: Box<dyn Reopen>) {
    let kv = store.open();
    let before = kv.memory_bytes();
    let value = "x".repeat(500_000);
    kv.write(GroupId(1), applied(5), of(&[put("a", &value)])).unwrap();
    let after = kv.memory_bytes();
    assert!(after >= before + 500_000, "{before}, then {after}");
}

#[rstest]
#[case::memory(memory())]
#[case::rocks(rocks())]
fn what_was_flushed_survives_a_crash_whole(#[case] mut store: Box<dyn Reopen>) {
    let kv = store.open();
    kv.write(GroupId(1), applied(5), of(&[put("a", "1"), put("b", "1")])).unwrap();
    kv.flush().unwrap();
    kv.write(GroupId(1), applied(8), of(&[put("a", "2"), remove("b")])).unwrap();
    store.crash(kv);
    let kv = store.open();
    match kv.applied(GroupId(1)).unwrap() {
        Some(at) if at == applied(5) => {
            assert_eq!(pairs(&*kv, 1), owned(&[("a", "1"), ("b", "1")]));
        }
        Some(at) if at == applied(8) => assert_eq!(pairs(&*kv, 1), owned(&[("a", "2")])),
        other => panic!("{other:?} was never saved"),
    }
}

/// The same for the files that opening a store makes.
fn fill_starts(dir: &std::path::Path, full: bool) {
    fill(dir, |number| format!("MANIFEST-{number:06}"), full);
    fill(dir, |number| format!("OPTIONS-{number:06}.dbtmp"), full);
    fill(dir, |number| format!("{number:06}.dbtmp"), full);
}

#[rstest]
#[case::memory(memory())]
#[case::rocks(rocks())]
fn a_batch_that_met_a_full_disk_goes_in_once_there_is_space(#[case] mut store: Box<dyn Reopen>) {
    let kv = store.open();
    let save = |index, value| {
        kv.write(GroupId(1), applied(index), of(&[put("a", value)])).and_then(|()| kv.flush())
    };
    save(5, "1").unwrap();
    store.set_full(true);
    for _ in 0..3 {
        let full = save(6, "2").unwrap_err();
        assert!(full.no_space, "{full}");
    }
    store.set_full(false);
    while let Err(full) = save(6, "2") {
        assert!(full.no_space, "{full}");
        // RocksDB looks after space every five seconds, by its own clock.
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
    save(7, "3").unwrap();
    store.crash(kv);
    let kv = store.open();
    assert_eq!(kv.applied(GroupId(1)), Ok(Some(applied(7))));
    assert_eq!(pairs(&*kv, 1), owned(&[("a", "3")]));
}

#[test]
fn what_rocksdb_did_not_flush_is_lost_in_a_crash() {
    let mut store = rocks();
    let kv = store.open();
    kv.write(GroupId(1), applied(5), of(&[put("a", "1")])).unwrap();
    kv.flush().unwrap();
    kv.write(GroupId(1), applied(6), of(&[put("a", "2")])).unwrap();
    store.crash(kv);
    let kv = store.open();
    assert_eq!(kv.applied(GroupId(1)), Ok(Some(applied(5))));
    assert_eq!(pairs(&*kv, 1), owned(&[("a", "1")]));
}

#[rstest]
#[case::memory(memory())]
#[case::rocks(rocks())]
fn a_full_disk_costs_nothing_that_was_flushed(#[case] mut store: Box<dyn Reopen>) {
    let kv = store.open();
    kv.write(GroupId(1), applied(5), of(&[put("a", "1")])).unwrap();
    kv.flush().unwrap();
    store.set_full(true);
    kv.write(GroupId(1), applied(6), of(&[put("a", "2")])).unwrap();
    assert!(kv.flush().unwrap_err().no_space);
    store.crash(kv);
    store.set_full(false);
    let kv = store.open();
    assert!([applied(5), applied(6)].map(|at| Ok(Some(at))).contains(&kv.applied(GroupId(1))));
    kv.write(GroupId(1), applied(6), of(&[put("a", "2")])).unwrap();
    kv.flush().unwrap();
    assert_eq!(pairs(&*kv, 1), owned(&[("a", "2")]));
}

#[test]
fn a_store_that_cannot_be_opened_for_lack_of_space_says_so_and_opens_later() {
    let dir = tempfile::tempdir().unwrap();
    fill_starts(dir.path(), true);
    let full = RocksKv::open(dir.path(), ByteSize::mib(4)).unwrap_err();
    assert!(full.no_space, "{full}");
    fill_starts(dir.path(), false);
    let kv = RocksKv::open(dir.path(), ByteSize::mib(4)).unwrap();
    kv.write(GroupId(1), applied(5), of(&[put("a", "1")])).unwrap();
    kv.flush().unwrap();
}

#[test]
fn a_second_open_of_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = RocksKv::open(dir.path(), ByteSize::mib(4)).unwrap();
    let error = RocksKv::open(dir.path(), ByteSize::mib(4)).unwrap_err();
    assert!(error.to_string().starts_with("open the state store"), "{error}");
}

#[test]
fn a_store_is_read_as_it_is_and_never_made() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none");
    assert!(RocksKv::open_read_only(&none, ByteSize::mib(4)).unwrap().is_none());
    assert!(!none.try_exists().unwrap());
    let kv = RocksKv::open(dir.path(), ByteSize::mib(4)).unwrap();
    kv.write(GroupId(1), applied(5), of(&[put("a", "1")])).unwrap();
    kv.flush().unwrap();
    drop(kv);
    let kv = RocksKv::open_read_only(dir.path(), ByteSize::mib(4)).unwrap().unwrap();
    assert_eq!(kv.applied(GroupId(1)), Ok(Some(applied(5))));
    kv.write(GroupId(1), applied(6), of(&[])).unwrap_err();
}

#[test]
fn an_applied_record_of_another_version_is_refused() {
    let mut bytes = applied(5).encode();
    assert_eq!(Applied::decode(&bytes), Ok(applied(5)));
    bytes[0] = 2;
    assert!(Applied::decode(&bytes).unwrap_err().to_string().contains("version 2"));
    assert!(Applied::decode(&[]).is_err());
}

type TextPairs = Vec<(Space, String, String)>;

fn whole(kv: &dyn Kv, group: u64) -> Option<(Applied, TextPairs)> {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let found = kv.whole(GroupId(group)).unwrap()?;
    let pairs = found.pairs.map(|pair| {
        let (space, key, value) = pair.unwrap();
        (space, text(key), text(value))
    });
    Some((found.applied, pairs.collect()))
}

#[rstest]
#[case::memory(memory())]
#[case::rocks(rocks())]
fn spaces_do_not_see_each_other_and_the_whole_of_a_group_is_of_one_moment(
    #[case] mut store: Box<dyn Reopen>,
) {
    let kv = store.open();
    let (machine, archive) = ([put("a", "1"), put("b", "2")], [put("a", "3")]);
    kv.write(GroupId(1), applied(5), Changes { machine: &machine, archive: &archive }).unwrap();
    kv.write(GroupId(2), applied(9), of(&[put("a", "other")])).unwrap();
    assert_eq!(pairs(&*kv, 1), owned(&[("a", "1"), ("b", "2")]));
    let text = |text: &str| text.to_owned();
    let expected = [
        (Space::Machine, text("a"), text("1")),
        (Space::Machine, text("b"), text("2")),
        (Space::Archive, text("a"), text("3")),
    ];
    let before = kv.whole(GroupId(1)).unwrap().unwrap();
    kv.write(GroupId(1), applied(6), of(&[remove("a"), put("c", "4")])).unwrap();
    assert_eq!((before.applied, before.pairs.count()), (applied(5), 3));
    assert_eq!(whole(&*kv, 1).unwrap().0, applied(6));
    assert_eq!(whole(&*kv, 3), None);
    kv.clear(GroupId(1)).unwrap();
    assert_eq!((whole(&*kv, 1), kv.applied(GroupId(1))), (None, Ok(None)));
    assert_eq!(pairs(&*kv, 2), owned(&[("a", "other")]));
    let mut loaded = expected
        .iter()
        .map(|(space, key, value)| (*space, Bytes::from(key.clone()), Bytes::from(value.clone())));
    kv.load(GroupId(1), &mut loaded).unwrap();
    assert_eq!(whole(&*kv, 1), None, "it does not count yet");
    kv.write(GroupId(1), applied(7), Changes::default()).unwrap();
    assert_eq!(whole(&*kv, 1), Some((applied(7), expected.to_vec())));
}
