//! What an operator sees at a terminal, and what a script gets in its place.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::{
    Client, Relay,
    process::{self, Running},
    skip,
};

/// Tells a program to stop, as Ctrl-C does, and expects that it has done its work.
async fn interrupt(mut program: Running) {
    let pid = i32::try_from(program.pid()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process has an id"), Signal::INT).expect("it runs");
    assert_eq!(program.code().await, Some(0));
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// The next line with this in it.
async fn line_with(program: &mut Running, part: &str) -> String {
    loop {
        let line = program.line().await.unwrap_or_else(|| panic!("no line with {part:?}"));
        if line.contains(part) {
            return line;
        }
    }
}

#[tokio::test]
async fn a_status_is_shown_again_and_again_until_ctrl_c() {
    let mut relay = Relay::start();
    let mut watch =
        Running::start(relay.operator(&["status", "--watch", "--every", "20ms", "--json"]));
    for _ in 0..3 {
        let report = json(&watch.line().await.expect("a line"));
        assert_eq!(report["nodes"][0]["state"], "alive");
    }
    interrupt(watch).await;

    let mut watch = Running::start(relay.operator(&["status", "--watch", "--every", "20ms"]));
    for _ in 0..2 {
        let first = line_with(&mut watch, "1 node").await;
        assert!(first.starts_with("1 node, 0 agents"), "no escapes without a terminal: {first:?}");
    }
    // It outlives the node, and finds its successor.
    relay.set("STATS_PORT", &relay.ops.port().to_string());
    relay.kill9();
    relay.start_again();
    let token = relay.register("ann-1").await;
    let _agent = Client::connect(&relay, &token).await;
    line_with(&mut watch, "1 node, 1 agent,").await;
    interrupt(watch).await;
}

/// The command on a terminal, by util-linux's `script`.
fn on_a_terminal(command: &Command) -> Command {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    script.env_clear().env("TERM", "xterm");
    for (name, value) in command.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    script.current_dir(command.get_current_dir().expect("it has one"));
    script
}

fn has_script() -> bool {
    Command::new("script").arg("--version").output().is_ok()
}

#[tokio::test]
async fn a_terminal_gets_colours_unless_its_user_wants_none() {
    if !has_script() {
        return skip("no script: apt-get install bsdutils");
    }
    let relay = Relay::start();
    let status = relay.operator(&["status"]);
    let shown = process::run(on_a_terminal(&status)).await.expect_code(0).stdout;
    assert!(shown.contains("\u{1b}[32malive\u{1b}[0m"), "{shown:?}");
    let mut plain = on_a_terminal(&status);
    plain.env("NO_COLOR", "1");
    let shown = process::run(plain).await.expect_code(0).stdout;
    assert!(shown.contains("alive") && !shown.contains('\u{1b}'), "{shown:?}");
    let piped = process::run(status).await.expect_code(0).stdout;
    assert!(piped.contains("alive") && !piped.contains('\u{1b}'), "{piped:?}");
}

#[tokio::test]
async fn a_terminal_shows_a_status_in_the_place_of_the_one_before() {
    if !has_script() {
        return skip("no script: apt-get install bsdutils");
    }
    let relay = Relay::start();
    let words = ["status", "--watch", "--every", "20ms"];
    let mut watch = Running::start(on_a_terminal(&relay.operator(&words)));
    for _ in 0..2 {
        let line = line_with(&mut watch, "1 node").await;
        assert!(line.ends_with("\u{1b}[K\r") || line.ends_with("\u{1b}[K"), "{line:?}");
    }
    let line = line_with(&mut watch, "1 node").await;
    let up = line.split_once("\u{1b}[J\u{1b}[").map(|(_, rest)| rest.starts_with(char::is_numeric));
    assert_eq!(up, Some(true), "it goes up as many lines as there are: {line:?}");
}

#[tokio::test]
async fn a_question_is_asked_at_a_terminal() {
    if !has_script() {
        return skip("no script: apt-get install bsdutils");
    }
    let relay = Relay::start();
    relay.register("ann-1").await;
    let ban = relay.operator(&["agents", "ban", "ann-1"]);
    let asked = process::run(on_a_terminal(&ban)).await;
    let asked = asked.expect_code(2).stdout;
    assert!(asked.contains("Go on? [y/N]") && asked.contains("nothing was done"), "{asked}");
    let shown = relay.admin("GET", "/agents/ann-1").await.expect_status(200).json();
    assert_eq!(shown["banned"], false);
}

#[tokio::test]
async fn long_work_shows_how_far_it_is_at_a_terminal_only() {
    if !has_script() {
        return skip("no script: apt-get install bsdutils");
    }
    let relay = Relay::start();
    std::fs::write(relay.folder().join("names.json"), r#"["ann-1", "bob-1"]"#)
        .expect("the folder can be written");
    let import = relay.operator(&["agents", "import", "names.json"]);
    let shown = process::run(on_a_terminal(&import)).await.expect_code(0).stdout;
    assert!(shown.contains("names imported [") && shown.contains("2 of 2"), "{shown:?}");
    let piped = process::run(import).await.expect_code(0);
    assert_eq!((piped.stderr.as_str(), piped.stdout.lines().count()), ("", 1), "{piped:?}");
}

#[tokio::test]
async fn nodes_are_a_table_or_an_object_a_line() {
    let relay = Relay::with(&[("NODE_NAME", "solo"), ("REGION", "eu")]);
    let shown = process::run(relay.operator(&["nodes"])).await.expect_code(0).stdout;
    let row = shown.lines().nth(1).expect("a row");
    assert!(shown.starts_with("NODE  ID") && row.starts_with("solo  "), "{shown}");
    let shown = process::run(relay.operator(&["nodes", "--json"])).await.expect_code(0).stdout;
    assert_eq!(shown.lines().count(), 1, "{shown}");
    let node = json(&shown);
    assert_eq!((&node["name"], &node["region"]), (&"solo".into(), &"eu".into()));
    assert!(row.contains(node["id"].as_str().expect("a text")), "{row}");
}

#[tokio::test]
async fn events_are_shown_and_followed_over_a_restart_of_the_node() {
    let mut relay = Relay::start();
    relay.register("ann-1").await;
    relay.admin("POST", "/agents/ann-1/ban").await.expect_status(200);
    relay.admin("POST", "/agents/nobody-1/ban").await.expect_status(404);
    let shown = process::run(relay.operator(&["events"])).await.expect_code(0).stdout;
    assert!(shown.contains("started, release") && shown.contains("ban an agent"), "{shown}");
    let urgent = ["events", "--level", "warn", "--json"];
    let shown = process::run(relay.operator(&urgent)).await.expect_code(0).stdout;
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert_eq!(json(&shown)["text"], "ban an agent, from 127.0.0.1: unknown_agent");
    let last = process::run(relay.operator(&["events", "-n", "1"])).await.expect_code(0).stdout;
    assert!(last.lines().count() == 1 && last.contains("unknown_agent"), "{last}");
    process::run(relay.operator(&["events", "--level", "loud"])).await.expect_code(2);

    let follow = ["events", "--follow", "-n", "0", "--json"];
    let mut follower = Running::start(relay.operator(&follow));
    // Whether it follows already cannot be seen: so it happens until it is shown.
    let bans = async || {
        loop {
            relay.admin("POST", "/agents/ann-1/ban").await.expect_status(200);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let line = tokio::select! {
        line = follower.line() => line.expect("a line"),
        () = bans() => unreachable!("it does not end"),
    };
    assert!(json(&line)["text"].as_str().is_some_and(|text| text.starts_with("ban an agent")));
    relay.set("STATS_PORT", &relay.ops.port().to_string());
    relay.kill9();
    relay.start_again();
    let line = line_with(&mut follower, "started, release").await;
    assert_eq!(json(&line)["seq"], 1, "in its new life the node counts from one");
    interrupt(follower).await;
}

#[tokio::test]
async fn the_only_node_is_drained_if_it_is_meant() {
    let mut relay = Relay::with(&[("NODE_NAME", "solo")]);
    let mut agent = relay.agent("ann-1").await;
    let refused = process::run(relay.operator(&["drain"])).await.expect_code(2).stderr;
    assert!(refused.contains("no other node takes agents"), "{refused}");
    assert!(refused.lines().count() == 1 && refused.contains("--yes"), "{refused}");
    let unknown = process::run(relay.operator(&["drain", "other"])).await.expect_code(3).stderr;
    assert!(unknown.contains("no node is called \"other\""), "{unknown}");
    relay.assert_healthy().await;

    let drained = tokio::spawn(process::run(relay.operator(&["drain", "solo", "--yes"])));
    agent.expect_close(1001).await;
    drop(agent);
    assert_eq!(relay.wait_exit().code(), Some(0));
    let drained = drained.await.expect("it ends").expect_code(0);
    assert_eq!(drained.stdout, "solo has left\n");
    let audit = relay.log.text();
    assert!(audit.contains(r#""action":"drain","what":"solo""#), "{audit}");
}

#[tokio::test]
async fn shells_and_man_know_the_commands() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let arc = async |words: &[&str]| {
        let mut command = Relay::command(folder.path());
        command.args(words);
        process::run(command).await
    };
    for shell in ["bash", "zsh", "fish"] {
        let script = arc(&["completions", shell]).await.expect_code(0).stdout;
        for word in ["drain", "doctor", "--follow", "max-connections"] {
            assert!(script.contains(word.trim_start_matches('-')), "{word} in {shell}");
        }
    }
    arc(&["completions", "tcsh"]).await.expect_code(2);
    // Bash itself: what may follow `arc-relay eve`.
    let script = arc(&["completions", "bash"]).await.expect_code(0).stdout;
    std::fs::write(folder.path().join("completions"), script).expect("the folder can be written");
    let mut bash = Command::new("bash");
    let asks = "source completions; COMP_WORDS=(arc-relay eve); COMP_CWORD=1; \
                _arc__relay arc-relay eve arc-relay; echo \"${COMPREPLY[@]}\"";
    bash.args(["-c", asks]).current_dir(folder.path());
    assert_eq!(process::run(bash).await.expect_code(0).stdout, "events\n");

    let page = arc(&["man"]).await.expect_code(0).stdout;
    assert!(page.contains(".TH arc-relay 1"), "{page}");
    let said = arc(&["man", "pages"]).await.expect_code(0).stdout;
    assert!(said.starts_with("wrote ") && said.ends_with(" pages into pages\n"), "{said}");
    let drain = std::fs::read_to_string(folder.path().join("pages/arc-relay-drain.1"));
    assert!(drain.expect("it is there").contains("no\\-wait"));
}
