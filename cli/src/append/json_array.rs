//! Finds the elements of a JSON array in a stream of bytes, each with its exact bytes.
//!
//! The scanner only looks for where an element ends; whether it is valid JSON is asked of
//! `serde_json` once it is complete, so that both agree with every other program.

use std::ops::Range;

use common::limits::KIB;
use memchr::{memchr, memchr2};
use serde::de::IgnoredAny;

use super::split::SplitError;

/// What a look at the buffer found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// The next element lies here.
    Element(Range<usize>),
    /// No element is complete; bytes before `from` are not needed any more.
    Unfinished { from: usize },
}

/// What is wrong; the splitter adds the number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    BadElement(String),
    NotAnArray(char),
    NoSeparator,
    Unfinished,
    Trailing,
}

impl Problem {
    /// The error, after `number` elements have been taken.
    pub(crate) fn at(self, number: u64) -> SplitError {
        match self {
            Problem::BadElement(reason) => SplitError::BadElement { number: number + 1, reason },
            Problem::NotAnArray(found) => SplitError::NotAnArray { found },
            Problem::NoSeparator => SplitError::NoSeparator { number },
            Problem::Unfinished => SplitError::Unfinished { number },
            Problem::Trailing => SplitError::Trailing { number },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before `[`.
    Outside,
    /// Behind `[`: an element or `]`.
    First,
    /// Behind `,`: an element.
    Next,
    /// Inside an element.
    Inside { start: usize, depth: usize, text: Option<Text> },
    /// Behind an element: `,` or `]`.
    Behind,
    /// Behind `]`.
    Done,
}

/// Inside a string, where brackets and commas mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Text {
    /// The last byte was a backslash that escapes the next one.
    escaped: bool,
}

impl Text {
    /// Moves `at` on; says whether it is behind the closing quote now.
    fn advance(&mut self, buffer: &[u8], at: &mut usize) -> bool {
        if self.escaped {
            self.escaped = false;
            *at += 1;
            return false;
        }
        let Some(skip) = memchr2(b'"', b'\\', &buffer[*at..]) else {
            *at = buffer.len();
            return false;
        };
        let closed = buffer[*at + skip] == b'"';
        self.escaped = !closed;
        *at += skip + 1;
        closed
    }
}

/// Where the scan stands. Element starts are kept relative to the place reached, so that the
/// caller may drop what lies before `Unfinished::from`.
#[derive(Debug)]
pub(crate) struct ArrayScanner {
    state: State,
    /// Bytes of the unfinished element that lie before the place reached.
    element_bytes: usize,
}

impl ArrayScanner {
    pub(crate) fn new() -> Self {
        Self { state: State::Outside, element_bytes: 0 }
    }

    /// Goes on at `at`, which is moved to where the next look begins.
    pub(crate) fn advance(
        &mut self,
        buffer: &[u8],
        at: &mut usize,
        ended: bool,
    ) -> Result<Scan, Problem> {
        if let State::Inside { start, .. } = &mut self.state {
            *start = *at - self.element_bytes;
        }
        while *at < buffer.len() {
            if let Some(element) = self.step(buffer, at)? {
                return checked(buffer, element);
            }
        }
        if ended {
            return self.at_end(buffer);
        }
        let from = match self.state {
            State::Inside { start, .. } => start,
            _ => *at,
        };
        self.element_bytes = *at - from;
        Ok(Scan::Unfinished { from })
    }

    /// Takes one byte or a run of them; gives the element that ended there.
    fn step(&mut self, buffer: &[u8], at: &mut usize) -> Result<Option<Range<usize>>, Problem> {
        let byte = buffer[*at];
        if let State::Inside { .. } = self.state {
            return Ok(self.step_inside(buffer, at));
        }
        if byte.is_ascii_whitespace() {
            *at += 1;
            return Ok(None);
        }
        self.state = match (self.state, byte) {
            (State::Outside, b'[') => State::First,
            (State::Outside, other) => return Err(Problem::NotAnArray(char::from(other))),
            (State::First, b']') | (State::Behind, b']') => State::Done,
            (State::First | State::Next, _) => {
                self.state = State::Inside { start: *at, depth: 0, text: None };
                return Ok(None);
            }
            (State::Behind, b',') => State::Next,
            (State::Behind, _) => return Err(Problem::NoSeparator),
            (State::Done, _) => return Err(Problem::Trailing),
            (State::Inside { .. }, _) => return Ok(None),
        };
        *at += 1;
        Ok(None)
    }

    fn step_inside(&mut self, buffer: &[u8], at: &mut usize) -> Option<Range<usize>> {
        let State::Inside { start, depth, text } = &mut self.state else { return None };
        let start = *start;
        let ends = match text {
            Some(inside) => {
                let closed = inside.advance(buffer, at);
                if closed {
                    *text = None;
                }
                closed && *depth == 0
            }
            None => match buffer[*at] {
                // What ends a number or a word is not part of it.
                b',' | b']' | b'}' if *depth == 0 => return Some(self.element(start, *at)),
                byte if *depth == 0 && byte.is_ascii_whitespace() => {
                    return Some(self.element(start, *at));
                }
                byte => {
                    *at += 1;
                    match byte {
                        b'"' => *text = Some(Text { escaped: false }),
                        b'{' | b'[' => *depth += 1,
                        b'}' | b']' => *depth -= 1,
                        _ => {}
                    }
                    *depth == 0 && matches!(byte, b'}' | b']')
                }
            },
        };
        ends.then(|| self.element(start, *at))
    }

    fn element(&mut self, start: usize, end: usize) -> Range<usize> {
        self.state = State::Behind;
        start..end
    }

    fn at_end(&self, buffer: &[u8]) -> Result<Scan, Problem> {
        match self.state {
            State::Done => Ok(Scan::Unfinished { from: buffer.len() }),
            _ => Err(Problem::Unfinished),
        }
    }
}

fn checked(buffer: &[u8], element: Range<usize>) -> Result<Scan, Problem> {
    match serde_json::from_slice::<IgnoredAny>(&buffer[element.clone()]) {
        Ok(IgnoredAny) => Ok(Scan::Element(element)),
        Err(error) => Err(Problem::BadElement(error.to_string())),
    }
}

/// How much of a first line is looked at before it is decided what the input is.
const WINDOW_BYTES: usize = 64 * KIB;

/// Whether the input that begins with `buffer` is one JSON array; `None` while too little of it is
/// known. A first line that is an array in itself, with more behind it, is a line like the others
/// that follow it. So is one that merely begins with a bracket, as lines of log files do; but
/// behind an object as the first element it is an array, if a broken one.
pub(crate) fn looks_like_array(buffer: &[u8], ended: bool) -> Option<bool> {
    let Some(first) = buffer.iter().position(|byte| !byte.is_ascii_whitespace()) else {
        return ended.then_some(false);
    };
    if buffer[first] != b'[' {
        return Some(false);
    }
    let line_end = memchr(b'\n', &buffer[first..]).map(|at| first + at + 1);
    if line_end.is_none() && !ended && buffer.len() - first < WINDOW_BYTES {
        return None;
    }
    let (line, rest) = buffer[first..].split_at(line_end.unwrap_or(buffer.len()) - first);
    let (mut scanner, mut at) = (ArrayScanner::new(), 0);
    let mut objects = false;
    loop {
        match scanner.advance(line, &mut at, false) {
            Err(Problem::BadElement(_) | Problem::NoSeparator) => return Some(objects),
            Err(_) => return Some(false),
            Ok(Scan::Element(element)) => objects |= line[element.start] == b'{',
            Ok(Scan::Unfinished { .. }) => break,
        }
    }
    let line_is_array = scanner.state == State::Done;
    Some(!line_is_array || rest.iter().all(u8::is_ascii_whitespace))
}
