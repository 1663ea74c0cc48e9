//! Stream cuts: one offset per segment, covering the whole key space, or a part that they name.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::KeyRange;
use crate::ids::{
    Incarnation, Offset, SegmentId, SegmentNumber, StreamEpoch, StreamId, parse_local_segment_name,
};

/// A consistent place in a stream. Text form, fit for a command line:
/// `STREAMID:NUMBER.#EPOCH=OFFSET,…`, for example `1-7:0.#0=128,1.#0=4096`. One that covers only a
/// part says so behind the stream's id: `1-7@LOW-HIGH:…` a range of keys in hexadecimal digits,
/// `1-7@segments:…` the segments that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamCut {
    pub stream: StreamId,
    pub covers: CutCoverage,
    pub offsets: BTreeMap<(StreamEpoch, SegmentNumber), Offset>,
}

/// What of a stream a cut is a place in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CutCoverage {
    /// All of it.
    #[default]
    Everything,
    /// The events whose keys lie in a range.
    Keys(KeyRange),
    /// The segments that the cut names, and nothing that follows them.
    Segments,
}

/// Why a text is not a stream cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a stream cut ({reason}); it looks like `1-7:0.#0=128,1.#0=4096`, as \
     `braid stream cut` prints it"
)]
pub struct StreamCutError {
    text: String,
    reason: &'static str,
}

impl StreamCut {
    /// A cut of the whole stream, which has no segment yet.
    pub fn new(stream: StreamId) -> Self {
        Self::of_part(stream, CutCoverage::Everything)
    }

    /// A cut of a part of the stream, which has no segment yet.
    pub fn of_part(stream: StreamId, covers: CutCoverage) -> Self {
        Self { stream, covers, offsets: BTreeMap::new() }
    }

    pub fn set(&mut self, segment: SegmentId, offset: Offset) {
        assert_eq!(segment.stream, self.stream, "a cut is of one stream");
        self.offsets.insert((segment.epoch, segment.number), offset);
    }

    pub fn get(&self, segment: SegmentId) -> Option<Offset> {
        if segment.stream != self.stream {
            return None;
        }
        self.offsets.get(&(segment.epoch, segment.number)).copied()
    }

    pub fn segments(&self) -> impl Iterator<Item = (SegmentId, Offset)> + '_ {
        self.offsets.iter().map(|((epoch, number), offset)| {
            (SegmentId { stream: self.stream, epoch: *epoch, number: *number }, *offset)
        })
    }
}

/// As it stands behind the stream's id; nothing for all of the stream.
impl fmt::Display for CutCoverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => Ok(()),
            Self::Keys(range) => write!(f, "@{:016x}-{:016x}", range.low(), range.high()),
            Self::Segments => f.write_str("@segments"),
        }
    }
}

impl CutCoverage {
    /// From what stands behind the `@`.
    fn parse(text: &str) -> Option<Self> {
        if text == "segments" {
            return Some(Self::Segments);
        }
        let (low, high) = text.split_once('-')?;
        let number = |text: &str| match text.len() {
            16 => u64::from_str_radix(text, 16).ok(),
            _ => None,
        };
        KeyRange::new(number(low)?, number(high)?).map(Self::Keys)
    }
}

impl fmt::Display for StreamCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}:", self.stream, self.covers)?;
        for (i, (segment, offset)) in self.segments().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}={offset}", segment.local_name())?;
        }
        Ok(())
    }
}

impl FromStr for StreamCut {
    type Err = StreamCutError;

    fn from_str(text: &str) -> Result<Self, StreamCutError> {
        let error = |reason| StreamCutError { text: text.to_owned(), reason };
        let (stream, offsets) = text.split_once(':').ok_or_else(|| error("no `:`"))?;
        let (stream, covers) = match stream.split_once('@') {
            Some((stream, part)) => {
                (stream, CutCoverage::parse(part).ok_or_else(|| error("bad part behind `@`"))?)
            }
            None => (stream, CutCoverage::Everything),
        };
        let (incarnation, counter) = stream.split_once('-').ok_or_else(|| error("no stream id"))?;
        let incarnation: u16 = incarnation.parse().map_err(|_| error("bad stream id"))?;
        let counter: u64 = counter.parse().map_err(|_| error("bad stream id"))?;
        if counter > StreamId::COUNTER_MAX {
            return Err(error("bad stream id"));
        }
        let mut cut = StreamCut::of_part(StreamId::new(Incarnation(incarnation), counter), covers);
        for part in offsets.split(',') {
            let (name, offset) = part.split_once('=').ok_or_else(|| error("no `=`"))?;
            let (number, epoch) =
                parse_local_segment_name(name).ok_or_else(|| error("bad segment"))?;
            let offset = offset.parse().map_err(|_| error("bad offset"))?;
            if cut.offsets.insert((epoch, number), offset).is_some() {
                return Err(error("a segment stands twice"));
            }
        }
        Ok(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_reads_back_from_its_text() {
        for part in ["", "@segments", "@0000000000000000-7fffffffffffffff"] {
            let text = format!("1-7{part}:0.#0=128,1.#0=4096,2.#1=0");
            let cut: StreamCut = text.parse().unwrap();
            assert_eq!(cut.to_string(), text);
            assert_eq!(cut.segments().count(), 3);
        }
        let cut: StreamCut = "1-7@0000000000000001-0000000000000009:0.#0=1".parse().unwrap();
        assert_eq!(cut.covers, CutCoverage::Keys(KeyRange::new(1, 9).unwrap()));
    }

    #[test]
    fn a_malformed_cut_is_refused_with_the_form_it_should_have() {
        let cases = [
            "",
            "1-7",
            "1-7:",
            "x-7:0.#0=1",
            "1-7:0=1",
            "1-7:0.#0=-1",
            "1-7:0.#0=1,0.#0=2",
            "1-7@:0.#0=1",
            "1-7@all:0.#0=1",
            "1-7@0-1:0.#0=1",
            "1-7@0000000000000009-0000000000000001:0.#0=1",
            "70000-1:0.#0=1",
            "1-999999999999999999:0.#0=1",
        ];
        for text in cases {
            let message = text.parse::<StreamCut>().unwrap_err().to_string();
            assert!(message.contains("braid stream cut"), "{text}: {message}");
        }
    }
}
