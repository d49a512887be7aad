//! The answer of a command: the [`Output`].

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::task;

use crate::exit::Failure;

/// How many bytes of lines are gathered before they are written.
const CHUNK: usize = 64 << 10;

/// Standard output. What is handed to one call of [`Output::write`] is written whole, though the caller goes away meanwhile.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    /// Held while something is written.
    writing: Arc<Mutex<()>>,
}

impl Output {
    /// Writes bytes as they are, and waits until they are out. It blocks no worker, however slow the reader is.
    pub(crate) async fn write(&self, bytes: impl Into<Bytes>) -> Result<(), Failure> {
        let bytes = bytes.into();
        let writing = Arc::clone(&self.writing).lock_owned().await;
        let written = task::spawn_blocking(move || {
            let _writing = writing;
            let mut out = io::stdout().lock();
            out.write_all(&bytes).and_then(|()| out.flush())
        });
        match written.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::NobodyReads),
            Err(error) => Err(Failure::system("standard output cannot be written to", &error)),
            Ok(()) => Ok(()),
        }
    }

    /// Writes a text and a line break.
    pub(crate) async fn line(&self, text: impl ToString) -> Result<(), Failure> {
        let mut line = text.to_string();
        line.push('\n');
        self.write(line).await
    }

    /// Writes a line of a command whose exit code is the answer: that nobody reads the line does not change it.
    pub(crate) async fn report(&self, text: impl ToString) -> Result<(), Failure> {
        match self.line(text).await {
            Err(Failure::NobodyReads) => Ok(()),
            written => written,
        }
    }

    /// Begins to write many lines.
    pub(crate) const fn lines(&self) -> Lines<'_> {
        Lines { output: self, chunk: Vec::new() }
    }

    /// Waits until what a caller who went away had begun to write is out.
    pub(crate) async fn settle(&self) {
        drop(self.writing.lock().await);
    }
}

/// Lines that are written many at a time. None is written in part.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    output: &'a Output,
    chunk: Vec<u8>,
}

impl Lines<'_> {
    /// Adds a line, and writes none.
    pub(crate) fn gather(&mut self, line: &[u8]) {
        self.chunk.extend_from_slice(line);
        self.chunk.push(b'\n');
    }

    pub(crate) async fn push(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.gather(line);
        if self.chunk.len() < CHUNK { Ok(()) } else { self.finish().await }
    }

    /// Writes what was gathered.
    pub(crate) async fn finish(&mut self) -> Result<(), Failure> {
        if self.chunk.is_empty() { Ok(()) } else { self.output.write(std::mem::take(&mut self.chunk)).await }
    }
}
