//! How a relay is told what to do, and how it says no.

use std::process::Command;

use tests::{Relay, http, process};

/// The binary in an empty folder, with no setting but those given.
fn bare(folder: &tempfile::TempDir, settings: &[(&str, &str)]) -> Command {
    let mut command = Relay::command(folder.path());
    command.env_clear().envs(settings.iter().copied());
    command
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

#[tokio::test]
async fn all_mistakes_are_reported_at_once_each_with_its_name_and_what_is_allowed() {
    let folder = folder();
    let settings = [
        ("PORT", "http"),
        ("MAX_CONNECTIONS", "-5"),
        ("HOST", "not an address"),
        ("TOKEN_TTL", "soon"),
        ("SUBSCRIBE_SCOPE", "everything"),
        ("REGISTRATION_KEY", "a secret that is quoted nowhere\u{7}"),
    ];
    for check in [&["--check-config"][..], &[]] {
        let mut command = bare(&folder, &settings);
        command.args(check);
        let finished = process::run(command).await.expect_code(2);
        for variable in ["PORT", "MAX_CONNECTIONS", "HOST", "TOKEN_TTL", "SUBSCRIBE_SCOPE"] {
            assert!(finished.stderr.contains(variable), "{variable}: {}", finished.stderr);
        }
        assert!(finished.stderr.contains("65535"), "what is allowed: {}", finished.stderr);
        assert!(!finished.stderr.contains("quoted nowhere"), "{}", finished.stderr);
    }
    assert!(!folder.path().join("arc-data").exists(), "nothing has been begun");
}

#[tokio::test]
async fn a_good_configuration_is_called_good_and_nothing_is_started() {
    let folder = folder();
    let mut command = bare(&folder, &[("PORT", "9000"), ("REGISTRATION_KEY", "s3cret-0123456789")]);
    command.arg("--check-config");
    let finished = process::run(command).await.expect_code(0);
    assert!(finished.stdout.contains("9000"), "what differs is shown: {}", finished.stdout);
    assert!(!finished.stdout.contains("s3cret"), "{}", finished.stdout);
    assert!(!folder.path().join("arc-data").exists(), "nothing has been begun");
}

#[tokio::test]
async fn production_wants_encryption_on_a_public_address() {
    let folder = folder();
    let check = async |settings: &[(&str, &str)]| {
        let mut command = bare(&folder, settings);
        command.env("NODE_ENV", "production").arg("--check-config");
        process::run(command).await
    };
    let refused = check(&[("HOST", "0.0.0.0")]).await.expect_code(2);
    assert!(refused.stderr.contains("BEHIND_PROXY"), "the way out is named: {}", refused.stderr);
    check(&[("HOST", "0.0.0.0"), ("BEHIND_PROXY", "true")]).await.expect_code(0);
    check(&[("HOST", "127.0.0.1")]).await.expect_code(0);
}

#[tokio::test]
async fn flags_win_over_the_environment_over_dotenv_over_the_file_over_defaults() {
    let folder = folder();
    let file = "rate_limit_per_min = 1\nmax_message_size = 1001\nregion = \"file\"\nnode_name = \"file\"\n";
    std::fs::write(folder.path().join("arc-relay.toml"), file).expect("the folder can be written");
    let dotenv = "RATE_LIMIT_PER_MIN=2\nMAX_MESSAGE_SIZE=1002\nREGION=dotenv\n";
    std::fs::write(folder.path().join(".env"), dotenv).expect("the folder can be written");
    let settings = [("RATE_LIMIT_PER_MIN", "3"), ("MAX_MESSAGE_SIZE", "1003")];
    let mut command = bare(&folder, &settings);
    command.args(["--rate-limit-per-min", "4", "--check-config"]);
    let shown = process::run(command).await.expect_code(0).stdout;
    let line_of = |variable: &str| {
        let line = shown.lines().find(|line| line.contains(variable));
        line.unwrap_or_else(|| panic!("{variable} in {shown}")).to_owned()
    };
    let rows = [
        ("RATE_LIMIT_PER_MIN", "4"),
        ("MAX_MESSAGE_SIZE", "1003"),
        ("REGION", "dotenv"),
        ("NODE_NAME", "file"),
    ];
    for (variable, value) in rows {
        assert!(line_of(variable).contains(value), "{variable} is {value}: {shown}");
    }
}

#[tokio::test]
async fn a_name_that_means_nothing_is_refused_by_the_check() {
    let folder = folder();
    std::fs::write(folder.path().join("arc-relay.toml"), "max_conections = 5\n")
        .expect("the folder can be written");
    let mut command = bare(&folder, &[]);
    command.arg("--check-config");
    let finished = process::run(command).await.expect_code(2);
    assert!(finished.stderr.contains("max_conections"), "{}", finished.stderr);
}

#[tokio::test]
async fn variables_of_the_reference_relay_still_work_or_say_that_they_are_not_needed() {
    let relay = Relay::with(&[("REDIS_URL", "redis://localhost"), ("LOG_LEVEL", "info")]);
    http::get(relay.public, "/health").await.expect_status(200);
    assert!(relay.log.text().contains("REDIS_URL"), "{}", relay.log.text());
}

#[tokio::test]
async fn help_and_version_answer_a_newcomer() {
    let folder = folder();
    let mut help = bare(&folder, &[]);
    help.arg("--help");
    let help = process::run(help).await.expect_code(0).stdout;
    for word in ["PORT", "DATA_DIR", "MAX_CONNECTIONS", "--check-config", "agent", "8080"] {
        assert!(help.contains(word), "{word} is not in the help: {help}");
    }
    let mut version = bare(&folder, &[]);
    version.arg("--version");
    let version = process::run(version).await.expect_code(0).stdout;
    assert!(version.starts_with("arc-relay "), "{version}");
    let mut nonsense = bare(&folder, &[]);
    nonsense.arg("--no-such-flag");
    process::run(nonsense).await.expect_code(2);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let relay = Relay::start();
    let folder = folder();
    let port = relay.public.port().to_string();
    let settings = [("HOST", "127.0.0.1"), ("PORT", &port), ("STATS_PORT", "0")];
    let finished = process::run(bare(&folder, &settings)).await.expect_code(1);
    let said = finished.stdout + &finished.stderr;
    assert!(said.contains(&port) && said.contains("PORT"), "{said}");
}
