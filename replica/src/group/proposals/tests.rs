use super::*;

fn proposal(tag: u8, payload: usize, key: Option<u128>) -> Proposal<u8> {
    let mut proposal = Proposal::new(vec![tag], vec![tag; payload]);
    proposal.order_key = key;
    proposal
}

fn tags(batch: &[Proposal<u8>]) -> Vec<u8> {
    batch.iter().map(|proposal| proposal.operation[0]).collect()
}

fn staged(proposals: Vec<Proposal<u8>>) -> Proposals<u8> {
    let mut all = Proposals::default();
    all.stage(proposals, MonotonicTime::default());
    all
}

#[test]
fn small_payloads_share_an_entry_and_a_large_one_travels_alone_and_uncopied() {
    let large = UNCOPIED_BYTES_MIN;
    let mut all = staged(vec![
        proposal(1, 10, None),
        proposal(2, 20, None),
        proposal(3, large, None),
        proposal(4, 0, None),
        proposal(5, 10, None),
    ]);
    assert_eq!(tags(&all.gather(ENTRY_BYTES_TARGET)), [1, 2]);
    let alone = all.gather(ENTRY_BYTES_TARGET);
    assert_eq!(tags(&alone), [3, 4]);
    assert_eq!(gather_payload(&alone).as_ptr(), alone[0].payload.as_ptr());
    assert_eq!(tags(&all.gather(ENTRY_BYTES_TARGET)), [5]);
}

#[test]
fn an_entry_closes_at_its_target_size() {
    let size = UNCOPIED_BYTES_MIN - 1;
    let mut all = staged((0..40).map(|tag| proposal(tag, size, None)).collect());
    let first = all.gather(ENTRY_BYTES_TARGET);
    let bytes: usize = first.iter().map(Proposal::bytes).sum();
    assert!(bytes <= ENTRY_BYTES_TARGET && bytes + size + 16 > ENTRY_BYTES_TARGET, "{bytes}");
}

#[test]
fn keyed_proposals_move_together_but_not_across_one_without_a_key() {
    let mut batch = vec![
        proposal(1, 0, Some(9)),
        proposal(2, 0, Some(4)),
        proposal(3, 0, Some(9)),
        proposal(4, 0, None),
        proposal(5, 0, Some(2)),
        proposal(6, 0, Some(1)),
        proposal(7, 0, Some(2)),
    ];
    group_by_key(&mut batch);
    assert_eq!(tags(&batch), [2, 1, 3, 4, 6, 5, 7]);
}

#[test]
fn what_was_put_back_comes_first_again() {
    let mut all = staged(vec![proposal(1, 0, None), proposal(2, 0, None), proposal(3, 0, None)]);
    let batch = all.gather(ENTRY_BYTES_TARGET);
    all.stage(vec![proposal(4, 0, None)], MonotonicTime::default());
    all.unstage(batch);
    assert_eq!(tags(&all.gather(ENTRY_BYTES_TARGET)), [1, 2, 3, 4]);
}
