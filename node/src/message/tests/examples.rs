//! The scanner by example: each rule of PROTOCOL section 4, and the corners of RFC 8259.

use super::*;

fn targets(to: &str) -> Result<String, ScanError> {
    let text = format!(r#"{{"to":{to},"payload":1}}"#);
    scan(text.as_bytes()).map(|message| match message.targets {
        Targets::Relay => "relay".to_owned(),
        Targets::All => "all".to_owned(),
        Targets::Agents(ids) => ids.join(" "),
    })
}

fn error(text: &str) -> ScanError {
    scan(text.as_bytes()).unwrap_err()
}

#[test]
fn all_fields_are_the_bytes_that_were_written() {
    let text = r#" {"to" : ["bob-0001", "carol-01"] ,"a":1e400, "b" : {"x":1,"x":2},
        "type":"t\u0061sk","id":7,"c":[ ],"ref":"r","payload": {"n":12345678901234567890} ,"d":null}  "#;
    let message = scan(text.as_bytes()).unwrap();
    assert_eq!(message.to, r#"["bob-0001", "carol-01"]"#);
    assert_eq!(message.kind, Some(r#""t\u0061sk""#));
    assert_eq!(message.kind_text().as_deref(), Some("task"));
    assert_eq!(message.reference, Some(r#""r""#));
    assert_eq!(message.payload, Some(r#"{"n":12345678901234567890}"#));
    let extras = [r#""a":1e400, "b" : {"x":1,"x":2}"#, r#""c":[ ]"#, r#""d":null"#];
    assert_eq!(message.extras.as_slice(), extras);
}

#[test]
fn recipients_follow_the_protocol() {
    for (to, expected) in [
        (r#"["bob-0001"]"#, "bob-0001"),
        (r#"["bob-0001","carol-01","bob-0001"]"#, "bob-0001 carol-01"),
        (r#"["carol-01","bob-0001","carol-01","dave-001"]"#, "carol-01 bob-0001 dave-001"),
        (r#"["b\u006fb-0001","bob-0001"]"#, "bob-0001"),
        (r#"["*"]"#, "all"),
        (r#"["bob-0001","*"]"#, "all"),
        (r#"["\u002a","Not An Id"]"#, "all"),
        (r#"["relay"]"#, "relay"),
        (r#"["relay","relay"]"#, "relay"),
        (r#"["r\u0065lay"]"#, "relay"),
        (r#"["Not An Id","","-ab","\ud800",""]"#, "Not An Id  -ab \u{fffd}"),
        ("[\"bob-0001\"\n,\t\"carol-01\" ]", "bob-0001 carol-01"),
    ] {
        assert_eq!(targets(to).as_deref(), Ok(expected), "{to}");
    }
}

#[test]
fn recipients_that_are_refused() {
    for to in
        ["null", "1", "{}", r#""bob-0001""#, "[]", "[1]", r#"["bob-0001",null]"#, r#"[["*"]]"#]
    {
        assert_eq!(targets(to), Err(ScanError::InvalidTo), "{to}");
    }
    for to in [r#"["relay","bob-0001"]"#, r#"["*","relay"]"#, r#"["relay","Not An Id"]"#] {
        assert_eq!(targets(to), Err(ScanError::RelayBesideOthers), "{to}");
    }
    assert_eq!(error(r#"{"payload":1}"#), ScanError::InvalidTo);
}

#[test]
fn recipients_are_counted_before_repeated_ones_are_dropped() {
    let repeated = |count: usize| format!("[{}]", vec![r#""bob-0001""#; count].join(","));
    assert_eq!(targets(&repeated(256)).as_deref(), Ok("bob-0001"));
    assert_eq!(targets(&repeated(257)), Err(ScanError::TooManyRecipients));
    let different: Vec<_> = (0..256).map(|n| format!("agent-{n}")).collect();
    let to = serde_json::to_string(&different).unwrap();
    assert_eq!(targets(&to), Ok(different.join(" ")));
    let twice = serde_json::to_string(&[&different[..128], &different[..128]].concat()).unwrap();
    assert_eq!(targets(&twice), Ok(different[..128].join(" ")));
}

#[test]
fn type_ref_and_payload_are_checked() {
    for wrong in ["null", "1", "[]", "{}", "true"] {
        let text = |name| format!(r#"{{"to":["*"],"payload":1,"{name}":{wrong}}}"#);
        assert_eq!(error(&text("type")), ScanError::InvalidType, "{wrong}");
        assert_eq!(error(&text("ref")), ScanError::InvalidRef, "{wrong}");
    }
    assert_eq!(error(r#"{"to":["*"]}"#), ScanError::MissingPayload);
    assert_eq!(scan(br#"{"to":["relay"],"type":"ping"}"#).unwrap().payload, None);
    assert_eq!(scan(br#"{"to":["*"],"payload":null}"#).unwrap().payload, Some("null"));
}

#[test]
fn of_a_repeated_field_the_last_is_judged_and_used() {
    let text = r#"{"to":1,"type":2,"ref":[],"payload":0,"to":["relay","x"],"t\u006f":["bob-0001"],
        "type":"a","ref":"b","payload":1}"#;
    let message = scan(text.as_bytes()).unwrap();
    assert_eq!(message.to, r#"["bob-0001"]"#);
    assert_eq!(message.targets, Targets::Agents(SmallVec::from_iter(["bob-0001".into()])));
    assert_eq!((message.kind, message.payload), (Some("\"a\""), Some("1")));
    assert_eq!(error(r#"{"to":["*"],"payload":1,"type":"a","type":1}"#), ScanError::InvalidType);
    assert_eq!(error(r#"{"to":["*"],"payload":1,"to":["bob-0001",2]}"#), ScanError::InvalidTo);
}

#[test]
fn what_the_relay_assigns_is_dropped_however_it_is_written() {
    let text = r#"{"id":1,"\u0069d":{},"to":["*"],"fr\u006Fm":"x","from":[],"ts":1,"t\u0073":2,
        "payload":1,"ID":3,"id\u0000":4,"\ud800id":5}"#;
    let message = scan(text.as_bytes()).unwrap();
    assert_eq!(message.extras.as_slice(), [r#""ID":3,"id\u0000":4,"\ud800id":5"#]);
}

#[test]
fn what_is_no_object_is_told_from_what_is_no_json() {
    for text in ["[]", "1", " null ", r#""to""#, "-0.1e+5", "[{}]"] {
        assert_eq!(error(text), ScanError::NotAnObject, "{text}");
    }
    assert_eq!(scan(b"{\"to\":[\"*\"],\"payload\":\"\xff\"}"), Err(ScanError::NotUtf8));
    assert_eq!(error(""), ScanError::NotJson { at: 0, expected: "a JSON value" });
}

#[test]
fn errors_tell_the_place_and_what_to_do() {
    let errors = [
        (r#"{"to":["*"],"payload":}"#, "a JSON value expected at byte 22"),
        (r#"{"to":["*"] "payload":1}"#, "',' or '}' expected at byte 12"),
        (r#"{"to":["*",]}"#, "a JSON value expected at byte 11"),
        (r#"{"payload":"abc"#, "a closing quote expected at byte 15"),
        (
            "{\"payload\":\"a\nb\"}",
            "an escape, e.g. \\n, for a control character expected at byte 13",
        ),
        (r#"{"a":1}x"#, "the end of the text expected at byte 7"),
    ];
    for (text, expected) in errors {
        assert_eq!(error(text).to_string(), format!("the message is not JSON: {expected}"));
        assert_eq!(error(text).code(), "invalid_message");
    }
    let invalid_to = "\"to\" must be an array of 1 to 256 strings, e.g. [\"*\"]";
    assert_eq!(error("{}").to_string(), invalid_to);
    assert_eq!(ScanError::TooManyRecipients.code(), "too_many_recipients");
}

/// After the public JSON test suites: values that every parser must accept.
const ACCEPTED: &[&str] = &[
    "0",
    "-0",
    "0.5",
    "-1.25e-7",
    "1E+9",
    "0e0",
    "123456789012345678901234567890",
    "1e400",
    "-1e-99999",
    r#""""#,
    r#""\"\\\/\b\f\n\r\t""#,
    r#""\u0000\uFFFF\uaBcD""#,
    r#""\ud800""#,
    r#""\uDC00\uD800""#,
    "\"\u{7f}\"",
    "\"\u{2028}\u{10ffff}\"",
    "[]",
    "{}",
    "[ ]",
    "{ }",
    "[[],[[]],{}]",
    r#"{"":0}"#,
    r#"{"a":1,"a":2}"#,
    "\t[\r\n1 ,\n2 ]",
    "true",
    "false",
    "null",
    "[null,true,false]",
    r#"{"a":{"b":[]}}"#,
];

/// And values that every parser must refuse.
const REFUSED: &[&str] = &[
    "",
    " ",
    "00",
    "01",
    "-",
    "-01",
    "+1",
    ".5",
    "1.",
    "1.e5",
    "1e",
    "1e+",
    "0x1",
    "1_000",
    "NaN",
    "Infinity",
    "-Infinity",
    "--1",
    "1 2",
    "[",
    "]",
    "[1",
    "[1,]",
    "[,1]",
    "[1 2]",
    "[1:2]",
    "[}",
    "{",
    "}",
    "{]",
    "{1:2}",
    r#"{"a"}"#,
    r#"{"a":}"#,
    r#"{"a":1,}"#,
    r#"{,"a":1}"#,
    r#"{"a" 1}"#,
    r#"{"a":1 "b":2}"#,
    r#"{"a":1,,"b":2}"#,
    "{a:1}",
    "{'a':1}",
    "[1]]",
    "{}}",
    "\"",
    "\"a",
    "\"\\\"",
    r#""\x""#,
    r#""\u12""#,
    r#""\u12g4""#,
    r#""\U0041""#,
    "\"\0\"",
    "\"\n\"",
    "\"\u{1f}\"",
    "'a'",
    "tru",
    "truee",
    "True",
    "nul",
    "falsee",
    "nulll",
    "\u{feff}1",
    "\u{a0}1",
    "1\0",
    "\0",
    "[1]\u{c}",
    "// 1\n1",
    "/**/1",
    "[1,2",
    r#"{"a":[}"#,
    r#"{"a":[1}]"#,
    "[\"a\":1]",
    "\\u0031",
    "é",
];

#[test]
fn accepts_and_refuses_what_every_json_parser_does() {
    for (values, good) in [(ACCEPTED, true), (REFUSED, false)] {
        for value in values {
            for text in [
                (*value).to_owned(),
                format!(r#"{{"to":["*"],"payload":{value}}}"#),
                format!(r#"{{"x":[0,{value} ],"to":["*"],"payload":1}}"#),
            ] {
                assert_eq!(scan_accepts(text.as_bytes()), good, "{text:?}");
                assert_eq!(serde_accepts(text.as_bytes()), good, "{text:?}");
            }
        }
    }
}

#[test]
fn nesting_is_limited_by_the_length_only() {
    for levels in [1, 63, 64, 65, 128, 129, 50_000] {
        for (open, close) in [("[", "]"), (r#"{"k":"#, "}"), (r#"[{"k":["#, "]}]")] {
            let value = format!("{}1{}", open.repeat(levels), close.repeat(levels));
            let text = format!(r#"{{"to":["*"],"deep":{value},"payload":{value}}}"#);
            assert_eq!(scan(text.as_bytes()).unwrap().payload, Some(value.as_str()));
            for cut in [text.len() - 2, text.len() - 3, text.len() / 2] {
                let error = scan(&text.as_bytes()[..cut]).unwrap_err();
                assert!(matches!(error, ScanError::NotJson { at, .. } if at == cut), "{error}");
            }
            let crossed = text.replacen('1', "1}]", 1);
            assert!(!scan_accepts(crossed.as_bytes()));
        }
    }
}

#[test]
fn numbers_are_of_any_length() {
    let number = format!("-{}.{}e-{}", "9".repeat(300), "0".repeat(300), "7".repeat(300));
    let text = format!(r#"{{"to":["*"],"payload":{number}}}"#);
    assert_eq!(scan(text.as_bytes()).unwrap().payload, Some(number.as_str()));
}

#[test]
fn every_truncation_is_an_error() {
    let text = r#"{"to":["bob-0001","\u0062"],"type":"a\nb","x":[1,{"y":-0.5e+1}],"ref":"é",
        "payload":{"k":[true,false,null,"\ud83d\ude00"]}}"#;
    for cut in 0..text.len() {
        assert!(scan(&text.as_bytes()[..cut]).is_err(), "{cut}");
    }
}
