//! What goes into the log and what comes out of it.

use bytes::Bytes;
use common::{GroupId, LogIndex, Term};

/// The number of a block in this directory: starts at 1, is never reset. 0 is "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockSeq(pub u64);

impl BlockSeq {
    pub const fn next(self) -> BlockSeq {
        BlockSeq(self.0 + 1)
    }
}

/// The promises of a Raft peer, as durable as its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    pub term: Term,
    /// The peer voted for in `term`; 0 is "none".
    pub vote: u64,
    pub commit: LogIndex,
}

/// The place up to which a group's log was dropped; 0, 0 when it never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Truncated {
    pub index: LogIndex,
    pub term: Term,
}

/// Up to where a group has saved its state outside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Saved {
    pub index: LogIndex,
    pub term: Term,
}

/// Entries that a repair gave up while the group's log went on behind them: its saved state
/// includes what they did, their bytes are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LostEntries {
    pub first: LogIndex,
    pub last: LogIndex,
    /// At least the term of each. They are committed, so that nobody compares it.
    pub term: Term,
}

/// An entry to append. `context` and `data` are stored side by side and come back apart.
#[derive(Debug, Clone, Copy)]
pub struct EntryRef<'a> {
    pub index: LogIndex,
    pub term: Term,
    /// The kind of the Raft entry (normal, membership change), opaque here.
    pub kind: u8,
    pub context: &'a [u8],
    pub data: &'a [u8],
}

/// A group's membership, opaque here, with the index of the entry that made it so.
#[derive(Debug, Clone, Copy)]
pub struct ConfRef<'a> {
    pub index: LogIndex,
    pub bytes: &'a [u8],
}

/// The owned form of [`ConfRef`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conf {
    pub index: LogIndex,
    pub bytes: Bytes,
}

/// What an entry is for, and with that how many files it must leave to others
/// ([`crate::Log::admit`]). Rounds and the empty entries of leaders need not ask: they leave one,
/// what truncates leaves none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claim {
    /// Clients store something: [`crate::LogSettings::files_kept`] are left.
    Client,
    /// It frees space: two are left, so that what was freed can be archived and truncated.
    FreesSpace,
}

/// One change to one group's log. All of it lands in one block, unless the entries alone exceed
/// a block: then everything else is in the first of its blocks, with the commit index held down
/// to what that block proves, and the rest of the commit rides in the last one.
///
/// It takes effect in the order of the fields.
#[derive(Debug, Clone, Copy, Default)]
pub struct Batch<'a> {
    pub group: GroupId,
    /// The peer is gone for good: drops all of the group's log and state and keeps these bytes.
    pub tombstone: Option<&'a [u8]>,
    /// A snapshot replaces the log: drops every entry, the next one is `index + 1`.
    pub reset: Option<Truncated>,
    /// The synced mark of a snapshot that is being installed, opaque here; empty removes it.
    pub mark: Option<&'a [u8]>,
    pub hard_state: Option<HardState>,
    pub conf: Option<ConfRef<'a>>,
    /// Consecutive entries. One at or below the last index replaces it and all behind it.
    pub entries: &'a [EntryRef<'a>],
    /// The entries were admitted ([`crate::Log::admit`]), or they archive the log, or a leader needs
    /// them: of the files kept in reserve only the last is closed to them. That one is for what
    /// makes room in the log itself.
    pub admitted: bool,
    /// Drops the entries up to this one, which was in the log before this batch.
    pub truncate: Option<Truncated>,
}

/// An entry read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub index: LogIndex,
    pub term: Term,
    pub kind: u8,
    pub context: Bytes,
    pub data: Bytes,
}

/// What the log knows of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    pub group: GroupId,
    pub hard_state: HardState,
    pub truncated: Truncated,
    pub conf: Option<Conf>,
    pub mark: Option<Bytes>,
    pub tombstone: Option<Bytes>,
    /// The first index that can be read; one above `last` when there is none.
    pub first: LogIndex,
    pub last: LogIndex,
    pub last_term: Term,
    /// Entries from `first` to `last` that cannot be read any more, in order.
    pub lost: Vec<LostEntries>,
    /// Why the group's log must not be trusted beyond `last`: acknowledged records are gone.
    pub quarantined: Option<String>,
}

/// What [`crate::Log::open`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The identity of this log: drawn when the directory was first used.
    pub store_id: u128,
    /// Sorted by group.
    pub groups: Vec<GroupState>,
    /// Bytes of a torn tail that nobody can have been told about, cut.
    pub torn_bytes: u64,
    /// Damage to acknowledged data, with the policy `Quarantine`.
    pub damage: Vec<crate::Damage>,
}
