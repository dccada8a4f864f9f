//! Every command of every page is run, page by page, each in a namespace of its own in which all ports are free and
//! `/etc`, `/usr` and `/var` may be written; or it has a mark that says why not.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use tests::{arc_relay, left_out, repository, scripts, skip};

use crate::pages::{Block, Manner, Page, pages};

/// How long one page may take.
const PAGE_MAX: Duration = Duration::from_mins(2);

/// The script that does what a page says, one block after the other.
fn script(page: &Page) -> Option<String> {
    let blocks = page.blocks();
    for block in &blocks {
        if let Manner::Not(reason) = &block.manner {
            left_out(&format!("{}:{}: {reason}", page.name, block.line));
        }
    }
    let run: Vec<&Block> =
        blocks.iter().filter(|block| !matches!(block.manner, Manner::Not(_))).collect();
    if run.is_empty() {
        return None;
    }
    let folder = repository().join("tests/tests/docs");
    let mut script = format!(". '{}/prelude.sh'\n", folder.display());
    for block in run {
        // What a reader fills in.
        let commands = block.commands.replace("arcs_…", "$CLUSTER_SECRET");
        let _ = writeln!(script, "at={}:{}; echo \"== $at\"", page.name, block.line);
        let _ = match &block.manner {
            Manner::Beside(until) => {
                writeln!(script, "beside() {{\n{commands}\n}}\nbegin_beside '{until}'")
            }
            _ => writeln!(script, "{}", by_hand(&commands)),
        };
    }
    script.push_str("conclude\n");
    Some(script)
}

/// The commands, as somebody types them who takes his time: the next when an agent listens, and Ctrl-C after a
/// while to what goes on.
fn by_hand(commands: &str) -> String {
    let mut all = String::new();
    for line in commands.lines() {
        if line.contains("agent listen") && line.ends_with('&') {
            let _ = writeln!(all, "before_listener\n{line}\nafter_listener $!");
        } else if line.contains(" --watch") || line.contains(" --follow") {
            let _ = writeln!(all, "for_a_moment '{line}'");
        } else if line.ends_with('&') && !line.ends_with("&&") {
            let _ = writeln!(all, "{line}\nbegun $!");
        } else {
            let _ = writeln!(all, "{line}");
        }
    }
    all
}

/// Does what the page says; or what came of it, if that went wrong.
fn run(page: &Page, script: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let here = folder.path();
    fs::write(here.join("page.sh"), script).expect("a test writes into its folder");
    fs::create_dir(here.join("bin")).expect("a test writes into its folder");
    symlink(arc_relay(), here.join("bin/arc-relay")).expect("a test writes into its folder");
    let mut command = Command::new("timeout");
    command.arg(PAGE_MAX.as_secs().to_string()).args([
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command.arg(repository().join("tests/tests/docs/enter")).arg(here).arg(repository());
    if let Some(python) = scripts::python() {
        command.env("PYTHON", python.get_program());
    }
    command.env_remove("CI").stdin(Stdio::null());
    let log = fs::File::create(here.join("log")).expect("a test writes into its folder");
    command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
    let status = command.status().expect("timeout can be run");
    let log = fs::read_to_string(here.join("log")).unwrap_or_default();
    if status.success() { Ok(()) } else { Err(format!("{}: {status}\n{log}", page.name)) }
}

/// Whether this machine lets a page have a namespace of its own.
fn usable() -> bool {
    let mut try_it = Command::new("unshare");
    try_it.args(["--net", "--mount", "--pid", "--fork", "ip", "link", "set", "lo", "up"]);
    try_it.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[test]
fn the_commands_in_the_documents_do_what_is_said() {
    if !usable() {
        return skip(
            "only root may make the namespaces that the documents' commands are run in (unshare, ip)",
        );
    }
    assert!(Path::new(arc_relay()).exists(), "built once, before all pages ask for it");
    let chosen = std::env::var("PAGE").unwrap_or_default();
    let pages: Vec<Page> = pages().into_iter().filter(|page| page.name.contains(&chosen)).collect();
    let failures: Vec<String> = thread::scope(|scope| {
        let begin = |page| {
            let script = script(page);
            scope.spawn(move || script.map_or(Ok(()), |script| run(page, &script)))
        };
        let running: Vec<_> = pages.iter().map(begin).collect();
        let end =
            running.into_iter().map(|page| page.join().expect("a page's thread does not panic"));
        end.filter_map(Result::err).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
