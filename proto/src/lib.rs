//! The contract between clients, segment stores and the controller: generated messages and
//! services, stable error reasons, conversions to the vocabulary of `common`, and the framing of
//! events inside a segment.
//!
//! Changes here are additive: a field's number and meaning never change, removed fields are
//! reserved.

pub mod append_stream;
pub mod convert;
pub mod error;
pub mod framing;
pub mod read_stream;

/// Messages and services of `braid.v1`.
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("braid.v1");
}

/// The oldest and the newest version of the protocol that this build speaks.
pub const PROTOCOL_MIN: u32 = 1;
pub const PROTOCOL_MAX: u32 = 1;
