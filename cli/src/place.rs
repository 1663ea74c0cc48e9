//! Places in a stream as people name them: its ends, a stream cut, a time.

use std::str::FromStr;

use common::{Clock as _, StreamCut, SystemClock, WallTime};

use crate::moment::{parse_moment, show_micros};

/// A place in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Head,
    Tail,
    Cut(StreamCut),
    /// Where the first event stored at or after this time lies, or an earlier event close to it.
    Time(WallTime),
}

impl Place {
    /// The time, as text, if it has not come yet.
    pub(crate) fn in_the_future(&self) -> Option<String> {
        let Place::Time(time) = self else { return None };
        let future = *time > SystemClock::new().wall();
        future.then(|| show_micros(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "head" => Ok(Place::Head),
            "tail" => Ok(Place::Tail),
            cut if cut.contains(['=', '#']) => {
                cut.parse().map(Place::Cut).map_err(|error| format!("{error}"))
            }
            time => parse_moment(time, SystemClock::new().wall())
                .map(Place::Time)
                .map_err(|error| format!("{error}; or `head`, `tail`, or a stream cut")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_place_is_told_apart() {
        assert_eq!("head".parse(), Ok(Place::Head));
        assert_eq!("tail".parse(), Ok(Place::Tail));
        assert!(matches!("1-7:0.#0=128".parse(), Ok(Place::Cut(_))));
        assert!(matches!("2026-11-22T18:00:00Z".parse(), Ok(Place::Time(_))));
        assert!(matches!("-5m".parse(), Ok(Place::Time(_))));
    }

    #[test]
    fn a_malformed_place_is_refused_with_the_form_it_resembles() {
        let cut = "1-7:0.#0".parse::<Place>().unwrap_err();
        assert!(cut.contains("braid stream cut"), "{cut}");
        let other = "middle".parse::<Place>().unwrap_err();
        assert!(other.contains("`head`") && other.contains("RFC 3339"), "{other}");
    }
}
