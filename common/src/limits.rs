//! Every limit of the product that more than one crate must agree on, with unit and reason.
//!
//! They fit into each other: a batch into a block, a block into an entry, an entry into a log
//! block and into a gRPC message. The test below keeps that true.

use std::time::Duration;

/// Kibi- and mebibytes, for the constants below.
pub const KIB: usize = 1024;
pub const MIB: usize = 1024 * KIB;

/// Bytes of a scope, stream or writer name: what fits one path component everywhere.
pub const NAME_BYTES_MAX: usize = 255;

/// Bytes of one event and of one atomic batch, framing included. Larger values go through the
/// large-event path.
pub const EVENT_BYTES_MAX: usize = 8 * MIB;

/// Bytes of a routing key: longer ones are almost certainly payload by mistake.
pub const ROUTING_KEY_BYTES_MAX: usize = 8 * KIB;

/// Headers of one event: they say what an event is, they are not a second payload.
pub const HEADERS_MAX: usize = 64;

/// Bytes of a header's name: what fits one component of a path or a column everywhere.
pub const HEADER_NAME_BYTES_MAX: usize = 255;

/// Bytes of the names and values of one event's headers together.
pub const HEADERS_BYTES_MAX: usize = 64 * KIB;

/// Bytes a client aims at for one append block of small events; a larger event is its own block.
pub const APPEND_BLOCK_BYTES_TARGET: usize = 128 * KIB;

/// Bytes of an append block made of more than one event: keeps acknowledgements flowing.
pub const APPEND_BLOCK_BYTES_MAX: usize = 512 * KIB;

/// Bytes at which a group's leader closes an entry.
pub const ENTRY_BYTES_TARGET: usize = MIB;

/// Bytes of one log entry with its header: one largest batch plus room for operation headers.
pub const ENTRY_BYTES_MAX: usize = 9 * MIB;

/// Bytes of one block of the write-ahead log, unless a single entry is larger.
pub const LOG_BLOCK_BYTES_MAX: usize = 4 * MIB;

/// Bytes of a gRPC message on the data path: one largest block plus its envelope.
pub const DATA_MESSAGE_BYTES_MAX: usize = 10 * MIB;

/// Bytes of a gRPC message elsewhere.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 4 * MIB;

/// Segments of one stream at a time: keeps epochs and cuts to a size that pages can carry.
pub const SEGMENTS_PER_STREAM_MAX: usize = 100_000;

/// Streams of one cluster: bounds the controller's memory (some 500 bytes each) against streams
/// made by a loop.
pub const STREAMS_MAX: usize = 1_000_000;

/// Segments of all streams of one cluster, those included whose writers may still ask for them after
/// a truncation: bounds the memory of controller and containers (some 2 KiB each, together).
pub const SEGMENTS_MAX: u64 = 4_000_000;

/// Items in one page of a listing, a cut or a set of successors.
pub const PAGE_ITEMS_MAX: usize = 1_000;

/// A server that works on what a request asked for answers at least this often how far it is.
pub const JOB_ANSWER_INTERVAL: Duration = Duration::from_secs(5);

/// Bytes of a table key.
pub const TABLE_KEY_BYTES_MAX: usize = 8 * KIB;

/// Bytes of a table value.
pub const TABLE_VALUE_BYTES_MAX: usize = MIB;

/// Writers remembered per segment: bounds a container's memory against endless anonymous writers.
pub const WRITERS_PER_SEGMENT_MAX: usize = 100_000;

/// Segments named by one `Open` of an append session.
pub const OPEN_SEGMENTS_MAX: usize = 4_096;

/// Blocks of one append message: more than fit a message of small blocks, the smallest of which
/// frames an event in nine bytes.
pub const BLOCKS_PER_MESSAGE_MAX: usize = 65_536;

const _: () = {
    assert!(APPEND_BLOCK_BYTES_MAX / 9 <= BLOCKS_PER_MESSAGE_MAX);
    assert!(APPEND_BLOCK_BYTES_TARGET <= APPEND_BLOCK_BYTES_MAX);
    assert!(APPEND_BLOCK_BYTES_MAX <= ENTRY_BYTES_TARGET);
    assert!(EVENT_BYTES_MAX + 64 * KIB <= ENTRY_BYTES_MAX);
    assert!(ENTRY_BYTES_MAX < DATA_MESSAGE_BYTES_MAX);
    assert!(LOG_BLOCK_BYTES_MAX >= ENTRY_BYTES_TARGET);
};
