//! Where tests of the crate put files: on a disk, not on a tmpfs.

use std::path::PathBuf;

/// A directory that is gone after the test.
pub(crate) fn test_directory() -> tempfile::TempDir {
    let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/wal-tests");
    std::fs::create_dir_all(&base).expect("the checkout is writable");
    tempfile::tempdir_in(base).expect("the checkout is writable")
}
