//! The bytes of each kind of object, kept in files: whoever changes them makes a new version.

use super::*;

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(32).map(|bytes| line(bytes) + "\n").collect()
}

fn assert_golden(sealed: &Sealed, golden: &str) {
    assert_eq!(hex(&bytes(sealed)), golden, "`{}`", sealed.reference.name);
}

#[test]
fn the_bytes_of_a_round_are_what_they_were() {
    let round = sample_round();
    assert_golden(&round.objects[1], include_str!("../golden/packed-1.hex"));
    assert_golden(&round.footer, include_str!("../golden/footer-1.hex"));
}

#[test]
fn the_bytes_of_a_round_behind_lost_entries_are_what_they_were() {
    let golden = include_str!("../golden/footer-beginning-1.hex");
    assert_golden(&beginning_round().footer, golden);
}

#[test]
fn the_bytes_of_a_checkpoint_are_what_they_were() {
    let (chunks, checkpoint) = sample_checkpoint();
    assert_golden(&chunks[0], include_str!("../golden/chunk-1.hex"));
    assert_golden(&checkpoint, include_str!("../golden/checkpoint-1.hex"));
}
