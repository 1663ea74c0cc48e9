use rstest::rstest;

use super::*;

#[rstest]
#[case("\\n", b"\n")]
#[case("\\r\\n", b"\r\n")]
#[case("\\0", b"\0")]
#[case("\\\\", b"\\")]
#[case("--", b"--")]
#[case("€", "€".as_bytes())]
fn a_delimiter_is_understood(#[case] text: &str, #[case] bytes: &[u8]) {
    assert_eq!(parse_delimiter(text), Ok(Delimiter(bytes.to_vec())));
}

#[rstest]
#[case("")]
#[case("\\")]
#[case("\\x")]
fn a_bad_delimiter_is_refused(#[case] text: &str) {
    assert!(parse_delimiter(text).is_err());
}
