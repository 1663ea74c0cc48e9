//! The membership record of a group in the write-ahead log.
//!
//! `version u8 | voters | learners`, each list as count u32 and ids u64, little-endian.

use raft::eraftpb::ConfState;

const VERSION: u8 = 1;

pub(crate) fn encode(conf: &ConfState) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for list in [&conf.voters, &conf.learners] {
        let count = u32::try_from(list.len()).expect("a group has a handful of members");
        bytes.extend_from_slice(&count.to_le_bytes());
        list.iter().for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()));
    }
    bytes
}

pub(crate) fn decode(bytes: &[u8]) -> Option<ConfState> {
    let (version, rest) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    let (voters, rest) = list(rest)?;
    let (learners, rest) = list(rest)?;
    rest.is_empty().then(|| ConfState::from((voters, learners)))
}

fn list(bytes: &[u8]) -> Option<(Vec<u64>, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let length = (u32::from_le_bytes(*count) as usize).checked_mul(8)?;
    if rest.len() < length {
        return None;
    }
    let (ids, rest) = rest.split_at(length);
    let (ids, _) = ids.as_chunks::<8>();
    Some((ids.iter().map(|id| u64::from_le_bytes(*id)).collect(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_what_it_was_and_reads_back() {
        let conf = ConfState::from((vec![1, 2], vec![9]));
        let golden = [
            &[1, 2, 0, 0, 0][..],
            &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(encode(&conf), golden);
        assert_eq!(decode(&golden), Some(conf));
    }

    #[test]
    fn damage_and_unknown_versions_are_refused() {
        let bytes = encode(&ConfState::from((vec![1], vec![])));
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(decode(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(decode(&[2, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(decode(&[1, 255, 255, 255, 255]), None);
    }
}
