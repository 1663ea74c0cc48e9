//! Fields of requests as values of the vocabulary, or what is wrong with them.

use std::str::FromStr;

use common::limits::SEGMENTS_PER_STREAM_MAX;
use common::{
    CutCoverage, NameError, Offset, ScopeName, ScopedStream, SegmentId, WriterEpoch, WriterId,
};
use proto::v1;

use crate::machine::WriterMode;
use crate::service::ServiceError;

pub(super) fn invalid(text: impl Into<String>) -> ServiceError {
    ServiceError::Invalid(text.into())
}

pub(super) fn name<N: FromStr<Err = NameError>>(
    field: &str,
    text: &str,
) -> Result<N, ServiceError> {
    text.parse().map_err(|error| invalid(format!("field `{field}`: {error}")))
}

pub(super) fn scope(text: &str) -> Result<ScopeName, ServiceError> {
    name("scope", text)
}

pub(super) fn stream(field: Option<v1::StreamName>) -> Result<ScopedStream, ServiceError> {
    let field = field.ok_or_else(|| {
        invalid("field `stream` is missing; give the names of the scope and of the stream")
    })?;
    let scope = name("stream.scope", &field.scope)?;
    Ok(ScopedStream { scope, stream: name("stream.stream", &field.stream)? })
}

/// What a named writer's numbers mean.
pub(super) fn writer_mode(mode: i32) -> Result<WriterMode, ServiceError> {
    match v1::WriterMode::try_from(mode) {
        Ok(v1::WriterMode::WriterReplay) => Ok(WriterMode::Replay),
        Ok(v1::WriterMode::WriterContinue) => Ok(WriterMode::Continue),
        Ok(v1::WriterMode::Unspecified) | Err(_) => Err(invalid(format!(
            "field `mode` is {mode}; say what the writer's numbers mean: {} (replay, the n-th event \
             of its source is always the same) or {} (continue, they go on behind what is stored)",
            v1::WriterMode::WriterReplay as i32,
            v1::WriterMode::WriterContinue as i32,
        ))),
    }
}

/// How many segments to create; 0 and an absent configuration are the default.
pub(super) fn segments(
    config: Option<v1::StreamConfig>,
    default: u32,
) -> Result<u32, ServiceError> {
    match config.map_or(0, |config| config.segments) {
        0 => Ok(default),
        asked if asked as usize <= SEGMENTS_PER_STREAM_MAX => Ok(asked),
        asked => Err(invalid(format!(
            "field `config.segments` is {asked}; a stream has at most {SEGMENTS_PER_STREAM_MAX}, \
             ask for fewer"
        ))),
    }
}

pub(super) fn segment(field: Option<v1::SegmentId>) -> Result<SegmentId, ServiceError> {
    let given = field.map(SegmentId::from);
    given.ok_or_else(|| invalid("field `segment` is missing; give stream id, epoch and number"))
}

/// A cut as it stands in a request: not empty, no segment twice is checked with the stream.
pub(super) fn cut(
    offsets: Vec<v1::SegmentOffset>,
) -> Result<Vec<(SegmentId, Offset)>, ServiceError> {
    if offsets.is_empty() {
        return Err(invalid(
            "field `cut` is empty; give one offset per segment, covering the whole key space, as \
             `braid stream cut` prints it",
        ));
    }
    if offsets.len() > SEGMENTS_PER_STREAM_MAX {
        let count = offsets.len();
        return Err(invalid(format!(
            "field `cut` names {count} segments; a stream has at most {SEGMENTS_PER_STREAM_MAX}"
        )));
    }
    let place = |(at, offset): (usize, v1::SegmentOffset)| {
        let segment = offset.segment.map(SegmentId::from);
        let segment = segment.ok_or_else(|| {
            invalid(format!("field `cut[{at}].segment` is missing; give epoch and number"))
        })?;
        Ok((segment, Offset(offset.offset)))
    };
    offsets.into_iter().enumerate().map(place).collect()
}

/// What a cut is said to cover.
pub(super) fn coverage(field: Option<v1::CutCoverage>) -> Result<CutCoverage, ServiceError> {
    proto::convert::cut_coverage(field).map_err(|error| {
        invalid(format!("{error}; give a range of keys, `segments`, or nothing for all keys"))
    })
}

/// The named writer that asks; `None`: nobody or an anonymous one.
pub(super) fn writer(
    bytes: &[u8],
    epoch: u64,
) -> Result<Option<(WriterId, WriterEpoch)>, ServiceError> {
    if bytes.is_empty() && epoch == 0 {
        return Ok(None);
    }
    let Ok(id) = proto::convert::writer_id(bytes) else {
        return Err(invalid(format!(
            "field `writer` has {} bytes; give the 16 bytes that registering the writer answered, \
             or leave it and `writer_epoch` out",
            bytes.len()
        )));
    };
    if epoch == 0 {
        return Err(invalid(
            "field `writer_epoch` is 0; give the epoch that registering the writer answered",
        ));
    }
    Ok(Some((id, WriterEpoch(epoch))))
}
