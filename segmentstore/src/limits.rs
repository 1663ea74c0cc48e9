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

/// Up-time for which a writer's entry is kept after its last use, unless it is a named one's with
/// stored events: that stays with its segment until the name is deleted (ADR 0019).
pub const WRITER_TTL: Duration = Duration::from_hours(1);

/// Up-time for which the session number of a writer is kept that was closed, expired or made room
/// for another, so that what is still on its way is refused and not stored.
pub const WRITER_STUB_TTL: Duration = Duration::from_hours(1);

/// Session numbers kept per segment beyond its writers. More are kept only while they are younger
/// than [`STUB_AGE_MIN`].
pub const STUBS_PER_SEGMENT_MAX: usize = 10_000;

/// Up-time for which a session number is kept whatever their number: longer than anything that a
/// closed writer sent stays on its way (ADR 0044).
pub const STUB_AGE_MIN: Duration = Duration::from_secs(10);

/// Session numbers above the bound that go for each that comes: more than one, so that their number
/// comes back to the bound, and not all at once, which would hold up the worker.
pub const SURPLUS_STUBS_PER_STUB: usize = 4;

/// Writers named by one expire operation at most.
pub const EXPIRE_WRITERS_MAX: usize = 4_096;

/// Writers that the leader names in one: its apply takes far below a millisecond.
pub const EXPIRE_SLICE_WRITERS: usize = 256;

/// A duration as up-time counts.
pub(crate) const fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

/// The resolution of the time index for what was stored lately: no byte at or behind the answer for
/// a time is older than the time by more than this. It becomes coarser with age.
pub const TIME_INDEX_RESOLUTION: Duration = Duration::from_secs(1);

/// Blocks at least this large keep the memory they were received in; smaller ones are copied, or a
/// cached event of 100 bytes would keep a whole receive buffer alive.
pub const ZERO_COPY_BYTES_MIN: usize = 32 * KIB;

/// Bytes that a block of an append costs beside its data: decoded, checked, queued and remembered
/// until it is answered.
pub const BLOCK_COST_BYTES: usize = 256;

/// Bytes that a slot of an append connection costs: none is used twice, so that each is remembered
/// for as long as its connection lives.
pub const SLOT_COST_BYTES: usize = 192;

/// A message of an append stream of which so little comes in this time ends its stream.
pub const MESSAGE_STALL: Duration = Duration::from_secs(5);
pub const MESSAGE_PROGRESS_BYTES: usize = 64 * KIB;

/// Bytes of answers of one append stream that its client has not taken. Beyond it nothing more is
/// taken from that client, and successors are left for it to ask for.
pub const UNREAD_ANSWER_BYTES_MAX: usize = 256 * KIB;

/// Bytes of one answer of an append stream, about; what is left goes into the next.
pub const ANSWER_BYTES_MAX: usize = KIB * KIB;

/// Bytes of the successors of one segment in an answer; who needs more asks for pages of them.
pub const SUCCESSOR_BYTES_MAX: usize = 128 * KIB;

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
