//! JSON objects seen as their bytes: every member in its place, repeated ones too.

use serde::{Deserializer, de};
use serde_json::value::RawValue;

/// The members of the object `text`, in their order: key without escapes, value as its bytes.
pub fn fields(text: &str) -> Vec<(String, String)> {
    struct Members;

    impl<'de> de::Visitor<'de> for Members {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                members.push((key, value.get().to_owned()));
            }
            Ok(members)
        }
    }

    let mut parser = serde_json::Deserializer::from_str(text);
    parser.deserialize_map(Members).unwrap_or_else(|e| panic!("{e} in {text}"))
}

/// The bytes of the one member of `text` that is named `key`.
pub fn field(text: &str, key: &str) -> String {
    let mut values = fields(text).into_iter().filter(|(k, _)| k == key).map(|(_, value)| value);
    let value = values.next().unwrap_or_else(|| panic!("no `{key}` in {text}"));
    assert_eq!(values.next(), None, "`{key}` is there twice in {text}");
    value
}
