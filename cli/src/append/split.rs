//! Cuts input into events without changing a byte of them: lines, or the elements of a JSON array.
//!
//! Sans-IO: bytes are pushed in as they come, events are taken out. At most one unfinished event
//! is kept, and never more than an event may have.

use std::ops::Range;

use common::limits::EVENT_BYTES_MAX;
use memchr::memmem;

use super::json_array::{ArrayScanner, Scan, looks_like_array};

/// How the input is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum InputForm {
    /// The elements of the array where the input is a JSON array, lines otherwise
    Auto,
    /// Each line is an event, whatever is in it
    Lines,
    /// Each element of one JSON array is an event
    JsonArray,
}

/// Why the input cannot be cut any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitError {
    #[error(
        "{noun} {number} is larger than {EVENT_BYTES_MAX} bytes, which is the most an event can \
         have; is the delimiter right?"
    )]
    TooLarge { noun: &'static str, number: u64 },
    #[error("element {number} of the JSON array is not valid JSON: {reason}")]
    BadElement { number: u64, reason: String },
    #[error("the input is not a JSON array: it begins with `{found}`, not with `[`")]
    NotAnArray { found: char },
    #[error(
        "the JSON array has something other than `,` or `]` after element {number}; if each line \
         is an event, use --input lines"
    )]
    NoSeparator { number: u64 },
    #[error("the input ends inside the JSON array, behind element {number}")]
    Unfinished { number: u64 },
    #[error(
        "the input goes on behind the end of the JSON array (element {number}); if each line is \
         an event, use --input lines"
    )]
    Trailing { number: u64 },
}

enum Mode {
    Undecided,
    Lines,
    Array(ArrayScanner),
}

/// The cutter. See the module.
pub(crate) struct Splitter {
    mode: Mode,
    delimiter: memmem::Finder<'static>,
    buffer: Vec<u8>,
    /// Where the next event begins in `buffer`.
    start: usize,
    /// No event ends before this place in `buffer`: what need not be searched again.
    searched: usize,
    ended: bool,
    number: u64,
}

impl Splitter {
    /// Panics when `delimiter` is empty.
    pub(crate) fn new(form: InputForm, delimiter: &[u8]) -> Self {
        assert!(!delimiter.is_empty(), "lines end with something");
        let mode = match form {
            InputForm::Auto => Mode::Undecided,
            InputForm::Lines => Mode::Lines,
            InputForm::JsonArray => Mode::Array(ArrayScanner::new()),
        };
        Self {
            mode,
            delimiter: memmem::Finder::new(delimiter).into_owned(),
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            ended: false,
            number: 0,
        }
    }

    /// More input.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        assert!(!self.ended, "nothing comes after the end");
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The input ends here.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// What an event is called in messages.
    pub(crate) fn noun(&self) -> &'static str {
        if matches!(self.mode, Mode::Array(_)) { "element" } else { "line" }
    }

    /// The next event and its number, counted from 1. `None`: more input is needed, or, after
    /// [`Splitter::end`], there is no more.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, &[u8])>, SplitError> {
        if matches!(self.mode, Mode::Undecided) && !self.decide() {
            return Ok(None);
        }
        let Some(range) = self.find()? else { return Ok(None) };
        self.number += 1;
        if range.len() > EVENT_BYTES_MAX {
            return Err(SplitError::TooLarge { noun: self.noun(), number: self.number });
        }
        Ok(Some((self.number, &self.buffer[range])))
    }

    /// Chooses between lines and array once there is enough to see; says whether it did.
    fn decide(&mut self) -> bool {
        let Some(array) = looks_like_array(&self.buffer, self.ended) else { return false };
        self.mode = if array { Mode::Array(ArrayScanner::new()) } else { Mode::Lines };
        true
    }

    fn find(&mut self) -> Result<Option<Range<usize>>, SplitError> {
        let found = match &mut self.mode {
            Mode::Undecided => return Ok(None),
            Mode::Lines => self.find_line(),
            Mode::Array(scanner) => {
                let scan = scanner.advance(&self.buffer, &mut self.searched, self.ended);
                match scan.map_err(|problem| problem.at(self.number))? {
                    Scan::Element(range) => {
                        self.start = range.end;
                        Some(range)
                    }
                    Scan::Unfinished { from } => {
                        self.start = from;
                        None
                    }
                }
            }
        };
        if found.is_none() && self.buffer.len() - self.start > EVENT_BYTES_MAX {
            return Err(SplitError::TooLarge { noun: self.noun(), number: self.number + 1 });
        }
        Ok(found)
    }

    fn find_line(&mut self) -> Option<Range<usize>> {
        let delimiter_bytes = self.delimiter.needle().len();
        let start = self.start;
        if let Some(at) = self.delimiter.find(&self.buffer[self.searched..]) {
            let end = self.searched + at;
            self.start = end + delimiter_bytes;
            self.searched = self.start;
            return Some(start..end);
        }
        // A delimiter of several bytes may have begun.
        self.searched = start.max(self.buffer.len().saturating_sub(delimiter_bytes - 1));
        if self.ended && start < self.buffer.len() {
            self.start = self.buffer.len();
            self.searched = self.start;
            return Some(start..self.start);
        }
        None
    }
}

#[cfg(test)]
mod tests;
