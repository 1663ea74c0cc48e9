//! `braid segment`: the parts of a stream, one by one.

use std::io::Write as _;
use std::str::FromStr;

use bytes::Bytes;
use client::{Client, ReadEvent, SegmentInfo, SegmentPlace, SegmentSet};
use common::ids::parse_local_segment_name;
use common::{Offset, ScopedStream, SegmentId, SegmentNumber, StreamEpoch};
use serde::Serialize;

use crate::failure::{Exit, Failure, Result, output_failed};
use crate::moment::show_micros;
use crate::noun::Noun;
use crate::output::{self, Row, bytes_text};
use crate::read::shape::Shape;
use crate::signals::Interrupts;

/// Look at the segments of a stream
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  braid segment list demo/flights
  braid segment describe demo/flights/0.#0
  braid segment read demo/flights/0.#0 --offset 4096 > bytes
  braid segment read demo/flights/0.#0 --events

A segment is named SCOPE/STREAM/NUMBER.#EPOCH, where EPOCH is the stream epoch that created it.")]
pub(crate) struct Args {
    #[command(flatten)]
    noun: Noun<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the segments of a stream
    List {
        #[arg(value_name = "SCOPE/STREAM")]
        stream: ScopedStream,
        /// Which: those that take events, those at the head, or those at the tail
        #[arg(long, value_enum, default_value_t = Set::Tail)]
        set: Set,
    },
    /// Show one segment
    Describe {
        #[arg(value_name = "SCOPE/STREAM/NUMBER.#EPOCH")]
        segment: SegmentName,
    },
    /// Write the raw bytes of a segment, as they are stored, to standard output
    Read {
        #[arg(value_name = "SCOPE/STREAM/NUMBER.#EPOCH")]
        segment: SegmentName,
        /// Where to begin [default: the first readable byte]
        #[arg(long, value_name = "BYTES")]
        offset: Option<Offset>,
        /// Where to end [default: where the segment ends now]
        #[arg(long, value_name = "BYTES")]
        end: Option<Offset>,
        /// One JSON object for each event instead of raw bytes; --offset must be where one begins
        #[arg(long)]
        events: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Set {
    Active,
    Head,
    Tail,
}

/// A segment as people write it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SegmentName {
    stream: ScopedStream,
    number: SegmentNumber,
    epoch: StreamEpoch,
}

impl FromStr for SegmentName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "it looks like `demo/flights/0.#0`, as `braid segment list` prints it";
        let bad = || format!("`{text}` is not a segment; {form}");
        let (stream, local) = text.rsplit_once('/').ok_or_else(bad)?;
        let (number, epoch) = parse_local_segment_name(local).ok_or_else(bad)?;
        let stream = stream.parse().map_err(|error| format!("{error}; {form}"))?;
        Ok(Self { stream, number, epoch })
    }
}

#[derive(Debug, Serialize)]
struct SegmentRow {
    segment: String,
    range: String,
    start_offset: u64,
    length: u64,
    sealed: bool,
    container: u64,
    writers: u64,
    bytes_in_log: u64,
    oldest: Option<String>,
    newest: Option<String>,
}

impl SegmentRow {
    fn new(stream: &ScopedStream, place: &SegmentPlace, info: &SegmentInfo) -> Self {
        let time = |micros: u64| {
            (micros > 0).then(|| show_micros(i64::try_from(micros).unwrap_or(i64::MAX)))
        };
        Self {
            segment: format!("{stream}/{}", place.segment.local_name()),
            range: place.range.to_string(),
            start_offset: info.start_offset.0,
            length: info.length.0,
            sealed: info.sealed,
            container: place.container.0,
            writers: info.writers,
            bytes_in_log: info.log_bytes,
            oldest: time(info.oldest_micros),
            newest: time(info.newest_micros),
        }
    }
}

impl Row for SegmentRow {
    const COLUMNS: &'static [&'static str] = &[
        "segment",
        "range",
        "start",
        "length",
        "sealed",
        "container",
        "writers",
        "in_log",
        "oldest",
        "newest",
    ];

    fn cells(&self) -> Vec<String> {
        let or_none = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            self.segment.clone(),
            self.range.clone(),
            self.start_offset.to_string(),
            self.length.to_string(),
            if self.sealed { "yes" } else { "no" }.to_owned(),
            self.container.to_string(),
            self.writers.to_string(),
            bytes_text(self.bytes_in_log),
            or_none(&self.oldest),
            or_none(&self.newest),
        ]
    }
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let Noun { verb, connect, output } = &args.noun;
    let format = output.output;
    let client = connect.open().await?;
    match verb {
        Verb::List { stream, set } => {
            let set = match set {
                Set::Active => SegmentSet::Active,
                Set::Head => SegmentSet::Head,
                Set::Tail => SegmentSet::Tail,
            };
            let places = client.streams().segments(stream, set).await?.segments;
            let infos = client.streams().segment_infos(&places).await?;
            let pairs = places.iter().zip(&infos);
            let rows: Vec<_> =
                pairs.map(|(place, info)| SegmentRow::new(stream, place, info)).collect();
            output::print_list(format, &rows)
        }
        Verb::Describe { segment } => {
            let (place, info) = find(&client, segment).await?;
            output::print_one(format, &SegmentRow::new(&segment.stream, &place, &info))
        }
        Verb::Read { segment, offset, end, events } => {
            let (place, info) = find(&client, segment).await?;
            let from = offset.unwrap_or(info.start_offset);
            let until = end.unwrap_or(info.length);
            if until > info.length || from > until {
                return Err(Failure::usage(format!(
                    "bytes {from} to {until} are not in the segment; it has {} to {}",
                    info.start_offset, info.length
                )));
            }
            let mut out =
                BytesOut { events: *events, segment: place.segment, rest: Bytes::new(), at: from };
            read(&client, &place, from, until, &mut out).await
        }
    }
}

async fn find(client: &Client, name: &SegmentName) -> Result<(SegmentPlace, SegmentInfo)> {
    let streams = client.streams();
    let stream = streams.describe(&name.stream).await?.summary.id;
    let id = SegmentId { stream, epoch: name.epoch, number: name.number };
    let places = streams.locate(&[id]).await?;
    let infos = streams.segment_infos(&places).await?;
    places.into_iter().zip(infos).next().ok_or_else(|| {
        let SegmentName { stream, number, epoch } = name;
        let message = format!(
            "stream `{stream}` has no segment `{number}.#{epoch}`; `braid segment list {stream}` \
             shows which it has"
        );
        Failure::new(Exit::NotFound, message)
    })
}

async fn read(
    client: &Client,
    place: &SegmentPlace,
    from: Offset,
    until: Offset,
    out: &mut BytesOut,
) -> Result<()> {
    let mut interrupts = Interrupts::listen()?;
    let mut stdout = std::io::stdout().lock();
    let mut reader = client.segment_reader(place, from).until(Some(until));
    while out.at < until {
        let bytes = tokio::select! {
            biased;
            () = interrupts.next() => break,
            bytes = reader.next() => bytes?,
        };
        let Some(bytes) = bytes else { break };
        out.write(&mut stdout, bytes.data)?;
    }
    stdout.flush().map_err(output_failed)
}

/// Raw bytes, or the events in them.
struct BytesOut {
    events: bool,
    segment: SegmentId,
    /// An event that is not complete yet.
    rest: Bytes,
    /// Where `rest` begins.
    at: Offset,
}

impl BytesOut {
    fn write(&mut self, out: &mut impl std::io::Write, data: Bytes) -> Result<()> {
        if !self.events {
            self.at = self.at.plus(data.len() as u64);
            return out.write_all(&data).map_err(output_failed);
        }
        self.rest =
            if self.rest.is_empty() { data } else { [&self.rest[..], &data[..]].concat().into() };
        loop {
            let taken = ReadEvent::take(&mut self.rest, self.segment, self.at).map_err(|error| {
                Failure::general(format!(
                    "no event begins at offset {} ({error}); begin where one does, for example at \
                     an offset that `braid read --format json` shows",
                    self.at
                ))
            })?;
            let Some(event) = taken else { return Ok(()) };
            Shape::Json.write(out, &event)?;
            self.at = event.next_offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proto::framing::EventRef;

    use super::*;

    #[test]
    fn a_segment_name_is_understood() {
        let name: SegmentName = "demo/flights/7.#2".parse().unwrap();
        assert_eq!(name.stream.to_string(), "demo/flights");
        assert_eq!((name.number, name.epoch), (SegmentNumber(7), StreamEpoch(2)));
        for text in ["", "demo/flights", "demo/flights/7", "flights/7.#2", "a/b/c/7.#2"] {
            let message = text.parse::<SegmentName>().unwrap_err();
            assert!(message.contains("braid segment list"), "{text}: {message}");
        }
    }

    #[test]
    fn events_are_found_in_bytes_however_they_arrive() {
        let mut stored = BytesMut::new();
        for payload in [b"one".as_slice(), b"two"] {
            EventRef { key: Some("k"), ..EventRef::new(payload) }.frame_into(&mut stored).unwrap();
        }
        let whole = stored.len() as u64;
        let mut out = BytesOut {
            events: true,
            segment: SegmentId::default(),
            rest: Bytes::new(),
            at: Offset(0),
        };
        let mut written = Vec::new();
        for byte in stored.freeze() {
            out.write(&mut written, Bytes::copy_from_slice(&[byte])).unwrap();
        }
        let text = String::from_utf8(written).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("\"event\":\"two\""), "{text}");
        assert_eq!(out.at, Offset(whole));
    }
}
