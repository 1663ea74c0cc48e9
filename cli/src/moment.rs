//! Times as people write them on the command line and inside events.
//!
//! A time without an offset from UTC is taken as UTC: what a command means must not depend on the
//! machine it runs on.

use common::WallTime;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

/// What a time on the command line may look like, for error messages.
const FORMS: &str = "RFC 3339 (`2026-11-22T18:00:00Z`), seconds or milliseconds since 1970 \
                     (`1795370400`), or back from now (`-5m`)";

/// Numbers from here on are milliseconds: as seconds they would be the year 5138.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// A moment on the command line: RFC 3339, epoch seconds or milliseconds, or `-DURATION` before
/// `now`.
pub(crate) fn parse_moment(text: &str, now: WallTime) -> Result<WallTime, String> {
    if let Some(back) = text.strip_prefix('-') {
        let back = humantime::parse_duration(back)
            .map_err(|error| format!("`{text}` is not a time ({error}); write {FORMS}"))?;
        return Ok(WallTime(now.0.saturating_sub(back.as_micros() as u64)));
    }
    let micros =
        parse_absolute(text).ok_or_else(|| format!("`{text}` is not a time; write {FORMS}"))?;
    u64::try_from(micros).map(WallTime).map_err(|_| format!("`{text}` is before 1970"))
}

/// RFC 3339 (UTC where no offset stands), or epoch seconds or milliseconds, possibly with a
/// fraction; microseconds since 1970.
fn parse_absolute(text: &str) -> Option<i64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        let factor = if number >= MILLISECONDS_FROM { 1_000 } else { 1_000_000 };
        return number.checked_mul(factor);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_microsecond());
    }
    let civil: DateTime = text.parse().ok()?;
    micros_in_utc(civil)
}

fn micros_in_utc(civil: DateTime) -> Option<i64> {
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond())
}

/// Microseconds since 1970 as RFC 3339, or the number where no calendar reaches.
pub(crate) fn show_micros(micros: i64) -> String {
    match Timestamp::from_microsecond(micros) {
        Ok(time) => time.to_string(),
        Err(_) => micros.to_string(),
    }
}

/// How the time field of an event is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TimeFormat {
    /// RFC 3339, or epoch seconds or milliseconds by their size.
    Auto,
    Seconds,
    Milliseconds,
    Microseconds,
    /// A `strptime` pattern, for example `%Y/%m/%d %H:%M`.
    Pattern(String),
}

impl std::str::FromStr for TimeFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" | "rfc3339" => Ok(Self::Auto),
            "epoch-s" => Ok(Self::Seconds),
            "epoch-ms" => Ok(Self::Milliseconds),
            "epoch-us" => Ok(Self::Microseconds),
            pattern if pattern.contains('%') => Ok(Self::Pattern(pattern.to_owned())),
            _ => Err("write `rfc3339`, `epoch-s`, `epoch-ms`, `epoch-us`, or a pattern such as \
                      `%Y/%m/%d %H:%M`"
                .to_owned()),
        }
    }
}

impl TimeFormat {
    /// The microseconds since 1970 that the text of a field stands for.
    pub(crate) fn parse(&self, text: &str) -> Option<i64> {
        match self {
            Self::Auto => parse_absolute(text),
            Self::Seconds => scaled(text, 1_000_000),
            Self::Milliseconds => scaled(text, 1_000),
            Self::Microseconds => text.parse().ok(),
            Self::Pattern(pattern) => parse_pattern(pattern, text),
        }
    }
}

/// A decimal number times `factor`, exact to the microsecond.
fn scaled(text: &str, factor: i64) -> Option<i64> {
    if let Ok(whole) = text.parse::<i64>() {
        return whole.checked_mul(factor);
    }
    let value = text.parse::<f64>().ok()? * factor as f64;
    (value.abs() < i64::MAX as f64).then_some(value.round() as i64)
}

fn parse_pattern(pattern: &str, text: &str) -> Option<i64> {
    let parsed = strtime::parse(pattern, text).ok()?;
    if let Ok(time) = parsed.to_timestamp() {
        return Some(time.as_microsecond());
    }
    let civil =
        parsed.to_datetime().or_else(|_| parsed.to_date().map(|date| date.at(0, 0, 0, 0))).ok()?;
    micros_in_utc(civil)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const NOW: WallTime = WallTime(1_795_370_400_000_000);

    #[rstest]
    #[case("2026-11-22T18:00:00Z", 1_795_370_400_000_000)]
    #[case("2026-11-22T19:00:00.5+01:00", 1_795_370_400_500_000)]
    #[case("2026-11-22T18:00:00", 1_795_370_400_000_000)]
    #[case("2026-11-22", 1_795_305_600_000_000)]
    #[case("1795370400", 1_795_370_400_000_000)]
    #[case("1795370400123", 1_795_370_400_123_000)]
    #[case("-5m", 1_795_370_100_000_000)]
    #[case("-1h 30m", 1_795_365_000_000_000)]
    fn a_time_is_understood(#[case] text: &str, #[case] micros: u64) {
        assert_eq!(parse_moment(text, NOW), Ok(WallTime(micros)));
    }

    #[test]
    fn going_back_ends_in_1970() {
        assert_eq!(parse_moment("-9999999d", NOW), Ok(WallTime(0)));
    }

    #[rstest]
    #[case("yesterday")]
    #[case("")]
    #[case("-")]
    #[case("-5 apples")]
    #[case("2026-13-01T00:00:00Z")]
    #[case("99999999999999999999")]
    fn nonsense_is_refused_with_the_forms_that_work(#[case] text: &str) {
        let message = parse_moment(text, NOW).unwrap_err();
        assert!(message.contains("RFC 3339"), "{message}");
    }

    #[rstest]
    #[case("rfc3339", "2001-01-01T00:47:00Z", 978_310_020_000_000)]
    #[case("%Y/%m/%d %H:%M", "2001/01/01 00:47", 978_310_020_000_000)]
    #[case("%Y-%m-%d", "2001-01-01", 978_307_200_000_000)]
    #[case("%Y-%m-%d %H:%M %z", "2001-01-01 01:47 +0100", 978_310_020_000_000)]
    #[case("epoch-s", "978310020.25", 978_310_020_250_000)]
    #[case("epoch-ms", "978310020001", 978_310_020_001_000)]
    #[case("epoch-us", "-5", -5)]
    fn an_event_time_is_understood(#[case] format: &str, #[case] text: &str, #[case] micros: i64) {
        assert_eq!(format.parse::<TimeFormat>().unwrap().parse(text), Some(micros));
    }

    #[test]
    fn an_event_time_that_does_not_fit_its_format_is_none() {
        let format: TimeFormat = "%Y/%m/%d %H:%M".parse().unwrap();
        assert_eq!(format.parse("2001-01-01"), None);
        assert!("unix".parse::<TimeFormat>().is_err());
    }

    #[test]
    fn a_shown_time_is_rfc_3339() {
        assert_eq!(show_micros(978_310_020_000_000), "2001-01-01T00:47:00Z");
        assert_eq!(show_micros(i64::MAX), i64::MAX.to_string());
    }
}
