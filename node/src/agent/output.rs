//! The one place that writes to the user: results to standard output, everything else to standard
//! error, each line whole and flushed at once.

use std::{io, process::ExitCode};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::failure::Failure;

/// Where a command's lines go. A reader that went away is an error of the kind `BrokenPipe`,
/// never a panic.
pub(super) struct Output {
    results: Box<dyn AsyncWrite + Send + Unpin>,
    notes: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Output {
    /// The process's own standard output and standard error.
    pub(super) fn of_process() -> Self {
        Self { results: Box::new(tokio::io::stdout()), notes: Box::new(tokio::io::stderr()) }
    }

    /// One line of what the user asked for.
    pub(super) async fn result(&mut self, line: &str) -> Result<(), Failure> {
        write_line(&mut self.results, line).await.map_err(Failure::Output)
    }

    /// One line about how it goes. That nobody reads it is no reason to fail.
    pub(super) async fn note(&mut self, line: &str) {
        let _ = write_line(&mut self.notes, line).await;
    }

    /// Tells the user how the command ended, and the system by exit code.
    pub(super) async fn conclude(mut self, outcome: Result<(), Failure>) -> ExitCode {
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            // `… | head -1` has had all that it wanted.
            Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(failure) => {
                self.note(&format!("error: {failure}")).await;
                ExitCode::from(failure.exit_code())
            }
        }
    }
}

async fn write_line(to: &mut (dyn AsyncWrite + Send + Unpin), line: &str) -> io::Result<()> {
    // One write for line and end, so that lines of two processes on one terminal stay apart.
    let mut bytes = Vec::with_capacity(line.len() + 1);
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
    to.write_all(&bytes).await?;
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
        let output = Output { results: Box::new(results.clone()), notes: Box::new(notes.clone()) };
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
    async fn a_reader_that_left_ends_the_command_well() {
        let (writer, reader) = tokio::io::duplex(64);
        drop(reader);
        let mut output = Output { results: Box::new(writer), notes: Box::new(Written::default()) };
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
}
