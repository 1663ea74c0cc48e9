//! Routing keys that reach every segment of a stream, and who uses which.

use common::routing::position_of_key;

/// For each of `segments` equal parts of the key space, a key that lies in it.
pub(super) fn key_of_each_segment(segments: u32) -> Vec<String> {
    let mut keys = vec![String::new(); segments as usize];
    let mut missing = keys.len();
    for candidate in 0_u64.. {
        let key = format!("k{candidate}");
        let position = position_of_key(&key).0;
        let segment = ((u128::from(position) * u128::from(segments)) >> 64) as usize;
        if keys[segment].is_empty() {
            keys[segment] = key;
            missing -= 1;
        }
        if missing == 0 {
            break;
        }
    }
    keys
}

/// The segments that a writer sends to: all are used, by as few writers each as possible.
pub(super) fn segments_of_writer(writer: u32, writers: u32, segments: u32) -> Vec<u32> {
    if writers >= segments {
        return vec![writer % segments];
    }
    (writer..segments).step_by(writers as usize).collect()
}

#[cfg(test)]
mod tests {
    use common::KeyRange;

    use super::*;

    #[test]
    fn each_segment_has_a_key_of_its_own() {
        for segments in [1, 3, 100] {
            let keys = key_of_each_segment(segments);
            for (key, range) in keys.iter().zip(KeyRange::tile(segments)) {
                assert!(range.contains(position_of_key(key)), "{key} of {segments}");
            }
        }
    }

    #[test]
    fn writers_are_spread_over_all_segments() {
        for (writers, segments) in [(1, 1), (1, 5), (3, 7), (7, 3), (4, 4)] {
            let mut used: Vec<_> =
                (0..writers).flat_map(|w| segments_of_writer(w, writers, segments)).collect();
            used.sort_unstable();
            used.dedup();
            assert_eq!(used.len() as u32, segments, "{writers} writers, {segments} segments");
        }
    }
}
