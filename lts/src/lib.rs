//! Long-term storage: immutable objects that are created once under a unique name.
//!
//! A [`Bucket`] is the part of a store that one cluster owns: a local folder, a bucket and prefix
//! of S3, GCS or Azure, or memory. Its laws are written on the trait and checked by one suite on
//! every implementation (`contract.rs`). Nothing here knows what the bytes of an object mean.

pub mod altered;
pub mod bucket;
pub mod cloud;
pub mod cluster;
#[cfg(test)]
mod contract;
pub mod error;
pub mod faulty;
pub mod folder;
pub mod guarded;
pub mod memory;
pub mod object_name;
pub mod open;
pub mod owner;
pub mod path;
pub mod payload;
pub mod probe;
pub mod settings;
#[cfg(test)]
mod test_s3;
#[cfg(test)]
mod test_support;
pub mod timer;
pub mod url;

pub use altered::Altered;
pub use bucket::{Bucket, Leftover, Listed, OBJECT_BYTES_MAX, Page};
pub use cloud::{Cloud, Environment};
pub use cluster::ClusterMarker;
pub use error::{Error, ErrorKind, Operation};
pub use faulty::{Fault, FaultRates, Faults, Faulty};
pub use folder::Folder;
pub use guarded::{BreakerState, BreakerStatus, Guarded, Observation, Observer};
pub use memory::Memory;
pub use object_name::{ObjectName, ObjectNameError};
pub use open::{OpenError, open};
pub use owner::Owner;
pub use path::{ObjectPath, PathError};
pub use payload::Payload;
pub use probe::{Refused, probe};
pub use settings::{SettingError, Settings};
pub use timer::{ManualTimer, Timer, TokioTimer};
pub use url::{Provider, RemoteUrl, StoreUrl, UrlError};
