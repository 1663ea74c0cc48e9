//! What clients did and saw, in one format for every kind of test.
//!
//! JSON lines: each operation has an `invoke` line and at most one line that ends it. `ok` carries
//! what was answered; `fail` says that it certainly did not happen; `unknown`, or no end at all,
//! that it may have happened once at any time after its invocation, or never.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};

/// One line. `at` orders lines: of two lines with the same `at` neither came first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds, virtual or real.
    pub at: u64,
    pub process: u32,
    pub op: u64,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum What {
    Invoke { operation: Operation },
    Ok { answer: Answer },
    Fail { reason: String },
    Unknown,
}

/// A segment for the checker: streams and segments are numbered in order of creation, and a stream
/// that is deleted and created again has a new number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentRef {
    pub stream: u32,
    pub segment: u32,
}

/// A key goes on in another segment of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    pub key: u32,
    pub from: u32,
    pub to: u32,
}

/// An event as it was given to a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventRef {
    pub number: u64,
    pub key: u32,
}

/// An event as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seen {
    pub offset: u64,
    pub writer: u32,
    pub number: u64,
    pub key: u32,
    /// Framing and checksum of the payload are right.
    pub intact: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Operation {
    /// One event, or several of one key as one atomic batch, to a segment or to those that go on
    /// with the key.
    Append {
        segment: SegmentRef,
        writer: u32,
        events: Vec<EventRef>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected_offset: Option<u64>,
    },
    /// Of one segment, from an offset on.
    Read {
        segment: SegmentRef,
        from: u64,
        /// Read after everything has settled: what is not in it is not stored.
        #[serde(default)]
        last: bool,
    },
    Seal {
        stream: u32,
    },
    /// Segments of a stream end, and others go on with their keys.
    Scale {
        stream: u32,
        moved: Vec<Moved>,
    },
    Truncate {
        segment: SegmentRef,
        offset: u64,
    },
    Delete {
        stream: u32,
    },
    /// The machine that had the segment was lost and made anew from long-term storage. The segment
    /// begins again with what was archived: everything that was acknowledged before `until`, and
    /// nothing that was begun after it. Of what was acknowledged later an end may be missing.
    Recover {
        segment: SegmentRef,
        until: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Answer {
    Done,
    Read {
        /// The first readable offset when the read began.
        start: u64,
        /// Everything from `max(from, start)` to here is in `events`.
        next: u64,
        /// `next` was the segment's length at some moment of the read.
        at_tail: bool,
        events: Vec<Seen>,
    },
}

/// A history that is being recorded.
#[derive(Debug, Default)]
pub struct Recorder {
    lines: Vec<Line>,
    next_op: u64,
}

impl Recorder {
    pub fn invoke(&mut self, at: u64, process: u32, operation: Operation) -> u64 {
        let op = self.next_op;
        self.next_op += 1;
        self.lines.push(Line { at, process, op, what: What::Invoke { operation } });
        op
    }

    pub fn end(&mut self, at: u64, process: u32, op: u64, what: What) {
        self.lines.push(Line { at, process, op, what });
    }

    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    pub fn into_lines(self) -> Vec<Line> {
        self.lines
    }
}

/// Writes a history as JSON lines.
pub fn write_lines(lines: &[Line], mut out: impl Write) -> anyhow::Result<()> {
    for line in lines {
        serde_json::to_writer(&mut out, line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads a history from JSON lines.
pub fn read_lines(input: impl BufRead) -> anyhow::Result<Vec<Line>> {
    input.lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_reads_back_from_its_lines() {
        let segment = SegmentRef { stream: 1, segment: 0 };
        let mut recorder = Recorder::default();
        let events = vec![EventRef { number: 1, key: 7 }];
        let append = Operation::Append { segment, writer: 3, events, expected_offset: Some(0) };
        let op = recorder.invoke(10, 1, append);
        recorder.end(20, 1, op, What::Ok { answer: Answer::Done });
        let op = recorder.invoke(30, 2, Operation::Read { segment, from: 0, last: true });
        let seen = Seen { offset: 0, writer: 3, number: 1, key: 7, intact: true };
        let answer = Answer::Read { start: 0, next: 40, at_tail: true, events: vec![seen] };
        recorder.end(31, 2, op, What::Ok { answer });
        let op = recorder.invoke(32, 2, Operation::Seal { stream: 1 });
        recorder.end(33, 2, op, What::Fail { reason: "STREAM_NOT_FOUND".to_owned() });
        let moved = vec![Moved { key: 7, from: 0, to: 1 }];
        let op = recorder.invoke(34, 2, Operation::Scale { stream: 1, moved });
        recorder.end(35, 2, op, What::Unknown);

        let mut text = Vec::new();
        write_lines(recorder.lines(), &mut text).unwrap();
        assert_eq!(read_lines(text.as_slice()).unwrap(), recorder.lines());
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 8);
    }
}
