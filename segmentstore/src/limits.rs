//! Limits of the segment store alone, each with unit and reason; shared ones are in
//! `common::limits`.

use std::time::Duration;

use common::limits::KIB;

/// Predecessors or successors of one segment: a header with all of them stays far below an entry.
pub const NEIGHBOURS_MAX: usize = 4_096;

/// Attributes of one segment: they live in memory and in every saved record of the segment.
pub const ATTRIBUTES_MAX: usize = 64;

/// Bytes of an attribute's value: a small fact, not data.
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = KIB;

/// Up-time for which a named writer's entry is kept after its last use: a century, that is, for as
/// long as its segment. The controller knows a name for as long as its stream; a segment that
/// forgot before would store everything again for the name's next process (ADR 0019).
pub const NAMED_WRITER_TTL: Duration = Duration::from_hours(100 * 365 * 24);

/// Up-time for which an anonymous writer's entry is kept after its last use.
pub const ANONYMOUS_WRITER_TTL: Duration = Duration::from_hours(1);

/// Up-time for which only the session number of an expired entry is kept, so that a block that is
/// still on its way is refused and not stored.
pub const EXPIRED_SESSION_TTL: Duration = Duration::from_hours(1);

/// Writers named by one expire operation: bounds the time that its apply takes.
pub const EXPIRE_WRITERS_MAX: usize = 4_096;

/// The resolution of the time index for what was stored lately: no byte at or behind the answer for
/// a time is older than the time by more than this. It becomes coarser with age.
pub const TIME_INDEX_RESOLUTION: Duration = Duration::from_secs(1);

/// Blocks at least this large keep the memory they were received in; smaller ones are copied, or a
/// cached event of 100 bytes would keep a whole receive buffer alive.
pub const ZERO_COPY_BYTES_MIN: usize = 32 * KIB;

/// Bytes of one read message at most: a good share of a socket buffer and a small wait for others.
pub const READ_MESSAGE_BYTES_MAX: usize = 512 * KIB;

/// Pieces smaller than this are gathered, up to `READ_GATHER_BYTES`, instead of sent alone.
pub const READ_GATHER_BELOW: usize = 64 * KIB;

/// Bytes to which small pieces are gathered in one read message.
pub const READ_GATHER_BYTES: usize = 256 * KIB;

/// Bytes that one sequential reader has read ahead from the log, at first and at most.
pub const READ_AHEAD_BYTES_MIN: usize = 1024 * KIB;
pub const READ_AHEAD_BYTES_MAX: usize = 4 * 1024 * KIB;

/// Bytes at which a block of an object ends, with the run that reaches it: enough to pay for the
/// way to a remote store, little enough to read for one event.
pub const OBJECT_BLOCK_BYTES: u32 = 1024 * KIB as u32;

/// Bytes of neighbouring blocks that are read at once. What is handed out of one keeps all of them
/// in memory until a client has taken it, so that this is a few blocks only.
pub const OBJECT_FETCH_BYTES_MAX: u32 = 4 * OBJECT_BLOCK_BYTES;

/// Last bytes of an object that are read for its index; most indices fit, and one that does not is
/// read whole by a second request.
pub const OBJECT_INDEX_HINT_BYTES: u64 = 64 * KIB as u64;

/// Bytes that one sequential reader has read ahead from objects, at first and at most.
pub const OBJECT_WINDOW_BYTES_MIN: usize = 1024 * KIB;
pub const OBJECT_WINDOW_BYTES_MAX: usize = 16 * 1024 * KIB;

/// Indices of further objects that one step of a reader asks for ahead.
pub const OBJECT_INDICES_AHEAD_MAX: usize = 4;

/// Extents that a reader is told at once: where they are tiny, copying more of them would hold up
/// the segment's appends.
pub const READ_EXTENTS_MAX: usize = 1_024;

/// How long a client waits before it opens a session again that a full container refused, where
/// the container itself does not say.
pub const RETRY_AFTER: Duration = Duration::from_millis(100);
