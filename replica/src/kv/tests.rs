//! One suite for every [`Kv`].

use std::sync::Arc;

use common::{ByteSize, LogIndex, Rng, Term, WallTime};
use rstest::rstest;

use super::*;

/// A store that a test can close without flushing and open again.
trait Reopen {
    fn open(&mut self) -> Arc<dyn Kv>;
    fn crash(&mut self, kv: Arc<dyn Kv>);
}

struct Memory(MemKv);

impl Reopen for Memory {
    fn open(&mut self) -> Arc<dyn Kv> {
        Arc::new(self.0.clone())
    }

    fn crash(&mut self, _kv: Arc<dyn Kv>) {
        self.0.crash(&mut Rng::from_seed(3));
    }
}

struct Rocks {
    dir: tempfile::TempDir,
    incarnation: u32,
}

impl Rocks {
    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join(self.incarnation.to_string())
    }
}

impl Reopen for Rocks {
    fn open(&mut self) -> Arc<dyn Kv> {
        Arc::new(RocksKv::open(&self.path(), ByteSize::mib(4)).unwrap())
    }

    /// Copies the files of the running store: a clean close would flush.
    fn crash(&mut self, kv: Arc<dyn Kv>) {
        let from = self.path();
        self.incarnation += 1;
        std::fs::create_dir(self.path()).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            if file.file_name() != "LOCK" {
                std::fs::copy(file.path(), self.path().join(file.file_name())).unwrap();
            }
        }
        drop(kv);
    }
}

fn memory() -> Box<dyn Reopen> {
    Box::new(Memory(MemKv::new()))
}

fn rocks() -> Box<dyn Reopen> {
    Box::new(Rocks { dir: tempfile::tempdir().unwrap(), incarnation: 0 })
}

fn applied(index: u64) -> Applied {
    let stamp = Stamp { wall: WallTime(index), up_micros: 3 };
    Applied { index: LogIndex(index), term: Term(7), stamp, digest: 11 }
}

fn put(key: &str, value: &str) -> Change {
    Change { key: key.into(), value: Some(Bytes::copy_from_slice(value.as_bytes())) }
}

fn remove(key: &str) -> Change {
    Change { key: key.into(), value: None }
}

fn pairs(kv: &dyn Kv, group: u64) -> Vec<(String, String)> {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    kv.scan(GroupId(group))
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
    kv.write(GroupId(1), applied(5), &[put("b", "1"), put("a", "2"), put("", "3")]).unwrap();
    kv.write(GroupId(2), applied(9), &[put("a", "other")]).unwrap();
    kv.write(GroupId(1), applied(6), &[remove("b"), put("c", "4")]).unwrap();
    assert_eq!(pairs(&*kv, 1), owned(&[("", "3"), ("a", "2"), ("c", "4")]));
    assert_eq!(pairs(&*kv, 2), owned(&[("a", "other")]));
    assert_eq!(pairs(&*kv, 3), owned(&[]));
    assert_eq!(kv.applied(GroupId(1)), Ok(Some(applied(6))));
}

#[rstest]
#[case::memory(memory())]
#[case::rocks(rocks())]
fn what_was_flushed_survives_a_crash_whole(#[case] mut store: Box<dyn Reopen>) {
    let kv = store.open();
    kv.write(GroupId(1), applied(5), &[put("a", "1"), put("b", "1")]).unwrap();
    kv.flush().unwrap();
    kv.write(GroupId(1), applied(8), &[put("a", "2"), remove("b")]).unwrap();
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
    kv.write(GroupId(1), applied(5), &[put("a", "1")]).unwrap();
    kv.flush().unwrap();
    drop(kv);
    let kv = RocksKv::open_read_only(dir.path(), ByteSize::mib(4)).unwrap().unwrap();
    assert_eq!(kv.applied(GroupId(1)), Ok(Some(applied(5))));
    kv.write(GroupId(1), applied(6), &[]).unwrap_err();
}

#[test]
fn an_applied_record_of_another_version_is_refused() {
    let mut bytes = applied(5).encode();
    assert_eq!(Applied::decode(&bytes), Ok(applied(5)));
    bytes[0] = 2;
    assert!(Applied::decode(&bytes).unwrap_err().to_string().contains("version 2"));
    assert!(Applied::decode(&[]).is_err());
}
