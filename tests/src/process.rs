//! Other programs that a test runs: the relay's own command line, and foreign clients.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::within;

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// All that it wrote to standard output.
    pub stdout: String,
    /// All that it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// This end, which must have been with that exit code.
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }
}

/// Runs a program to its end; it is killed if that takes longer than [`crate::PATIENCE`].
pub async fn run(command: std::process::Command) -> Finished {
    let what = format!("the end of {command:?}");
    let mut command = Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = within(&what, command.output()).await.expect("the program can be run");
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A program that goes on until it is told to stop; killed when dropped.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts a program. What it writes to standard error appears among the test's own.
    pub fn start(command: std::process::Command) -> Self {
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the program can be run");
        let stdout = child.stdout.take().expect("stdout is piped");
        Self { child, lines: BufReader::new(stdout).lines() }
    }

    /// The next line of its standard output; none when it has closed that.
    pub async fn line(&mut self) -> Option<String> {
        within("a line of output", self.lines.next_line()).await.expect("output is text")
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the program has not been waited for")
    }

    /// Waits for its end; its exit code, or none if a signal ended it.
    pub async fn code(&mut self) -> Option<i32> {
        within("the program's end", self.child.wait()).await.expect("it is a child").code()
    }
}
