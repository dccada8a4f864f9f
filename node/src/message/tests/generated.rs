//! The scanner on generated texts, with `serde_json` as the judge.

use super::*;

/// JSON strings in many spellings, with their quotes.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[ !#-\\[\\]-~]{1,9}",
        2 => "[éжא漢😀\u{7f}]{1,3}",
        1 => r#"\\["\\/bfnrt]"#,
        1 => r"\\u[0-9a-fA-F]{4}",
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn number() -> impl Strategy<Value = String> {
    "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,5})?"
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

/// The names of the protocol and others, plain and with one character escaped.
fn key() -> impl Strategy<Value = String> {
    const NAMES: &[&str] = &["to", "type", "ref", "payload", "id", "from", "ts", "priority", "tö"];
    let named = (prop::sample::select(NAMES), any::<Option<prop::sample::Index>>());
    let named = named.prop_map(|(name, escaped)| match escaped {
        None => format!("\"{name}\""),
        Some(index) => {
            let chosen = index.index(name.chars().count());
            let spell = |(n, c): (usize, char)| {
                if n == chosen { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }
            };
            format!("\"{}\"", name.chars().enumerate().map(spell).collect::<String>())
        }
    });
    prop_oneof![3 => named, 1 => string()]
}

/// Any JSON value as text.
fn value() -> impl Strategy<Value = String> {
    let literal =
        prop::sample::select(&["true", "false", "null", "[]", "{}"][..]).prop_map(str::to_owned);
    prop_oneof![string(), number(), literal].prop_recursive(6, 40, 5, |inner| {
        let item = (space(), inner.clone(), space()).prop_map(|(a, v, b)| format!("{a}{v}{b}"));
        let field = (space(), key(), space(), space(), inner, space())
            .prop_map(|(a, k, b, c, v, d)| format!("{a}{k}{b}:{c}{v}{d}"));
        prop_oneof![
            prop::collection::vec(item, 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(field, 0..5)
                .prop_map(|fields| format!("{{{}}}", fields.join(","))),
        ]
    })
}

/// A value that the field of this name may well have.
fn fitting(name: &str) -> BoxedStrategy<String> {
    let to = prop::collection::vec(prop_oneof![
        4 => "\"[a-c][a-c0-9-][a-c]\"", 1 => Just(r#""*""#.to_owned()), 1 => Just(r#""relay""#.to_owned()), 1 => string(),
    ], 1..8).prop_map(|ids| format!("[{}]", ids.join(" ,")));
    match name {
        "to" => prop_oneof![9 => to, 1 => value()].boxed(),
        "type" | "ref" => prop_oneof![9 => string(), 1 => value()].boxed(),
        _ => value().boxed(),
    }
}

/// One field: the key as written, and the value as written.
fn field() -> impl Strategy<Value = (String, String)> {
    key().prop_flat_map(|key| {
        let name = unescape(&key).into_owned();
        (Just(key), fitting(&name))
    })
}

/// The fields of a message, most often a valid one.
fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let some = prop::collection::vec(field(), 0..8);
    (fitting("to"), value(), some).prop_flat_map(|(to, payload, mut fields)| {
        fields.push(("\"to\"".to_owned(), to));
        fields.push(("\"payload\"".to_owned(), payload));
        Just(fields).prop_shuffle()
    })
}

fn written(fields: &[(String, String)], spaces: &[String]) -> String {
    let mut spaces = spaces.iter().map(String::as_str).cycle();
    let mut space = || spaces.next().unwrap_or_default();
    let fields: Vec<_> = fields
        .iter()
        .map(|(key, value)| format!("{}{key}{}:{}{value}{}", space(), space(), space(), space()))
        .collect();
    format!("{}{{{}}}{}", space(), fields.join(","), space())
}

fn message() -> impl Strategy<Value = (Vec<(String, String)>, String)> {
    (fields(), prop::collection::vec(space(), 1..9)).prop_map(|(fields, spaces)| {
        let text = written(&fields, &spaces);
        (fields, text)
    })
}

/// The rules of PROTOCOL section 4 in their plainest form, on a `to` that `serde_json` has read.
fn expected_targets(to: &str) -> Result<Vec<String>, ScanError> {
    // Not all that is JSON is Unicode, and `serde_json` reads no such strings.
    let entries: Vec<&serde_json::value::RawValue> =
        serde_json::from_str(to).map_err(|_| ScanError::InvalidTo)?;
    let texts: Vec<String> = entries
        .iter()
        .map(|entry| match (entry.get().starts_with('"'), serde_json::from_str(entry.get())) {
            (true, Ok(text)) => Ok(text),
            (true, Err(_)) => Ok(unescape(entry.get()).into_owned()),
            (false, _) => Err(ScanError::InvalidTo),
        })
        .collect::<Result<_, _>>()?;
    if texts.is_empty() {
        return Err(ScanError::InvalidTo);
    }
    if texts.iter().any(|text| text == "relay") {
        let alone = texts.iter().all(|text| text == "relay");
        return if alone { Ok(vec!["relay".into()]) } else { Err(ScanError::RelayBesideOthers) };
    }
    if texts.iter().any(|text| text == "*") {
        return Ok(vec!["*".into()]);
    }
    let mut ids: Vec<String> = Vec::new();
    for text in texts {
        if !ids.contains(&text) {
            ids.push(text);
        }
    }
    Ok(ids)
}

/// The whole scanner in its plainest form, on fields that are known.
fn expected(fields: &[(String, String)]) -> Result<Vec<String>, ScanError> {
    let last =
        |name: &str| fields.iter().rfind(|(key, _)| unescape(key) == name).map(|(_, value)| value);
    let targets = expected_targets(last("to").ok_or(ScanError::InvalidTo)?)?;
    if last("type").is_some_and(|value| !value.starts_with('"')) {
        return Err(ScanError::InvalidType);
    }
    if last("ref").is_some_and(|value| !value.starts_with('"')) {
        return Err(ScanError::InvalidRef);
    }
    if last("payload").is_none() && targets != ["relay"] {
        return Err(ScanError::MissingPayload);
    }
    Ok(targets)
}

fn texts(targets: &Targets<'_>) -> Vec<String> {
    match targets {
        Targets::Relay => vec!["relay".into()],
        Targets::All => vec!["*".into()],
        Targets::Agents(ids) => ids.iter().map(|id| id.clone().into_owned()).collect(),
    }
}

/// The fields of an object as they are written, repeated ones included.
fn fields_of(text: &str) -> Vec<(String, String)> {
    struct Fields(Vec<(String, String)>);
    impl<'de> serde::Deserialize<'de> for Fields {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Fields;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<Fields, A::Error> {
                    let mut fields = Vec::new();
                    while let Some((key, value)) = map
                        .next_entry::<&serde_json::value::RawValue, &serde_json::value::RawValue>(
                        )?
                    {
                        fields.push((key.get().to_owned(), value.get().to_owned()));
                    }
                    Ok(Fields(fields))
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }
    serde_json::from_str::<Fields>(text).unwrap().0
}

proptest! {
    #[test]
    fn reads_what_was_written((fields, text) in message()) {
        prop_assert!(serde_accepts(text.as_bytes()), "{}", text);
        let scanned = scan(text.as_bytes());
        prop_assert_eq!(scanned.as_ref().map(|m| texts(&m.targets)).map_err(|e| *e), expected(&fields), "{}", text);
    }

    /// The fields that come out are those that went in, in the order of PROTOCOL section 5.
    #[test]
    fn composes_what_was_scanned((fields, text) in message()) {
        let Ok(message) = scan(text.as_bytes()) else { return Ok(()) };
        let last = |name: &str| fields.iter().rfind(|(key, _)| unescape(key) == name).map(|(_, value)| value.clone());
        let mut want = vec![
            ("\"id\"".to_owned(), format!("\"{}\"", stamp().id)),
            ("\"from\"".to_owned(), "\"alice-007\"".to_owned()),
        ];
        want.extend(["to", "type", "ref"].iter().filter_map(|name| Some((format!("\"{name}\""), last(name)?))));
        let known = ["id", "from", "to", "type", "ref", "payload", "ts"];
        want.extend(fields.iter().filter(|(key, _)| !known.contains(&&*unescape(key))).cloned());
        want.extend(last("payload").map(|payload| ("\"payload\"".to_owned(), payload)));
        want.push(("\"ts\"".to_owned(), "1760000000123".to_owned()));
        prop_assert_eq!(fields_of(&composed(&message)), want);
    }

    #[test]
    fn agrees_with_serde_json_after_any_change(
        (_, text) in message(), at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(&b"\"\\{}[],:0-+.eEtu \n\0"[..])], way in 0..4,
    ) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        match way {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
        prop_assert_eq!(scan_accepts(&bytes), serde_accepts(&bytes), "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn every_truncation_agrees_with_serde_json((_, text) in message()) {
        for cut in 0..text.len() {
            let bytes = &text.as_bytes()[..cut];
            prop_assert_eq!(scan_accepts(bytes), serde_accepts(bytes), "{}", cut);
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(scan_accepts(&bytes), serde_accepts(&bytes));
    }

    #[test]
    fn any_soup_of_tokens_agrees_with_serde_json(tokens in prop::collection::vec(
        prop::sample::select(&["{", "}", "[", "]", ",", ":", "\"to\"", "\"\\u00e9", "\"", "\\", "1", "-", ".", "e", "true", " ", "\n"][..]), 0..14,
    )) {
        let text = tokens.concat();
        prop_assert_eq!(scan_accepts(text.as_bytes()), serde_accepts(text.as_bytes()), "{}", text);
    }

    #[test]
    fn the_relays_own_messages_are_json(kind in any::<String>(), payload in prop::option::of(value()), reference in prop::option::of(string())) {
        let to = agent("bob-0001");
        let message = RelayMessage { to: &to, kind: &kind, reference: reference.as_deref(), payload: payload.as_deref() };
        let mut frame = Vec::new();
        compose_relay(&Author::relay(), &stamp(), &message, &mut frame);
        let fields = fields_of(body(&frame));
        let field = |name: &str| fields.iter().find(|(key, _)| unescape(key) == name).map(|(_, value)| value.as_str());
        prop_assert_eq!(field("from"), Some("\"relay\""));
        prop_assert_eq!(field("to"), Some(r#"["bob-0001"]"#));
        prop_assert_eq!(unescape(field("type").unwrap()), kind);
        prop_assert_eq!(field("ref"), reference.as_deref());
        prop_assert_eq!(field("payload"), payload.as_deref());
    }
}

#[test]
fn values_survive_the_way_through() {
    let payload =
        json!({"text": "\u{0}\"\\é😀", "numbers": [0, -1, 1.5, u64::MAX], "empty": [{}, [], ""]});
    let text =
        json!({"to": ["bob-0001"], "type": "t", "payload": payload, "x": {"y": null}}).to_string();
    let out: Value = serde_json::from_str(&composed(&scan(text.as_bytes()).unwrap())).unwrap();
    assert_eq!(out["payload"], payload);
    assert_eq!(out["x"], json!({"y": null}));
    assert_eq!(out["from"], "alice-007");
}
