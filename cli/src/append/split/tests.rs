use rstest::rstest;

use super::*;

/// Everything that comes out when `input` is pushed in pieces of `piece` bytes.
fn cut(
    form: InputForm,
    delimiter: &[u8],
    input: &[u8],
    piece: usize,
) -> Result<Vec<Vec<u8>>, SplitError> {
    let mut splitter = Splitter::new(form, delimiter);
    let mut events = Vec::new();
    let mut take = |splitter: &mut Splitter| -> Result<(), SplitError> {
        while let Some((number, event)) = splitter.next()? {
            events.push(event.to_vec());
            assert_eq!(number, events.len() as u64);
        }
        Ok(())
    };
    for bytes in input.chunks(piece) {
        splitter.push(bytes);
        take(&mut splitter)?;
    }
    splitter.end();
    take(&mut splitter)?;
    assert_eq!(splitter.next()?.map(|(number, _)| number), None, "the end stays the end");
    Ok(events)
}

#[rstest]
#[case("a\nb\n", &["a", "b"])]
#[case("a\nb", &["a", "b"])]
#[case("", &[])]
#[case("\n", &[""])]
#[case("a\n\nb\r\n", &["a", "", "b\r"])]
#[case("[INFO] started\n[WARN] slow\n", &["[INFO] started", "[WARN] slow"])]
#[case("[2026-11-22] x\n", &["[2026-11-22] x"])]
#[case("[1,2]\n[3]\n", &["[1,2]", "[3]"])]
#[case("[1,2] tail\n", &["[1,2] tail"])]
#[case("{\"a\":1}\n{\"a\":2}\n", &["{\"a\":1}", "{\"a\":2}"])]
#[case("[1, 2]\n", &["1", "2"])]
#[case("[]", &[])]
#[case(" [ {\"a\" : \"]\\\"}\"} ,\n [1, [2]],\"x,]\", null,-1.5e3 ] \n", &["{\"a\" : \"]\\\"}\"}", "[1, [2]]", "\"x,]\"", "null", "-1.5e3"])]
#[case("[\n{\"a\":1},\n{\"a\":2}\n]\n", &["{\"a\":1}", "{\"a\":2}"])]
fn input_is_cut_the_same_however_it_arrives(#[case] input: &str, #[case] expected: &[&str]) {
    for piece in 1..=input.len().max(1) {
        // Whether lines of arrays are lines is decided by what is behind the first: see below.
        if input.starts_with("[1,2]\n[3]") && piece < 8 {
            continue;
        }
        let events = cut(InputForm::Auto, b"\n", input.as_bytes(), piece).unwrap();
        let texts: Vec<_> = events.iter().map(|event| String::from_utf8_lossy(event)).collect();
        assert_eq!(texts, expected, "in pieces of {piece}");
    }
}

#[test]
fn lines_that_are_arrays_are_never_taken_apart_silently() {
    let error = cut(InputForm::Auto, b"\n", b"[1,2]\n[3]\n", 6).unwrap_err();
    assert!(error.to_string().contains("--input lines"), "{error}");
    let lines = cut(InputForm::Lines, b"\n", b"[1,2]\n[3]\n", 6).unwrap();
    assert_eq!(lines, [b"[1,2]".to_vec(), b"[3]".to_vec()]);
}

#[rstest]
#[case("[1,2", "ends inside")]
#[case("[1 2]", "after element 1")]
#[case("[1,]", "element 2")]
#[case("[,1]", "element 1")]
#[case("[1,tru]", "element 2")]
#[case("[{\"a\":}]", "element 1")]
#[case("[1]]", "goes on behind")]
#[case("{}", "begins with `{`")]
#[case("[\"abc", "ends inside")]
fn a_broken_array_is_refused_with_its_element(#[case] input: &str, #[case] expected: &str) {
    for piece in 1..=input.len() {
        let error = cut(InputForm::JsonArray, b"\n", input.as_bytes(), piece).unwrap_err();
        assert!(error.to_string().contains(expected), "{input}: {error}");
    }
}

#[test]
fn elements_before_a_broken_one_are_given_out() {
    let mut splitter = Splitter::new(InputForm::JsonArray, b"\n");
    splitter.push(b"[1,2,oops]");
    assert_eq!(splitter.next().unwrap().unwrap(), (1, &b"1"[..]));
    assert_eq!(splitter.next().unwrap().unwrap(), (2, &b"2"[..]));
    assert!(splitter.next().is_err());
}

#[test]
fn a_delimiter_of_several_bytes_is_found_across_pieces() {
    for piece in 1..6 {
        let events = cut(InputForm::Lines, b"\r\n", b"a\rb\r\nc\r\n", piece).unwrap();
        assert_eq!(events, [b"a\rb".to_vec(), b"c".to_vec()]);
    }
}

#[test]
fn input_without_a_delimiter_is_refused_before_it_fills_memory() {
    let mut splitter = Splitter::new(InputForm::Lines, b"\n");
    let piece = vec![b'x'; 1 << 20];
    let refused = (0..=EVENT_BYTES_MAX >> 20).find_map(|_| {
        splitter.push(&piece);
        splitter.next().err()
    });
    assert_eq!(refused, Some(SplitError::TooLarge { noun: "line", number: 1 }));
}
