//! Takes the routing key and the time out of an event that is a JSON object.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::moment::{TimeFormat, show_micros};

/// Which fields are taken, and how the time is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields {
    pub(crate) key: Option<String>,
    pub(crate) time: Option<(String, TimeFormat)>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    pub(crate) key: Option<Cow<'a, str>>,
    pub(crate) time_micros: Option<i64>,
}

/// Why a field cannot be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FieldError {
    #[error("is not a JSON object, so that it has no field `{field}` ({reason})")]
    NotAnObject { field: String, reason: String },
    #[error("has no field `{field}`")]
    Missing { field: String },
    #[error("has a field `{field}` that is neither text nor a number but `{found}`")]
    BadKind { field: String, found: String },
    #[error(
        "has `{found}` in field `{field}`, which is not a time of the expected form; see \
         --time-format (for example {example})"
    )]
    BadTime { field: String, found: String, example: String },
}

impl Fields {
    /// Whether there is anything to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.key.is_none() && self.time.is_none()
    }

    /// Takes the fields out of `event`. Where a name stands twice, the last one counts.
    pub(crate) fn take<'a>(&self, event: &'a [u8]) -> Result<Found<'a>, FieldError> {
        if self.is_empty() {
            return Ok(Found { key: None, time_micros: None });
        }
        let (raw_key, raw_time) = self.find(event)?;
        let key = match &self.key {
            Some(field) => Some(text_of(field, raw_key)?),
            None => None,
        };
        let time_micros = match &self.time {
            Some((field, format)) => Some(time_of(field, format, &text_of(field, raw_time)?)?),
            None => None,
        };
        Ok(Found { key, time_micros })
    }

    fn find<'a>(&self, event: &'a [u8]) -> Result<Raw<'a>, FieldError> {
        let wanted = Wanted {
            key: self.key.as_deref(),
            time: self.time.as_ref().map(|(field, _)| field.as_str()),
        };
        let mut json = serde_json::Deserializer::from_slice(event);
        let found = wanted.deserialize(&mut json).and_then(|raw| json.end().map(|()| raw));
        found.map_err(|error| FieldError::NotAnObject {
            field: wanted.key.or(wanted.time).unwrap_or_default().to_owned(),
            reason: error.to_string(),
        })
    }
}

/// Text without its quotes, a number or `true` and `false` as written.
fn text_of<'a>(field: &str, raw: Option<&'a RawValue>) -> Result<Cow<'a, str>, FieldError> {
    let raw = raw.ok_or_else(|| FieldError::Missing { field: field.to_owned() })?.get();
    let bad = || FieldError::BadKind { field: field.to_owned(), found: shortened(raw) };
    match raw.as_bytes().first() {
        Some(b'"') if raw.contains('\\') => {
            serde_json::from_str::<String>(raw).map(Cow::Owned).map_err(|_| bad())
        }
        Some(b'"') => Ok(Cow::Borrowed(&raw[1..raw.len() - 1])),
        Some(b'{' | b'[' | b'n') | None => Err(bad()),
        Some(_) => Ok(Cow::Borrowed(raw)),
    }
}

fn time_of(field: &str, format: &TimeFormat, text: &str) -> Result<i64, FieldError> {
    format.parse(text).ok_or_else(|| FieldError::BadTime {
        field: field.to_owned(),
        found: shortened(text),
        example: match format {
            TimeFormat::Auto => show_micros(1_795_370_400_000_000),
            TimeFormat::Seconds => "1795370400".to_owned(),
            TimeFormat::Milliseconds => "1795370400000".to_owned(),
            TimeFormat::Microseconds => "1795370400000000".to_owned(),
            TimeFormat::Pattern(pattern) => format!("what `{pattern}` describes"),
        },
    })
}

fn shortened(text: &str) -> String {
    const SHOWN_CHARS: usize = 40;
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

type Raw<'a> = (Option<&'a RawValue>, Option<&'a RawValue>);

/// Reads an object and keeps only the wanted fields, unparsed.
#[derive(Clone, Copy)]
struct Wanted<'w> {
    key: Option<&'w str>,
    time: Option<&'w str>,
}

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Raw<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Raw<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw<'de>, A::Error> {
        let (mut key, mut time) = (None, None);
        while let Some(name) = map.next_key_seed(FieldName)? {
            let name = Some(&*name);
            if name == self.key || name == self.time {
                let value: &RawValue = map.next_value()?;
                key = if name == self.key { Some(value) } else { key };
                time = if name == self.time { Some(value) } else { time };
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok((key, time))
    }
}

/// A field's name, borrowed where it has no escapes.
struct FieldName;

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for FieldName {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn by_key(field: &str) -> Fields {
        Fields { key: Some(field.to_owned()), time: None }
    }

    #[rstest]
    #[case(r#"{"origin":"DTW"}"#, "DTW")]
    #[case(r#" {"a":{"origin":"no"},"origin" : "a\"b\u00fc" } "#, "a\"bü")]
    #[case(r#"{"orig\u0069n":"DTW"}"#, "DTW")]
    #[case(r#"{"origin":42}"#, "42")]
    #[case(r#"{"origin":1.50}"#, "1.50")]
    #[case(r#"{"origin":true}"#, "true")]
    #[case(r#"{"origin":""}"#, "")]
    #[case(r#"{"origin":"first","origin":"last"}"#, "last")]
    fn the_key_is_the_field_without_quotes(#[case] event: &str, #[case] key: &str) {
        assert_eq!(by_key("origin").take(event.as_bytes()).unwrap().key.as_deref(), Some(key));
    }

    #[rstest]
    #[case("", "is not a JSON object")]
    #[case("plain text", "is not a JSON object")]
    #[case("[1]", "is not a JSON object")]
    #[case(r#"{"origin":"x"} tail"#, "is not a JSON object")]
    #[case(r#"{"origin":"x""#, "is not a JSON object")]
    #[case(r#"{"other":1}"#, "has no field `origin`")]
    #[case(r#"{"origin":null}"#, "neither text nor a number but `null`")]
    #[case(r#"{"origin":{"a":1}}"#, "neither text nor a number")]
    fn an_event_without_the_field_is_refused(#[case] event: &str, #[case] expected: &str) {
        let message = by_key("origin").take(event.as_bytes()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn key_and_time_may_be_the_same_field() {
        let fields = Fields {
            key: Some("at".to_owned()),
            time: Some(("at".to_owned(), TimeFormat::Seconds)),
        };
        let found = fields.take(br#"{"at":7}"#).unwrap();
        assert_eq!(found, Found { key: Some("7".into()), time_micros: Some(7_000_000) });
    }

    #[test]
    fn a_time_of_another_form_is_refused_with_the_option_to_set() {
        let fields = Fields { key: None, time: Some(("at".to_owned(), TimeFormat::Auto)) };
        let message = fields.take(br#"{"at":"1.1.2001"}"#).unwrap_err().to_string();
        assert!(message.contains("--time-format"), "{message}");
    }
}
