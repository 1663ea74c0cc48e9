//! How an event looks on standard output.

use std::borrow::Cow;
use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Header, ReadEvent, StoredTime};
use common::WallTime;
use serde::Serialize;

use crate::failure::{Failure, Result, output_failed};
use crate::moment::show_micros;
use crate::output::Format;

/// The form of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// The event's bytes and a newline
    Raw,
    /// One JSON object a line
    Json,
    #[value(skip)]
    Yaml,
    #[value(skip)]
    Line,
}

impl From<Format> for Shape {
    fn from(format: Format) -> Self {
        match format {
            Format::Table => Shape::Line,
            Format::Json => Shape::Json,
            Format::Yaml => Shape::Yaml,
        }
    }
}

/// An event with its place, as JSON and YAML show it.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    key: Option<&'a str>,
    time: Option<String>,
    stored: Option<ShownStored>,
    segment: String,
    offset: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<ShownHeader<'a>>,
    event: Cow<'a, str>,
    /// Says that `event` is not the text itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

/// The server stored the event at one of these moments, or between them.
#[derive(Debug, Serialize)]
struct ShownStored {
    earliest: String,
    latest: String,
}

impl ShownStored {
    fn new(stored: StoredTime) -> Self {
        let show = |time: WallTime| show_micros(i64::try_from(time.0).unwrap_or(i64::MAX));
        Self { earliest: show(stored.earliest), latest: show(stored.latest) }
    }
}

#[derive(Debug, Serialize)]
struct ShownHeader<'a> {
    name: &'a str,
    value: Cow<'a, str>,
    /// As with events.
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

impl<'a> ShownHeader<'a> {
    fn new(header: Header<'a>) -> Self {
        let (value, encoding) = text_of(header.value);
        Self { name: header.name, value, encoding }
    }
}

/// Bytes as text, and how they became text where they are none.
fn text_of(bytes: &[u8]) -> (Cow<'_, str>, Option<&'static str>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Cow::Borrowed(text), None),
        Err(_) => (Cow::Owned(STANDARD.encode(bytes)), Some("base64")),
    }
}

impl<'a> Shown<'a> {
    fn new(event: &'a ReadEvent) -> Self {
        let (text, encoding) = text_of(&event.payload);
        Self {
            key: event.key_text(),
            time: event.time_micros.map(show_micros),
            stored: event.stored.map(ShownStored::new),
            segment: event.segment.local_name(),
            offset: event.offset.0,
            headers: event.headers.iter().map(ShownHeader::new).collect(),
            event: text,
            encoding,
        }
    }
}

impl Shape {
    pub(crate) fn write(self, out: &mut impl Write, event: &ReadEvent) -> Result<()> {
        match self {
            Shape::Raw => out.write_all(&event.payload).map_err(output_failed)?,
            Shape::Json => serde_json::to_writer(&mut *out, &Shown::new(event))?,
            Shape::Yaml => {
                let text = serde_yaml_ng::to_string(&Shown::new(event))
                    .map_err(|error| Failure::general(error.to_string()))?;
                return write!(out, "---\n{text}").map_err(output_failed);
            }
            Shape::Line => {
                let shown = Shown::new(event);
                let (key, time) = (shown.key.unwrap_or("-"), shown.time.as_deref().unwrap_or("-"));
                let Shown { segment, offset, event, .. } = &shown;
                write!(out, "{segment:<8} {offset:>12}  {time:<20}  {key:<12}  {event}")
                    .map_err(output_failed)?;
            }
        }
        out.write_all(b"\n").map_err(output_failed)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use client::Headers;
    use common::{Offset, SegmentId, SegmentNumber};

    use super::*;

    fn event(payload: &'static [u8], key: Option<&'static str>) -> ReadEvent {
        let segment = SegmentId { number: SegmentNumber(3), ..SegmentId::default() };
        let mut event = ReadEvent::new(payload, segment, Offset(128));
        event.key = key.map(|key| Bytes::from_static(key.as_bytes()));
        event.time_micros = key.map(|_| 978_310_020_000_000);
        event
    }

    fn written(shape: Shape, event: &ReadEvent) -> String {
        let mut out = Vec::new();
        shape.write(&mut out, event).unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn raw_is_the_bytes_and_a_newline() {
        assert_eq!(written(Shape::Raw, &event(b"a\tb", None)), "a\tb\n");
    }

    #[test]
    fn json_is_one_object_a_line() {
        assert_eq!(
            written(Shape::Json, &event(b"{\"a\":1}", Some("DTW"))),
            "{\"key\":\"DTW\",\"time\":\"2001-01-01T00:47:00Z\",\"stored\":null,\"segment\":\"3.#0\",\
             \"offset\":128,\"event\":\"{\\\"a\\\":1}\"}\n"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_marked_as_base64() {
        assert_eq!(
            written(Shape::Json, &event(b"\xff\x00", None)),
            "{\"key\":null,\"time\":null,\"stored\":null,\"segment\":\"3.#0\",\"offset\":128,\
             \"event\":\"/wA=\",\"encoding\":\"base64\"}\n"
        );
    }

    #[test]
    fn headers_are_shown_in_order_and_like_payloads() {
        let mut event = event(b"x", None);
        let headers = [Header::new("trace", "7"), Header::new("raw", b"\xff\x00")];
        event.headers = Headers::try_from(&headers[..]).unwrap();
        assert_eq!(
            written(Shape::Json, &event),
            "{\"key\":null,\"time\":null,\"stored\":null,\"segment\":\"3.#0\",\"offset\":128,\
             \"headers\":[\
             {\"name\":\"trace\",\"value\":\"7\"},\
             {\"name\":\"raw\",\"value\":\"/wA=\",\"encoding\":\"base64\"}],\
             \"event\":\"x\"}\n"
        );
        let yaml = written(Shape::Yaml, &event);
        assert!(yaml.contains("- name: trace\n  value: '7'\n"), "{yaml}");
    }

    #[test]
    fn yaml_documents_and_lines_name_the_place() {
        let yaml = written(Shape::Yaml, &event(b"x", Some("k")));
        assert!(yaml.starts_with("---\nkey: k\n") && yaml.contains("offset: 128"), "{yaml}");
        let line = written(Shape::Line, &event(b"x", None));
        assert!(line.starts_with("3.#0") && line.ends_with("  x\n"), "{line}");
    }
}
