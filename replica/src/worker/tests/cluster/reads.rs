//! Questions, and leaders that do not know yet that they are none any more.

use super::*;

#[test]
fn a_leader_that_was_cut_off_does_not_answer_from_what_it_had() {
    let mut cluster = Cluster::started(5, &[1, 2, 3], &[]);
    while !cluster.agreed() {
        cluster.calm_round();
    }
    let old = cluster.leader();
    cluster.propose();
    (0..10).for_each(|_| cluster.calm_round());
    assert_eq!(cluster.acknowledged.len(), 1);
    // Its clock stands still: it does not even notice that nobody answers.
    cluster.cut_off.insert(old);
    let others: Vec<u64> = cluster.peers().into_iter().filter(|peer| *peer != old).collect();
    for _ in 0..400 {
        for peer in &others {
            cluster.members[peer].machine.clock.advance(Duration::from_millis(100));
            cluster.step(*peer);
            cluster.work(*peer);
            cluster.step(*peer);
        }
        cluster.deliver_all();
        cluster.collect();
        let leads = |peer: &&u64| cluster.status(**peer).serving;
        if let Some(new) = others.iter().find(leads) {
            let node = cluster.members[new].node.as_ref().unwrap();
            if cluster.acknowledged.len() == 1 && cluster.waiting.is_empty() {
                cluster.waiting.push(propose(&node.handle, 100, 700).unwrap());
            }
        }
        if cluster.acknowledged.len() == 2 {
            break;
        }
    }
    assert!(cluster.acknowledged.contains_key(&100), "the others went on");
    assert!(cluster.status(old).serving, "it believes that it leads");
    // What is acknowledged by now has to be in any answer.
    cluster.ask(old);
    for _ in 0..5 {
        cluster.step(old);
        cluster.work(old);
        cluster.deliver_all();
        cluster.collect();
    }
    assert_eq!((cluster.answered, cluster.asked.len()), (0, 1), "nobody confirmed that it leads");
    cluster.heal();
    assert_eq!(cluster.answered, 0, "the term in which it was asked is over");
    let new = cluster.leader();
    cluster.ask(new);
    (0..10).for_each(|_| cluster.calm_round());
    assert_eq!(cluster.answered, 1);
    cluster.check();
}
