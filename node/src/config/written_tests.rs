//! The layers: which wins, what each takes, and what is said of strange files.
#![allow(clippy::unwrap_used)] // a test's panic is its verdict

use proptest::prelude::*;

use super::*;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
}

fn from_file(text: &str) -> Written {
    let file = Some(SettingsFile { name: FILE_NAME.into(), text: text.into() });
    written(&Sources { file, ..Sources::default() })
}

fn from_dotenv(text: &str) -> Written {
    written(&Sources { dotenv: Some(text.into()), ..Sources::default() })
}

/// Text and origin of one setting.
fn given<'a>(written: &'a Written, key: &str) -> Option<(&'a str, &'a str)> {
    written.given.get(key).map(|given| (given.text.as_str(), given.origin.as_str()))
}

fn said(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_layer_wins_over_those_below() {
    let mut sources = Sources {
        flags: pairs(&[("PORT", "1")]),
        environment: pairs(&[("PORT", "2")]),
        dotenv: Some("# ours\nPORT=3".into()),
        file: Some(SettingsFile { name: "my.toml".into(), text: "port = 4".into() }),
        ..Sources::default()
    };
    let winner = |sources: &Sources| {
        given(&written(sources), "port").map(|(text, origin)| (text.to_owned(), origin.to_owned()))
    };
    assert_eq!(winner(&sources), Some(("1".into(), "flag --port".into())));
    sources.flags.clear();
    assert_eq!(winner(&sources), Some(("2".into(), "environment".into())));
    sources.environment.clear();
    assert_eq!(winner(&sources), Some(("3".into(), ".env:2".into())));
    sources.dotenv = None;
    assert_eq!(winner(&sources), Some(("4".into(), "my.toml".into())));
    sources.file = None;
    assert_eq!(winner(&sources), None);
}

#[test]
fn layers_complete_each_other() {
    let written = written(&Sources {
        environment: pairs(&[("HOST", "::1"), ("HOME", "/root"), ("port", "1")]),
        dotenv: Some("REGION=eu".into()),
        ..Sources::default()
    });
    assert_eq!(given(&written, "host"), Some(("::1", "environment")));
    assert_eq!(given(&written, "region"), Some(("eu", ".env:1")));
    assert_eq!(written.given.len(), 2);
}

#[test]
fn empty_variables_count_as_not_set() {
    let written = written(&Sources {
        environment: pairs(&[("PORT", ""), ("REDIS_URL", "")]),
        dotenv: Some("PORT=\nREGION=eu".into()),
        file: Some(SettingsFile { name: FILE_NAME.into(), text: "port = 4".into() }),
        ..Sources::default()
    });
    assert_eq!(given(&written, "port"), Some(("4", FILE_NAME)));
    assert!(written.notices.is_empty());
}

#[test]
fn the_file_takes_every_plain_type() {
    let written = from_file(
        "port = 9000\nbehind_proxy = true\ntoken_ttl = \"30d\"\n\
         allowed_origins = [\"https://a.b\", \"https://c.d\"]\nrate_limit_per_min = 1.5",
    );
    assert_eq!(said(&written.problems), "");
    assert_eq!(given(&written, "port"), Some(("9000", FILE_NAME)));
    assert_eq!(given(&written, "behind_proxy"), Some(("true", FILE_NAME)));
    assert_eq!(given(&written, "allowed_origins"), Some(("https://a.b,https://c.d", FILE_NAME)));
    assert_eq!(given(&written, "rate_limit_per_min"), Some(("1.5", FILE_NAME)));
}

#[test]
fn the_file_says_which_keys_mean_nothing() {
    let written = from_file("prot = 1\nPORT = 2\n\"max-connections\" = 3\n[section]\nport = 4");
    let suggestions: BTreeMap<_, _> = written
        .notices
        .iter()
        .filter_map(|notice| match notice {
            Notice::UnknownKey { key, suggestion, .. } => {
                Some((key.as_str(), suggestion.as_deref()))
            }
            _ => None,
        })
        .collect();
    let expected = [
        ("prot", Some("port")),
        ("PORT", Some("port")),
        ("max-connections", Some("max_connections")),
        ("section", None),
    ];
    assert_eq!(suggestions, BTreeMap::from(expected));
    assert!(written.given.is_empty());
}

#[test]
fn a_table_is_no_value() {
    let written = from_file("port = { public = 1 }\nhost = [[1], {}]");
    assert_eq!(written.problems.len(), 2);
    assert!(said(&written.problems).contains("port (arc-relay.toml): must be a text, a number"));
}

#[test]
fn a_broken_file_is_located_but_not_repeated() {
    for text in [
        "port = 1\nregistration_key = \"tell-nobody",
        "registration_key = tell-nobody",
        "registration_key = \"tell\\-nobody\"",
        "registration_key = 'a' tell-nobody",
    ] {
        let written = from_file(text);
        let said = said(&written.problems);
        assert!(said.contains("arc-relay.toml: TOML parse error at line"), "{said}");
        assert!(!said.contains("nobody") && !said.contains('|'), "{said}");
    }
}

#[test]
fn dotenv_lines_are_counted() {
    let written = from_dotenv(
        "\u{feff}# comment\n\nexport PORT=1\nFOREIGN=\"two\nlines\"\n  HOST = '::1' # local\nPORT=2\n",
    );
    assert_eq!(said(&written.problems), "");
    assert_eq!(given(&written, "host"), Some(("::1", ".env:6")));
    assert_eq!(given(&written, "port"), Some(("2", ".env:7")));
}

#[test]
fn dotenv_warns_of_misspellings_only() {
    let written = from_dotenv("DATABASE_URL=x\nRATE_LIMITS_PER_MIN=5\nRAILS_ENV=test\n");
    let misspelt = Notice::Misspelt {
        origin: ".env:2".into(),
        name: "RATE_LIMITS_PER_MIN".into(),
        suggestion: "RATE_LIMIT_PER_MIN".into(),
    };
    assert_eq!(written.notices, [misspelt]);
}

#[test]
fn a_broken_dotenv_line_is_located_but_not_repeated() {
    let written =
        from_dotenv("PORT=1\nREGISTRATION_KEY=tell nobody\n\nHOST=::1\nREGION='tell-nobody");
    let said = said(&written.problems);
    assert!(said.contains(".env:2: must be NAME=value"), "{said}");
    assert!(said.contains(".env:5: must be NAME=value"), "{said}");
    assert!(!said.contains("nobody"), "{said}");
    assert_eq!(given(&written, "host"), Some(("::1", ".env:4")));
}

#[test]
fn redis_is_named_as_no_longer_needed_wherever_it_is_set() {
    for written in [
        from_dotenv("REDIS_URL=redis://:password@host"),
        from_file("redis_url = 'redis://:password@host'"),
        written(&Sources {
            environment: pairs(&[("REDIS_URL", "redis://:password@host")]),
            ..Sources::default()
        }),
    ] {
        let said: Vec<_> = written.notices.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "REDIS_URL is no longer needed: names are kept under DATA_DIR, and SEEDS makes several nodes one relay"
            ]
        );
    }
}

#[test]
fn gathering_reads_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let sources = Sources::gather(Vec::new(), None, folder.path());
    assert!(sources.dotenv.is_none() && sources.file.is_none() && sources.unreadable.is_empty());
    assert!(!sources.host_name.is_empty());

    fs::write(folder.path().join(".env"), "PORT=1").unwrap();
    fs::write(folder.path().join(FILE_NAME), "port = 2").unwrap();
    let sources = Sources::gather(Vec::new(), None, folder.path());
    assert_eq!(sources.dotenv.as_deref(), Some("PORT=1"));
    assert_eq!(sources.file.map(|file| file.text).as_deref(), Some("port = 2"));
}

#[test]
fn what_cannot_be_read_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".env"), b"PORT=\xff").unwrap();
    let missing = folder.path().join("missing.toml");
    let sources = Sources::gather(Vec::new(), Some(&missing), folder.path());
    let said = said(&written(&sources).problems);
    assert!(said.contains(".env: cannot be read"), "{said}");
    assert!(said.contains("missing.toml: cannot be read"), "{said}");
}

proptest! {
    #[test]
    fn no_file_panics(text in any::<String>(), dotenv in any::<String>()) {
        let _ = (from_file(&text), from_dotenv(&dotenv));
    }

    #[test]
    fn no_likely_file_panics(
        text in r#"((port|x|redis_url|host) ?= ?([0-9.]{1,5}|"[a-z$\\]*"|\[[0-9, ]*\]|\{[a-z=1]*\})?\n|.)*"#,
        dotenv in r#"((export )?(PORT|X|PROT|HOST|#) ?=? ?["'$\\{}a #=.-]*\n?)*"#,
    ) {
        let _ = (from_file(&text), from_dotenv(&dotenv));
    }
}

#[test]
fn a_variable_that_is_almost_one_of_ours_is_named() {
    let named = |name: &str| {
        let sources = Sources { foreign: vec![name.to_owned()], ..Sources::default() };
        written(&sources).notices.first().map(ToString::to_string)
    };
    for (name, meant) in [
        ("MAX_CONNECTION", "MAX_CONNECTIONS"),
        ("SEED", "SEEDS"),
        ("CLUSTER_SECRTE", "CLUSTER_SECRET"),
        ("RATE_LIMIT_PER_MINUTE", "RATE_LIMIT_PER_MIN"),
        ("PORTS", "PORT"),
    ] {
        let told = named(name).unwrap_or_default();
        assert!(told.starts_with(name) && told.contains(&format!("{meant}?")), "{name}: {told}");
        assert!(told.contains("environment"), "{told}");
    }
    for foreign in ["POST", "SORT", "PATH", "HOSTNAME", "AWS_REGION", "NODE_VERSION", "LOGNAME"] {
        assert_eq!(named(foreign), None, "{foreign}");
    }
}
