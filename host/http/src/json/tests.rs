use super::*;
use proptest::prelude::*;

fn read(body: &[u8]) -> Result<Option<Object>, String> {
    decode(body, &RequestLimits::default(), |_| Ok(())).map_err(|error| error.to_string())
}

/// Each row as OpenBao 2.7.2 answers it.
#[test]
fn what_is_no_json_is_refused_in_vaults_words() {
    let begin = "looking for beginning of value";
    for (body, said) in [
        ("b", format!("invalid character 'b' {begin}")),
        ("{", "unexpected EOF".to_owned()),
        ("{\"a\"", "unexpected EOF".to_owned()),
        ("{\"a\":1", "unexpected EOF".to_owned()),
        ("{\"a\":1}x", format!("invalid character 'x' {begin}")),
        ("{\"a\":}", "missing value after object key".to_owned()),
        ("{\"a\":1,}", format!("invalid character ',' {begin}")),
        ("{\"a\":1,,}", format!("invalid character ',' {begin}")),
        ("{,}", format!("invalid character ',' {begin}")),
        ("[,1]", format!("invalid character ',' {begin}")),
        ("[1,]", format!("invalid character ',' {begin}")),
        ("[1 2]", "invalid character '2' after array element".to_owned()),
        ("{\"a\":[1}", "invalid character '}' after array element".to_owned()),
        ("{a:1}", format!("invalid character 'a' {begin}")),
        ("{'a':1}", format!("invalid character '\\'' {begin}")),
        ("{1:2}", "object member name must be a string".to_owned()),
        ("nul", "unexpected EOF".to_owned()),
        ("nulx", "invalid character 'x' in literal null (expecting 'l')".to_owned()),
        ("{\"a\":tru}", "invalid character '}' in literal true (expecting 'e')".to_owned()),
        ("{\"a\":\"x", "unexpected EOF".to_owned()),
        ("{\"a\":\"\\q\"}", "invalid escape sequence `\\q` in string".to_owned()),
        ("{\"a\":\"\\u12g4\"}", "invalid escape sequence `\\u12g4` in string".to_owned()),
        ("{\"a\":\"\\u12", "unexpected EOF".to_owned()),
        ("{\"a\":\"\x01\"}", "invalid character '\\x01' in string".to_owned()),
        ("{\"a\":\"é\x02\"}", "invalid character '\\x02' in string".to_owned()),
        ("{\"a\":\"\n\"}", "invalid character '\\n' in string".to_owned()),
        ("{\"a\":01}", "invalid character '1' after object key:value pair".to_owned()),
        ("[01]", "invalid character '1' after array element".to_owned()),
        ("{\"a\":[1],\"b\":-00}", "invalid character '0' after object key:value pair".to_owned()),
        ("{\n \"a\":\n\n ]", "missing value after object key".to_owned()),
        ("{\n \"a\": x}", format!("invalid character 'x' {begin}")),
        ("[1,\n]", format!("invalid character ',' {begin}")),
        ("{\"a\":fals3}", "invalid character '3' in literal false (expecting 'e')".to_owned()),
        ("{\"a\":\"\\ud83d\\n\"}", "invalid surrogate pair `\\ud83d` in string".to_owned()),
        ("{\"a\":\"\\udc00\"}", "invalid surrogate pair `\\udc00` in string".to_owned()),
        ("{\"a\":\"\\ud83d\\ud83d\"}", "invalid surrogate pair `\\ud83d` in string".to_owned()),
        ("{\"a\":1x}", "invalid character 'x' after object key:value pair".to_owned()),
        ("{\"a\":-}", "invalid character '}' in numeric literal".to_owned()),
        ("{\"a\":1.}", "invalid character '}' in numeric literal".to_owned()),
        ("{\"a\":1e+}", "invalid character '}' in numeric literal".to_owned()),
        ("{\"a\":1.5.5}", "invalid character '.' after object key:value pair".to_owned()),
        ("{\"a\" 1}", "invalid character '1' after object key".to_owned()),
        ("{\"a\",}", "invalid character ',' after object key".to_owned()),
        ("{\"a\"}", "invalid character '}' after object key".to_owned()),
        ("{\"a\":1 \"b\":2}", "invalid character '\"' after object key:value pair".to_owned()),
        ("{\"a\":1]", "invalid character ']' after object key:value pair".to_owned()),
        ("{\"a\":1}}", format!("invalid character '}}' {begin}")),
        ("]", format!("invalid character ']' {begin}")),
        ("{\"a\":é}", format!("invalid character 'é' {begin}")),
        ("\u{feff}{}", format!("invalid character '\\ufeff' {begin}")),
        ("{\"a\":\t\x0b1}", format!("invalid character '\\v' {begin}")),
        ("\0", format!("invalid character '\\x00' {begin}")),
        // Ours: what Vault replaces with U+FFFD is refused.
        ("{\"a\":\"\\ud800\"}", "invalid surrogate pair `\\ud800` in string".to_owned()),
        ("{\"a\":\"\\uD83D\\u0041\"}", "invalid surrogate pair `\\uD83D` in string".to_owned()),
    ] {
        assert_eq!(read(body.as_bytes()), Err(format!("failed to decode JSON input: {said}")), "{body:?}");
    }
    assert!(read(b"\xe9").unwrap_err().contains("invalid character '\\xe9' looking"));
    assert!(read(b"{\"a\":\"\xff\"}").unwrap_err().contains("invalid UTF-8"));
}

#[test]
fn only_objects_carry_data() {
    for (body, what) in [("[]", "array"), ("[1]", "array"), ("\"s\"", "string"), ("1", "number"), ("true", "bool")] {
        let said = format!(
            "failed to decode JSON input: json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
        );
        assert_eq!(read(body.as_bytes()), Err(said));
    }
    for body in ["", "null", " \n\t", "null null"] {
        assert_eq!(read(body.as_bytes()), Ok(None), "{body:?}");
    }
    // The last of equal keys counts, and the first of several values: nobody else sees the others.
    let object = read(b"{\"a\":1,\"a\":2} {\"a\":3}").unwrap().unwrap();
    assert_eq!(serde_json::to_string(&object).unwrap(), "{\"a\":2}");
}

#[test]
fn complexity_is_bounded_while_the_body_is_built() {
    let list = |item: &str, count: usize| format!("{{\"a\":[{}]}}", vec![item; count].join(","));
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(list("\"s\"", 999).as_bytes()).is_ok());
    let refused = |what: &str| Err(format!("refused JSON input due to high complexity: {what}"));
    assert_eq!(read(list("\"s\"", 1_000).as_bytes()), refused("exceeded maximum number of strings"));
    assert_eq!(read(list("1", 1_000_000).as_bytes()), refused("exceeded maximum estimated memory limits"));
    assert!(read(nested(99).as_bytes()).is_ok());
    assert_eq!(read(nested(100).as_bytes()), refused("exceeded maximum nesting depth"));
    assert_eq!(read("[".repeat(10 << 20).as_bytes()), refused("exceeded maximum nesting depth"));
    assert!(read(b"{\"a\":1e999}").unwrap_err().contains("cannot unmarshal number"));
}

/// They cost memory like any other value: once they were free, and a body of them took 14 times its size.
#[test]
fn every_kind_of_value_is_counted() {
    for item in ["null", "true", "false", "1", "1.5", "-1", "[]", "{}"] {
        let body = format!("[{}]", vec![item; 1_000_000].join(","));
        let said = "refused JSON input due to high complexity: exceeded maximum estimated memory limits".to_owned();
        assert_eq!(read(body.as_bytes()), Err(said), "{item}");
    }
}

#[test]
fn memory_is_asked_for_before_it_is_taken() {
    let body = format!("{{\"a\":[{}]}}", vec!["1"; 100_000].join(","));
    let mut asked = Vec::new();
    let limits = RequestLimits::default();
    let covered = decode(body.as_bytes(), &limits, |bytes| {
        asked.push(bytes);
        if bytes > 1 << 20 { Err(Exhausted) } else { Ok(()) }
    });
    assert_eq!(covered, Err(JsonError::Busy));
    assert!(asked.len() > 10 && asked.is_sorted(), "{asked:?}");
    assert!(asked.last().is_some_and(|last| *last < (1 << 20) + 2 * STEP), "it stopped at the bound: {asked:?}");
}

proptest! {
    /// The counting decoder and serde_json's own agree on what JSON is.
    #[test]
    fn counting_changes_nothing(body in "[\\[\\]{},:\"\\\\utrfalsn01e.+ -]{0,24}") {
        let plain = serde_json::from_str::<Value>(&body);
        match read(body.as_bytes()) {
            Ok(Some(object)) => {
                // Behind the first value further ones may stand.
                let first = Deserializer::from_str(&body).into_iter::<Value>().next();
                prop_assert_eq!(first.and_then(Result::ok), Some(Value::Object(object)));
            }
            Ok(None) => prop_assert!(plain.as_ref().map_or(true, Value::is_null)),
            Err(said) => prop_assert!(plain.is_err() || said.contains("cannot unmarshal"), "{said}"),
        }
    }

    #[test]
    fn any_body_is_read_or_refused(body in "[\\[\\]{},:\"\\\\utrfalsn01e.+ -]{0,24}", after in "[\\[\\]{},:\"\\\\u0 -]{0,12}") {
        crate::properties::any_body_is_read_or_refused(body.as_bytes(), after.as_bytes());
    }

    #[test]
    fn no_bytes_make_reading_fail(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        crate::properties::any_body_is_read_or_refused(&body, &[]);
    }
}
