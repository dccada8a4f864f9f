//! Any bytes as a client's message: the scanner agrees with `serde_json` on what JSON is, and what it
//! accepts comes out of the composer with its payload and extra fields as they were.

#![no_main]

use std::fmt;

use cluster::UnixMillis;
use libfuzzer_sys::fuzz_target;
use node::message::{
    Author, ProcessTag, ScanError, Scanned, SessionTag, Stamper, Targets, compose, scan,
};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

fuzz_target!(|bytes: &[u8]| {
    let is_json = std::str::from_utf8(bytes)
        .is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    match scan(bytes) {
        Ok(message) => {
            assert!(is_json, "accepted what is no JSON");
            check_targets(&message);
            check_composed(&message);
        }
        Err(ScanError::NotUtf8) => assert!(std::str::from_utf8(bytes).is_err()),
        Err(ScanError::NotJson { at, .. }) => {
            assert!(!is_json, "refused what is JSON");
            assert!(at <= bytes.len());
        }
        Err(_) => assert!(is_json, "blamed the fields of what is no JSON"),
    }
});

fn check_targets(message: &Scanned<'_>) {
    let entries: Vec<&RawValue> = serde_json::from_str(message.to).expect("an array");
    assert!((1..=256).contains(&entries.len()));
    assert!(message.payload.is_some() || message.targets == Targets::Relay);
    if let Targets::Agents(ids) = &message.targets {
        for (place, id) in ids.iter().enumerate() {
            assert!(!ids[..place].contains(id), "{id} twice");
        }
    }
}

fn check_composed(message: &Scanned<'_>) {
    let author = Author::new(&"rawk-042".parse().expect("a well-formed id"));
    let stamp = Stamper::new(SessionTag::new(ProcessTag::from_random(1), 1)).next(UnixMillis(1));
    let mut frame = Vec::new();
    compose(&author, &stamp, message, &mut frame);
    let header_len = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let text = std::str::from_utf8(&frame[header_len..]).expect("UTF-8");
    let fields = serde_json::from_str::<Fields<'_>>(text).expect("an object").0;
    let value = |name| fields.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    assert_eq!(value("\"from\""), Some("\"rawk-042\""));
    assert_eq!(value("\"to\""), Some(message.to));
    assert_eq!(value("\"type\""), message.kind);
    assert_eq!(value("\"ref\""), message.reference);
    assert_eq!(value("\"payload\""), message.payload);
    assert_eq!(fields.last(), Some(&("\"ts\"", "1")));
    let runs: Vec<String> = message.extras.iter().map(|run| format!("{{{run}}}")).collect();
    let extras: Vec<_> = runs
        .iter()
        .flat_map(|run| serde_json::from_str::<Fields<'_>>(run).expect("a run of fields").0)
        .collect();
    let known = ["to", "type", "ref", "payload", "id", "from", "ts"];
    for (key, _) in &extras {
        assert!(!known.contains(&&*node::message::unescape(key)), "{key} among the extra fields");
    }
    let first = 3 + usize::from(message.kind.is_some()) + usize::from(message.reference.is_some());
    assert_eq!(fields[first..first + extras.len()], extras);
    let rest = 1 + usize::from(message.payload.is_some());
    assert_eq!(fields.len(), first + extras.len() + rest);
}

/// The fields of an object as they are written, repeated ones included.
struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            fields.push((key.get(), value.get()));
        }
        Ok(Fields(fields))
    }
}
