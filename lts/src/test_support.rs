//! What tests of the crate share.

use std::any::Any;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Bucket, ObjectPath, Payload};

/// A bucket and what must live as long as it does.
pub(crate) struct Fixture {
    pub(crate) bucket: Arc<dyn Bucket>,
    kept: Vec<Box<dyn Any>>,
}

impl Fixture {
    pub(crate) fn new(bucket: impl Bucket + 'static) -> Self {
        Self { bucket: Arc::new(bucket), kept: Vec::new() }
    }

    pub(crate) fn keeping(mut self, kept: impl Any) -> Self {
        self.kept.push(Box::new(kept));
        self
    }
}

impl Deref for Fixture {
    type Target = Arc<dyn Bucket>;

    fn deref(&self) -> &Arc<dyn Bucket> {
        &self.bucket
    }
}

/// A directory on a disk, not on a tmpfs, that is gone after the test.
pub(crate) fn test_directory() -> tempfile::TempDir {
    let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/lts-tests");
    std::fs::create_dir_all(&base).expect("the checkout is writable");
    tempfile::tempdir_in(base).expect("the checkout is writable")
}

pub(crate) fn path(text: &str) -> ObjectPath {
    text.parse().unwrap()
}

pub(crate) fn payload(text: &str) -> Payload {
    Bytes::copy_from_slice(text.as_bytes()).into()
}

/// Bytes that differ everywhere.
pub(crate) fn pattern(length: usize) -> Bytes {
    (0..length as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
