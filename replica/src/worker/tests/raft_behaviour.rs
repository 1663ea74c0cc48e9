//! raft-rs 0.7.0 as it really behaves: what the laws of this crate rest on.

use raft::eraftpb::{ConfState, Entry, HardState, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};

use crate::logger::raft_logger;

fn config(applied: u64) -> Config {
    Config { id: 1, applied, check_quorum: true, pre_vote: true, ..Config::default() }
}

fn storage(voters: Vec<u64>, learners: Vec<u64>) -> MemStorage {
    MemStorage::new_with_conf_state(ConfState::from((voters, learners)))
}

#[test]
fn a_fresh_leader_of_one_voter_hands_out_appends_before_its_vote_is_durable() {
    let mut node = RawNode::new(&config(0), storage(vec![1], vec![2]), &raft_logger()).unwrap();
    node.campaign().unwrap();
    assert_eq!(node.raft.state, StateRole::Leader);
    node.raft.bcast_append();
    let ready = node.ready();
    assert!(ready.must_sync() && ready.hs().is_some_and(|hs| hs.vote == 1 && hs.term == 1));
    let at_once = ready.messages();
    assert!(at_once.iter().any(|message| message.get_msg_type() == MessageType::MsgAppend));
    assert!(ready.persisted_messages().is_empty(), "nothing asks to be held back");
}

#[test]
fn a_commit_that_moves_alone_does_not_ask_to_be_synced() {
    let store = storage(vec![1], vec![]);
    let mut node = RawNode::new(&config(0), store.clone(), &raft_logger()).unwrap();
    node.campaign().unwrap();
    let mut ready = node.ready();
    store.wl().append(&ready.take_entries()).unwrap();
    let number = ready.number();
    node.advance_append_async(ready);
    node.on_persist_ready(number);
    let ready = node.ready();
    assert!(ready.hs().is_some_and(|hs| hs.commit > 0) && !ready.must_sync());
}

#[test]
fn applied_ahead_of_the_stored_commit_panics() {
    let store = storage(vec![1], vec![]);
    let entry = Entry { index: 1, term: 1, ..Entry::default() };
    store.wl().append(&[entry]).unwrap();
    store.wl().set_hardstate(HardState { term: 1, vote: 1, ..HardState::default() });
    let start = || RawNode::new(&config(1), store.clone(), &raft_logger()).map(|_| ());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(start)).is_err());
}

#[test]
fn a_read_index_before_the_leaders_own_entry_is_committed_is_silently_dropped() {
    let mut node = RawNode::new(&config(0), storage(vec![1], vec![]), &raft_logger()).unwrap();
    node.campaign().unwrap();
    node.read_index(vec![1]);
    let ready = node.ready();
    assert!(ready.read_states().is_empty());
    node.advance_append_async(ready);
    assert!(node.ready().read_states().is_empty());
}
