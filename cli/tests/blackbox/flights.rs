//! Input for tests: 20 000 flights as one JSON array, drawn from one seed, the same bytes for ever.
//!
//! A few busy airports have most of the flights, as routing keys have it; the times ascend.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use common::Rng;
use serde_json::value::RawValue;
use tempfile::NamedTempFile;

pub const FLIGHTS: usize = 20_000;
const MINUTES_APART: u64 = 90 * 24 * 60 / FLIGHTS as u64;

/// The busiest first.
const AIRPORTS: [&str; 64] = [
    "ATL", "ORD", "DFW", "LAX", "PHX", "STL", "DTW", "MSP", "LAS", "DEN", "BOS", "IAH", "CLT",
    "SFO", "EWR", "PHL", "LGA", "PIT", "SEA", "BWI", "MCO", "CVG", "SLC", "DCA", "IAD", "SAN",
    "OAK", "TPA", "MIA", "CLE", "SJC", "MDW", "HOU", "PDX", "BNA", "MCI", "RDU", "MSY", "SNA",
    "IND", "SMF", "AUS", "CMH", "SAT", "ONT", "ABQ", "BDL", "PBI", "MKE", "BUR", "JAX", "RNO",
    "OKC", "TUL", "ANC", "HNL", "BUF", "SDF", "OMA", "TUS", "ELP", "ROC", "MHT", "GSO",
];

static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = Rng::from_seed(2001);
    let flights = (0..FLIGHTS as u64).map(|number| flight(&mut rng, number * MINUTES_APART));
    format!("[{}]", flights.collect::<Vec<_>>().join(",")).into_bytes()
});

fn flight(rng: &mut Rng, slot: u64) -> String {
    let minute = slot + rng.below(MINUTES_APART);
    let (day, hour, minute) = (minute / 1_440, minute / 60 % 24, minute % 60);
    let (month, day) = match day {
        0..31 => (1, day + 1),
        31..59 => (2, day - 30),
        _ => (3, day - 58),
    };
    // The least of three draws: half of the flights are of a fifth of the airports.
    let mut airport = || AIRPORTS[(0..3).map(|_| rng.below(64)).min().unwrap_or(0) as usize];
    let (origin, destination) = (airport(), airport());
    let (delay, distance) = (rng.below(120) as i64 - 30, 60 + rng.below(2_500));
    format!(
        "{{\"date\":\"2001/{month:02}/{day:02} {hour:02}:{minute:02}\",\"delay\":{delay},\
         \"distance\":{distance},\"origin\":\"{origin}\",\"destination\":\"{destination}\"}}"
    )
}

/// The file and the exact bytes of each of its elements.
pub fn flights() -> (Vec<u8>, Vec<String>) {
    let elements: Vec<Box<RawValue>> = serde_json::from_slice(&FILE).unwrap();
    assert_eq!(elements.len(), FLIGHTS);
    (FILE.clone(), elements.iter().map(|element| element.get().to_owned()).collect())
}

/// The flights as a file in the folder of the build.
pub fn flights_file() -> PathBuf {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = folder.join("flights.json");
        // Another run of the tests may be reading it: it is replaced whole, by the same bytes.
        let mut file = NamedTempFile::new_in(folder).unwrap();
        file.write_all(&FILE).unwrap();
        file.persist(&path).unwrap();
        path
    });
    PATH.clone()
}

#[test]
fn the_flights_are_the_same_for_ever_and_a_few_airports_have_most_of_them() {
    assert_eq!(crc32fast::hash(&FILE), 0xb3fb_8b68);
    let (_, flights) = flights();
    let busiest = AIRPORTS[..13].iter();
    let origins = busiest.map(|airport| format!("\"origin\":\"{airport}\""));
    let busy = origins.map(|o| flights.iter().filter(|flight| flight.contains(&o)).count());
    let busy: usize = busy.sum();
    assert!(busy > FLIGHTS * 2 / 5 && busy < FLIGHTS * 3 / 5, "{busy}");
}
