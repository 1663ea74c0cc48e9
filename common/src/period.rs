//! Durations as people write them: `"10s"`, `"1m 30s"`, `"250ms"`.

use std::time::Duration;

/// A duration in settings, as people write it: `"10s"`, `"1m 30s"`, `"250ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Period(pub Duration);

impl Period {
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl serde::Serialize for Period {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> serde::Deserialize<'de> for Period {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Period).map_err(|_| {
            serde::de::Error::custom(format!(
                "`{text}` is not a duration; write a number with a unit, for example `10s`"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back_and_nonsense_is_refused_with_an_example() {
        for period in [Period::seconds(90), Period::millis(250), Period::seconds(0)] {
            let text = serde_json::to_string(&period).unwrap();
            assert_eq!(serde_json::from_str::<Period>(&text).unwrap(), period, "{text}");
        }
        let error = serde_json::from_str::<Period>("\"10\"").unwrap_err().to_string();
        assert!(error.contains("`10s`"), "{error}");
    }
}
