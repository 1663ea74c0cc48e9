//! The allocator of Rust and of RocksDB with its settings; `docs/adr/0036` says why this one.
#![expect(unsafe_code, reason = "jemalloc finds its settings by the name of a symbol")]

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// In huge pages blocks are copied and pinned for the disk with a fifth less time per event of 1 KiB.
#[unsafe(export_name = "malloc_conf")]
static SETTINGS: &[u8; 11] = b"thp:always\0";
