//! What each rule takes and refuses, and that no text panics any of them.
#![allow(clippy::unwrap_used)] // a test's panic is its verdict

use proptest::prelude::*;

use super::*;
use crate::config::{Config, settings};

/// Each accepted text with how its value is shown.
fn shown<T: 'static>(rule: &Rule<T>, text: &str) -> Option<String> {
    rule.read(text).map(|value| rule.show(&value))
}

fn refuses<T: 'static>(rule: &Rule<T>, texts: &[&str]) {
    for text in texts {
        assert!(rule.read(text).is_none(), "{text:?} was taken");
    }
}

#[test]
fn names_are_in_small_letters_and_may_stand_for_all_below() {
    let rule = names();
    for (text, back) in [
        ("none", "none"),
        ("*", "*"),
        ("Ops.Example.com., relay_1", "ops.example.com,relay_1"),
        ("*.Example.com,a,10.0.0.1", "*.example.com,a,10.0.0.1"),
    ] {
        assert_eq!(shown(&rule, text).as_deref(), Some(back), "{text}");
        assert_eq!(rule.read(back), rule.read(text), "{text}");
    }
    refuses(
        &rule,
        &["", ",", "a,", "*.", "*a", "a.*.b", "*.*.a", "a:80", "https://a.b", "a b", "0.0.0.0"],
    );
}

#[test]
fn numbers_are_plain_digits_in_range() {
    let rule = number::<u16>(0..=65_535);
    assert_eq!(rule.read("0"), Some(0));
    assert_eq!(rule.read(" 65535 "), Some(65_535));
    refuses(&rule, &["", "65536", "-1", "+1", "1.5", "1e3", "0x10", "99999999999999999999999"]);
    refuses(&number::<u32>(1..=9), &["0", "10"]);
}

#[test]
fn sizes_take_binary_units() {
    let rule = bytes(256..=16 << 20);
    for (text, size) in [("65536", 65_536), ("64KiB", 65_536), ("1 MiB", 1 << 20), ("256", 256)] {
        assert_eq!(rule.read(text), Some(size), "{text}");
    }
    refuses(
        &rule,
        &["255", "17MiB", "64KB", "64k", "KiB", "-1KiB", "1.5MiB", "18014398509481985KiB"],
    );
    assert_eq!(shown(&rule, "65536").as_deref(), Some("64KiB"));
    assert_eq!(shown(&rule, "1000").as_deref(), Some("1000"));
}

#[test]
fn durations_take_units_and_bare_seconds() {
    let rule = duration(Duration::from_millis(10)..=Duration::from_hours(365 * 24));
    for (text, millis) in
        [("30d", 2_592_000_000), ("12h", 43_200_000), ("90", 90_000), ("1h 30m", 5_400_000)]
    {
        assert_eq!(rule.read(text), Some(Duration::from_millis(millis)), "{text}");
    }
    refuses(&rule, &["", "0", "9ms", "366d", "-1s", "soon", "10 parsecs", "99999999999999999999d"]);
    for (text, back) in [("3600", "1h"), ("5400", "90m"), ("1500ms", "1500ms"), ("365d", "365d")] {
        assert_eq!(shown(&rule, text).as_deref(), Some(back));
    }
}

#[test]
fn a_duration_may_be_never() {
    let rule = duration(Duration::from_secs(1)..=Duration::from_mins(1)).or("never");
    assert_eq!(rule.read("0"), Some(None));
    assert_eq!(rule.read("Never"), Some(None));
    assert_eq!(rule.read("5s"), Some(Some(Duration::from_secs(5))));
    refuses(&rule, &["", "61", "none"]);
    assert!(rule.allowed.ends_with("or never"));
}

#[test]
fn switches_take_the_usual_words() {
    for (text, on) in [("true", true), ("1", true), ("YES", true), ("off", false), ("0", false)] {
        assert_eq!(switch().read(text), Some(on), "{text}");
    }
    refuses(&switch(), &["", "2", "maybe", "tru"]);
}

#[test]
fn choices_name_their_words() {
    assert_eq!(environment().read("Production"), Some(true));
    assert_eq!(environment().read("test"), Some(false));
    assert_eq!(environment().show(&false), "development");
    assert_eq!(environment().allowed, "one of development, production, test");
    assert_eq!(subscribe_scope().read("all"), Some(SubscribeScope::All));
    assert_eq!(log_format().read("json"), Some(LogFormat::Json));
    refuses(&environment(), &["", "prod"]);
}

#[test]
fn addresses_are_numeric() {
    for (text, back) in
        [("0.0.0.0", "0.0.0.0"), ("::", "::"), ("[::1]", "::1"), ("localhost", "127.0.0.1")]
    {
        assert_eq!(shown(&address(), text).as_deref(), Some(back));
    }
    refuses(&address(), &["", "relay.example.com", "1.2.3", "127.0.0.1:80", "[127.0.0.1]", "[::1"]);
}

#[test]
fn networks_are_addresses_or_prefixes() {
    for (text, back) in [
        ("10.0.0.0/8, ::1", "10.0.0.0/8,::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("fd00::/8", "fd00::/8"),
        ("none", "none"),
    ] {
        assert_eq!(shown(&networks(), text).as_deref(), Some(back));
    }
    refuses(&networks(), &["10.0.0.0/33", "10.0.0.1,", "proxy", "10.0.0.1 10.0.0.2"]);
}

#[test]
fn origins_are_spelt_as_browsers_send_them() {
    for (text, back) in [
        ("https://Example.com", "https://example.com"),
        ("https://example.com:443", "https://example.com"),
        ("http://localhost:3000 , https://a.b", "http://localhost:3000,https://a.b"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://[::1]", "http://[::1]"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("*", "*"),
        ("https://a.b,*", "*"),
    ] {
        assert_eq!(shown(&origins(), text).as_deref(), Some(back), "{text}");
    }
    refuses(
        &origins(),
        &[
            "",
            "example.com",
            "https://",
            "https://example.com/",
            "https://example.com/chat",
            "https://user@example.com",
            "https://example.com:0",
            "https://example.com:65536",
            "https://example.com:",
            "https://exa mple.com",
            "https://a.b,,https://c.d",
            "https://*.example.com",
            "https://[::1",
            "1http://a.b",
            "null",
            "*,nonsense",
        ],
    );
}

#[test]
fn names_are_bounded() {
    assert!(title().read("Café relay ☕").is_some());
    refuses(&title(), &["", "  ", "a\nb", &"x".repeat(65)]);
    assert!(label().read("node-1.eu_west").is_some());
    refuses(&label(), &["", "-node", "no de", "nöde", &"x".repeat(64)]);
}

#[test]
fn folders_are_paths() {
    assert_eq!(folder().read("/var/lib/arc"), Some("/var/lib/arc".into()));
    refuses(&folder(), &["", " ", "a\0b"]);
}

#[test]
fn secrets_fit_into_a_header_and_are_not_shown() {
    assert_eq!(shown(&secret(), "open-sesame").as_deref(), Some("(hidden)"));
    refuses(&secret(), &["", "short", "has a space in it", "ümläute-und-mehr", &"x".repeat(257)]);
}

/// Text as it might be meant, so that properties reach beyond the first character.
fn likely_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        r"[0-9]{1,22} ?(ms|s|m|h|d|y|KiB|MiB|GiB)?( [0-9]+s)?",
        r"(https?|ws|x-y)://[a-z\[\]:.0-9*@/]{0,24}(, ?[a-z:/*]{0,8})?",
        r"[0-9a-f:.\[\]/,]{0,40}",
        r"([a-zA-Z0-9.-]{1,8}(:[0-9]{1,5})?,? ?){1,3}",
        r"(info|node|x)([=,:\[\]{}]|debug|::){0,6}",
    ]
}

proptest! {
    #[test]
    fn no_text_panics_and_what_is_read_can_be_shown_and_read_again(text in likely_text()) {
        for setting in settings() {
            let mut config = Config::default();
            if setting.read(&text, &mut config) && !setting.is_secret {
                let mut again = Config::default();
                prop_assert!(setting.read(&setting.show(&config), &mut again), "{}", setting.variable);
                prop_assert_eq!(&config, &again, "{}", setting.variable);
            } else if !setting.is_secret {
                prop_assert_eq!(&config, &Config::default(), "{}", setting.variable);
            }
        }
    }
}
