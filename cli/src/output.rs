//! What commands print: results on standard output as a table, JSON or YAML; remarks on standard
//! error.
//!
//! Nothing here panics on a closed pipe: a failed write of a result ends the command (silently for
//! a closed pipe), a failed write of a remark is ignored.

use std::fmt;
use std::io::{IsTerminal as _, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::{Failure, Result, output_failed};

/// The form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
}

/// The choice that every verb offers.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct OutputArgs {
    /// The form in which the result is printed
    #[arg(short, long, value_enum, default_value_t = Format::Table, global = true)]
    pub(crate) output: Format,
}

/// A result that can stand in a table. JSON and YAML show the serialised value instead.
pub(crate) trait Row: Serialize {
    const COLUMNS: &'static [&'static str];
    /// As many as there are columns.
    fn cells(&self) -> Vec<String>;
}

/// Prints a list: a table with one row for each, or an array.
pub(crate) fn print_list<T: Row>(format: Format, rows: &[T]) -> Result<()> {
    let text = match format {
        Format::Table => table(T::COLUMNS, &rows.iter().map(Row::cells).collect::<Vec<_>>()),
        Format::Json => json(rows)?,
        Format::Yaml => yaml(rows)?,
    };
    print(&text)
}

/// Prints one thing: a table with a row for each of its properties, or an object.
pub(crate) fn print_one<T: Row>(format: Format, value: &T) -> Result<()> {
    let text = match format {
        Format::Table => {
            let pairs = T::COLUMNS.iter().zip(value.cells());
            pairs_text(&pairs.map(|(name, cell)| ((*name).to_owned(), cell)).collect::<Vec<_>>())
        }
        Format::Json => json(value)?,
        Format::Yaml => yaml(value)?,
    };
    print(&text)
}

/// Prints the sentence `done` for people, the value for programs.
pub(crate) fn print_done(format: Format, done: &str, value: &impl Serialize) -> Result<()> {
    match format {
        Format::Table => print(&format!("{done}\n")),
        Format::Json => print(&json(value)?),
        Format::Yaml => print(&yaml(value)?),
    }
}

/// Writes `text` as it is to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(output_failed)
}

/// Writes a line to standard error.
pub(crate) fn note(line: fmt::Arguments<'_>) {
    // Standard error gone means that nobody wants to know.
    let _ = writeln!(std::io::stderr().lock(), "braid: {line}");
}

/// Whether progress has someone to look at it.
pub(crate) fn progress_is_seen() -> bool {
    std::io::stderr().is_terminal()
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn yaml<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_yaml_ng::to_string(value).map_err(|error| Failure::general(error.to_string()))
}

/// Columns as wide as their widest cell, two spaces apart, no trailing spaces. A single column
/// needs no header: it is a list, fit for a pipe.
fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = columns.iter().map(|name| name.to_uppercase()).collect();
    let lines = Some(&header).filter(|_| columns.len() > 1).into_iter().chain(rows);
    let mut widths = vec![0; columns.len()];
    for line in lines.clone() {
        assert_eq!(line.len(), columns.len(), "a row has a cell for each column");
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines {
        let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// One property a line, values aligned.
pub(crate) fn pairs_text(pairs: &[(String, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, value): &(String, String)| {
        format!("{:<width$}  {value}", name.replace('_', " ")).trim_end().to_owned() + "\n"
    };
    pairs.iter().map(line).collect()
}

/// Bytes as people read them: three significant digits.
pub(crate) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `1 event`, `2 events`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["demo".into(), "1".into()], vec!["größe".into(), "22".into()]];
        assert_eq!(table(&["name", "n"], &rows), "NAME   N\ndemo   1\ngröße  22\n");
    }

    #[test]
    fn an_empty_list_is_still_a_table_with_a_header() {
        assert_eq!(table(&["name", "n"], &[]), "NAME  N\n");
        assert_eq!(table(&["name"], &[vec!["a".into()]]), "a\n", "but not of one column");
    }

    #[test]
    fn properties_are_aligned_and_read_as_words() {
        let pairs = [("a".to_owned(), "1".to_owned()), ("log_bytes".to_owned(), "2".to_owned())];
        assert_eq!(pairs_text(&pairs), "a          1\nlog bytes  2\n");
    }

    #[test]
    fn bytes_keep_three_digits() {
        let cases = [(0, "0 B"), (999, "999 B"), (1_000, "1.00 kB"), (999_499, "999 kB")];
        for (bytes, text) in cases.into_iter().chain([
            (999_500, "1.00 MB"),
            (12_345_678, "12.3 MB"),
            (u64::MAX, "18447 PB"),
        ]) {
            assert_eq!(bytes_text(bytes), text);
        }
    }
}
