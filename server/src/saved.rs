//! Up to where groups are saved in a data folder whose server does not run.

use std::path::Path;

use common::{ByteSize, GroupId};
use replica::{Kv, KvError, RocksKv};
use wal::{Saved, SavedStates};

use crate::bucket::Bucket;
use crate::error::ServerError;
use crate::identity::{Identity, state_dir};
use crate::settings::Settings;

/// Memory for a look at RocksDB.
const STATE_MEMORY: ByteSize = ByteSize::mib(16);

/// The index up to which the state of each of `groups` is saved in the data folder `dir`; groups
/// without saved state are left out. Changes nothing.
pub fn saved_states(
    dir: &Path,
    groups: impl IntoIterator<Item = GroupId>,
) -> Result<SavedStates, ServerError> {
    read(dir, groups).map_err(|error| ServerError::Start {
        component: "state store",
        message: error.to_string(),
        data_damaged: true,
    })
}

fn read(dir: &Path, groups: impl IntoIterator<Item = GroupId>) -> Result<SavedStates, KvError> {
    let mut states = SavedStates::new();
    let Some(kv) = RocksKv::open_read_only(&state_dir(dir), STATE_MEMORY)? else {
        return Ok(states);
    };
    for group in groups {
        if let Some(applied) = kv.applied(group)? {
            states.insert(group, Saved { index: applied.index, term: applied.term });
        }
    }
    Ok(states)
}

/// Adds up to where each of `groups` can be brought back from long-term storage, where the cluster
/// of `identity` has such. Looks only; `Err` where that does not answer, or is another's.
pub fn archived_ends(
    settings: &Settings,
    identity: &Identity,
    groups: impl IntoIterator<Item = GroupId>,
    states: &mut SavedStates,
) -> Result<(), ServerError> {
    if !identity.lts_claimed {
        return Ok(());
    }
    let bucket = Bucket::open(settings)?;
    bucket.check_owner(identity)?;
    for group in groups {
        if let Some((index, term)) = bucket.archived_end(group)? {
            states.insert_archive(group, Saved { index, term });
        }
    }
    Ok(())
}
