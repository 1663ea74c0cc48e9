//! Drives the real binary as a person would: a server process on a free loopback port with its
//! data on a real disk, and the commands against it.

#![expect(unreachable_pub, reason = "a test binary has no public surface")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod adoption;
mod bad_bucket;
mod bad_input;
mod bench;
mod commands;
mod damaged_object;
mod exactly_once;
#[expect(clippy::print_stdout, clippy::expect_used, reason = "examples are short")]
mod examples;
mod flights;
mod forms;
mod full_disk;
mod harness;
mod interruptions;
mod killed_recovery;
mod long_term;
mod lost_machine;
mod memory_loads;
mod moto;
mod readme;
mod reconciliation;
mod recovery;
mod recovery_damage;
mod repair;
mod s3;
mod server_life;
mod short_lived_writers;
mod small_disk;
mod soak;
mod storage;
mod storage_trouble;
mod writer_names;
