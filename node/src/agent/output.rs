//! The one place that writes to the user: results to standard output, everything else to standard
//! error, each line whole and flushed at once.

use std::{
    env,
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::{
    failure::{Failure, FailureReport},
    paint::Paint,
    screen::{Screen, Size},
};

/// Where a command's lines go. A reader that went away is an error of the kind `BrokenPipe`,
/// never a panic.
pub struct Output {
    /// Whether a failure is told as JSON.
    json: bool,
    results: Box<dyn AsyncWrite + Send + Unpin>,
    notes: Box<dyn AsyncWrite + Send + Unpin>,
    /// Whether a line of notes can be written over.
    live: bool,
    /// Whether the last line is to be written over by the next.
    passing: bool,
    /// What was drawn, if results go to a terminal.
    screen: Option<Screen>,
    paint: Paint,
}

/// Back to the beginning of the line, and away with what is in it (ECMA-48: EL).
const OVERWRITE: &str = "\r\u{1b}[2K";

impl Output {
    /// The process's own standard output and standard error; failures are told for programs if `json`.
    pub fn of_process(json: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let paint = Paint::of(is_terminal, |name| env::var_os(name));
        // A terminal that has no colours has no cursor to be moved either, as far as we know.
        let is_dumb = env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        Self {
            json,
            results: Box::new(tokio::io::stdout()),
            notes: Box::new(tokio::io::stderr()),
            live: io::stderr().is_terminal(),
            passing: false,
            screen: (is_terminal && !is_dumb).then(Screen::default),
            paint,
        }
    }

    /// Whether results are shown in colours.
    pub(super) fn paint(&self) -> Paint {
        self.paint
    }

    /// Shows a text in the place of the one that was shown so before; below it, if there is no terminal.
    pub(super) async fn show_anew(&mut self, text: &str) -> Result<(), Failure> {
        let Some(screen) = &mut self.screen else {
            return self.result(&format!("{text}\n")).await;
        };
        let drawn = screen.redraw(text, size());
        let results = &mut self.results;
        let written = async {
            results.write_all(drawn.as_bytes()).await?;
            results.flush().await
        };
        written.await.map_err(Failure::Output)
    }

    /// Whether a text can be shown in the place of another.
    pub(super) fn can_show_anew(&self) -> bool {
        self.screen.is_some()
    }

    /// One line of what the user asked for.
    pub(super) async fn result(&mut self, line: &str) -> Result<(), Failure> {
        self.clear().await;
        write_line(&mut self.results, line).await.map_err(Failure::Output)
    }

    /// One line about how it goes. That nobody reads it is no reason to fail.
    pub(super) async fn note(&mut self, line: &str) {
        self.clear().await;
        let _ = write_line(&mut self.notes, line).await;
    }

    /// How it goes just now: on a terminal the next line takes its place, elsewhere it is a note.
    pub(super) async fn progress(&mut self, line: &str) {
        if !self.live {
            return self.note(line).await;
        }
        self.passing = true;
        let _ = write(&mut self.notes, &[OVERWRITE, line]).await;
    }

    /// Whether lines of [`progress`](Self::progress) take each other's place.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    async fn clear(&mut self) {
        if std::mem::take(&mut self.passing) {
            let _ = write(&mut self.notes, &[OVERWRITE]).await;
        }
    }

    /// Tells the user how the command ended, and the system by exit code.
    pub(super) async fn conclude(mut self, outcome: Result<(), Failure>) -> ExitCode {
        self.clear().await;
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            // `… | head -1` has had all that it wanted.
            Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(failure) => self.fail(&failure.report()).await,
        }
    }

    /// Tells the user, or the program that asked for JSON, what went wrong; the exit code of it.
    pub async fn fail(&mut self, report: &FailureReport) -> ExitCode {
        let line = if self.json { report.json() } else { format!("error: {}", report.text) };
        self.note(&line).await;
        ExitCode::from(report.exit_code)
    }
}

/// The terminal's size, or that of the first ones.
fn size() -> Size {
    let (columns, rows) = terminal_size::terminal_size_of(io::stdout())
        .map_or((80, 24), |(width, height)| (width.0, height.0));
    Size { columns: columns.max(1).into(), rows: rows.max(2).into() }
}

async fn write_line(to: &mut (dyn AsyncWrite + Send + Unpin), line: &str) -> io::Result<()> {
    write(to, &[line, "\n"]).await
}

/// One write for all parts, so that lines of two processes on one terminal stay apart.
async fn write(to: &mut (dyn AsyncWrite + Send + Unpin), parts: &[&str]) -> io::Result<()> {
    to.write_all(parts.concat().as_bytes()).await?;
    to.flush().await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that cannot go on fails
pub(super) mod tests {
    use std::{
        pin::Pin,
        sync::Arc,
        task::{Context, Poll},
    };

    use parking_lot::Mutex;

    use super::*;

    /// What a command wrote under test.
    #[derive(Clone, Default)]
    pub(crate) struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        /// All of it.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    impl AsyncWrite for Written {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.lock().extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// An output that keeps what is written: (it, results, notes).
    pub(crate) fn captured() -> (Output, Written, Written) {
        let (results, notes) = (Written::default(), Written::default());
        let output = Output {
            json: false,
            results: Box::new(results.clone()),
            notes: Box::new(notes.clone()),
            live: false,
            passing: false,
            screen: None,
            paint: Paint::Plain,
        };
        (output, results, notes)
    }

    #[tokio::test]
    async fn results_and_notes_go_different_ways() {
        let (mut output, results, notes) = captured();
        output.result("a").await.unwrap();
        output.note("b").await;
        assert_eq!((results.text().as_str(), notes.text().as_str()), ("a\n", "b\n"));
    }

    #[tokio::test]
    async fn progress_gives_way_on_a_terminal_and_is_a_line_elsewhere() {
        let (mut output, _, notes) = captured();
        output.progress("1 of 2").await;
        assert_eq!(notes.text(), "1 of 2\n");
        let (output, _, notes) = captured();
        let mut output = Output { live: true, ..output };
        output.progress("1 of 2").await;
        output.progress("2 of 2").await;
        output.note("done").await;
        output.note("bye").await;
        let wipe = "\r\u{1b}[2K";
        assert_eq!(notes.text(), format!("{wipe}1 of 2{wipe}2 of 2{wipe}done\nbye\n"));
    }

    #[tokio::test]
    async fn a_reader_that_left_ends_the_command_well() {
        let (writer, reader) = tokio::io::duplex(64);
        drop(reader);
        let (mut output, ..) = captured();
        output.results = Box::new(writer);
        let outcome = output.result("a").await;
        assert!(matches!(outcome, Err(Failure::Output(_))));
        assert_eq!(output.conclude(outcome).await, ExitCode::SUCCESS);
    }

    #[tokio::test]
    async fn a_failure_is_told_with_its_code() {
        let (output, _, notes) = captured();
        let code = output.conclude(Err(Failure::NoToken)).await;
        assert_eq!(code, ExitCode::from(2));
        assert!(notes.text().starts_with("error: no token: "));
    }

    #[tokio::test]
    async fn a_program_is_told_of_a_failure_in_one_object() {
        let (output, results, notes) = captured();
        let output = Output { json: true, ..output };
        output.conclude(Err(Failure::NoToken)).await;
        let told: serde_json::Value = serde_json::from_str(&notes.text()).unwrap();
        assert_eq!((&told["error"], &told["exit_code"]), (&"no_token".into(), &2.into()));
        assert!(told["message"].as_str().unwrap().starts_with("no token: "), "{told}");
        assert_eq!(results.text(), "", "results only");
    }
}
