//! Joins the roles of Braid into one process: settings, the accept layer, HTTP, metrics, health,
//! and the order in which things start and stop.
//!
//! Everything here is about the process; what the services do is in their own crates. The
//! command line's binary calls [`resolve`] and then `run` or `dev`.

mod accept;
mod bucket;
mod error;
mod http;
mod identity;
mod memory;
mod metrics;
mod node;
mod rates;
mod recover;
mod run;
mod saved;
mod settings;
mod storage;

pub use bucket::{Bucket, CheckReport, Checking};
pub use error::{ErrorKind, ServerError};
pub use identity::{DataDir, FORMAT, Identity, Uuid};
pub use node::LocalStores;
pub use recover::{
    Damage, GroupLoss, RecoveredGroup, RecoveryReport, RecoveryStep, SegmentReport, StreamChange,
    StreamReport, Unreadable, recover,
};
pub use replica::archive::Kind as ObjectKind;
pub use replica::check::{
    Finding, GroupReport, Kinds, Observer, Progress, Survey, Surveyed, Tally, Tip,
};
pub use run::{Ready, Stop, dev, run};
pub use saved::{archived_ends, saved_states};
pub use settings::{
    Auto, Cache, Checkpoint, Containers, Data, ENVIRONMENT_PREFIX, Entry, Limits, Log, Lts, LtsUrl,
    Memory, Origin, Period, Resolved, Server, Settings, SettingsError, Sources, Tiering, Tracing,
    TracingFormat, resolve,
};
pub use storage::{Stopped, Storage};
