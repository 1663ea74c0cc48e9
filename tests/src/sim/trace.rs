//! The trace of a run as a rolling hash, so that two runs of a seed are compared by one number.

use std::fmt;

use xxhash_rust::xxh3::Xxh3;

/// Collects what happened. Equal hashes mean equal runs.
pub(super) struct Trace {
    hash: Xxh3,
    lines: u64,
    print: bool,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({} lines, {:016x})", self.lines, self.hash())
    }
}

impl Trace {
    /// With `print`, every line goes to standard error as well.
    pub(super) fn new(print: bool) -> Self {
        Self { hash: Xxh3::new(), lines: 0, print }
    }

    #[expect(clippy::print_stderr, reason = "asked for on the command line")]
    pub(super) fn line(&mut self, at: u64, what: fmt::Arguments<'_>) {
        let text = what.to_string();
        self.hash.update(&at.to_le_bytes());
        self.hash.update(text.as_bytes());
        self.lines += 1;
        if self.print {
            eprintln!("{at:>12} {text}");
        }
    }

    /// Bytes that are too many to print.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.digest()
    }

    pub(super) fn lines(&self) -> u64 {
        self.lines
    }
}
