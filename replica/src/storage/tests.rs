use super::*;

fn entry(index: u64, term: u64) -> Entry {
    let mut entry = proposed(Bytes::from_static(b"ctx"), Bytes::from(vec![0; 100]));
    entry.index = index;
    entry.term = term;
    entry
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.index).collect()
}

#[test]
fn a_limit_in_bytes_still_gives_one_entry() {
    let entries: Vec<Entry> = (1..=4).map(|index| entry(index, 1)).collect();
    assert_eq!(indexes(&limited(entries.iter(), 0)), [1]);
    assert_eq!(indexes(&limited(entries.iter(), 300)), [1, 2]);
    assert_eq!(indexes(&limited(entries.iter(), u64::MAX)), [1, 2, 3, 4]);
}

#[test]
fn a_log_entry_survives_its_way_through_raft() {
    let before = entry(7, 3);
    assert_eq!(raft_entry(log_entry(&before)), before);
}
