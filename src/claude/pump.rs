//! The pipes of a process: two tasks, one that writes its lines and one that reads everything else.
//!
//! Called by `process`. Invariants:
//! - The reader never waits for the writer: a process that does not read cannot stop us from reading it.
//! - [`ClaudeEvent::Exited`] is sent last, and always, unless nobody listens any more.

use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::stream::{LONGEST_LINE, Line, Lines};
use super::turn::Turns;
use super::wire::{self, Line as Wire};
use super::{ClaudeEvent, Control, Exit, Exited, Ready, say, tool};
use crate::failpoint;

/// The request id of `initialize`.
pub(super) const INITIALIZE: &str = "initialize";
/// What is kept of standard error, in bytes.
const STDERR_TAIL: usize = 4096;
/// Bytes read at once.
const CHUNK: usize = 16 * 1024;
/// How long output may still come when the process itself is gone: what it wrote lies in the pipe already.
const AFTERMATH: Duration = Duration::from_secs(1);
/// How long the exit may be unknown after the output has ended, before the cell is killed.
const REAP: Duration = Duration::from_secs(5);

/// For the writer.
#[derive(Debug)]
pub(super) enum Say {
    /// A message for the model: one line, newline included.
    Prompt(Vec<u8>),
    /// Any other line.
    Line(Vec<u8>),
    /// End of input.
    Close,
}

/// Writes lines until told to close, or the process stops reading for good.
pub(super) async fn write(mut stdin: pipe::Sender, mut lines: mpsc::Receiver<Say>) {
    while let Some(say) = lines.recv().await {
        // An error means that it has closed its input: it is ending, and the reader will see that.
        match say {
            Say::Prompt(line) => {
                if stdin.write_all(&line).await.is_err() {
                    break;
                }
                failpoint::reach("claude.prompted");
            }
            Say::Line(line) => {
                if stdin.write_all(&line).await.is_err() {
                    break;
                }
            }
            Say::Close => break,
        }
    }
}

/// The reading side.
pub(super) struct Pump {
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    exit: Pin<Box<dyn Future<Output = Exit> + Send>>,
    stdin: mpsc::Sender<Say>,
    turns: Turns,
    lines: Lines,
    /// Read and not yet sent.
    events: Vec<ClaudeEvent>,
    tail: Vec<u8>,
    how: Option<Exit>,
    stdout_open: bool,
    stderr_open: bool,
    ready: Option<Ready>,
    gave_up: bool,
}

impl Pump {
    pub(super) fn new(
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
        exit: Pin<Box<dyn Future<Output = Exit> + Send>>,
        stdin: mpsc::Sender<Say>,
        turns: Turns,
    ) -> Self {
        Self {
            stdout,
            stderr,
            exit,
            stdin,
            turns,
            lines: Lines::new(LONGEST_LINE),
            events: Vec::new(),
            tail: Vec::new(),
            how: None,
            stdout_open: true,
            stderr_open: true,
            ready: None,
            gave_up: false,
        }
    }

    /// Reads until `initialize` is answered, or the process has ended.
    pub(super) async fn ready(&mut self) -> Result<Ready, Exited> {
        while self.step().await {
            if let Some(ready) = self.ready.take() {
                return Ok(ready);
            }
            // Nothing that matters comes before the answer, and it must not pile up.
            self.events.clear();
        }
        Err(self.exited().await)
    }

    /// Reads to the end, sending every event. Ends the process when nobody listens any more.
    pub(super) async fn run(mut self, events: mpsc::Sender<ClaudeEvent>, control: &dyn Control) {
        let mut open = true;
        while open {
            // What came together with the answer to `initialize` is sent first.
            if self.events.is_empty() {
                open = self.step().await;
            }
            for event in self.events.drain(..) {
                match &event {
                    ClaudeEvent::Text { .. } => failpoint::reach("claude.first_text"),
                    ClaudeEvent::TurnEnded(_) => failpoint::reach("claude.finished"),
                    _ => {}
                }
                if events.send(event).await.is_err() {
                    control.kill();
                    return;
                }
            }
        }
        if self.how.is_none() {
            self.how = timeout(REAP, &mut self.exit).await.ok();
        }
        // Its output has ended: whatever else is left in the cell has nobody to talk to.
        control.kill();
        let exited = self.exited().await;
        let _ = events.send(ClaudeEvent::Exited(exited)).await;
    }

    /// Waits for the end and says how it came.
    pub(super) async fn exited(&mut self) -> Exited {
        let how = match self.how {
            Some(how) => how,
            None => timeout(REAP, &mut self.exit).await.unwrap_or(Exit::Unknown),
        };
        self.how = Some(how);
        // The reason often is the last thing written.
        let _ = timeout(AFTERMATH, async { while self.stderr_open && self.step_stderr().await {} }).await;
        Exited { how, stderr: readable(&self.tail) }
    }

    /// Takes one thing in. `false` when standard output has ended.
    async fn step(&mut self) -> bool {
        let mut chunk = [0; CHUNK];
        let mut errors = [0; 1024];
        if self.how.is_some() {
            // The program is gone; one of its children may hold the pipe open for ever.
            match timeout(AFTERMATH, self.stdout.read(&mut chunk)).await {
                Ok(Ok(length @ 1..)) => self.take(chunk.get(..length).unwrap_or_default()),
                _ => self.stdout_open = false,
            }
        } else {
            tokio::select! {
                read = self.stdout.read(&mut chunk) => match read {
                    Ok(length @ 1..) => self.take(chunk.get(..length).unwrap_or_default()),
                    _ => self.stdout_open = false,
                },
                read = self.stderr.read(&mut errors), if self.stderr_open => match read {
                    Ok(length @ 1..) => self.keep_error(errors.get(..length).unwrap_or_default()),
                    _ => self.stderr_open = false,
                },
                how = &mut self.exit => self.how = Some(how),
            }
        }
        if !self.stdout_open {
            let mut lines = std::mem::replace(&mut self.lines, Lines::new(0));
            lines.finish(|line| self.line(line));
        }
        self.stdout_open
    }

    async fn step_stderr(&mut self) -> bool {
        let mut errors = [0; 1024];
        match self.stderr.read(&mut errors).await {
            Ok(length @ 1..) => self.keep_error(errors.get(..length).unwrap_or_default()),
            _ => self.stderr_open = false,
        }
        self.stderr_open
    }

    fn take(&mut self, chunk: &[u8]) {
        let mut lines = std::mem::replace(&mut self.lines, Lines::new(0));
        lines.push(chunk, |line| self.line(line));
        self.lines = lines;
    }

    fn line(&mut self, line: Line<'_>) {
        let bytes = match line {
            Line::Whole(bytes) => bytes,
            Line::Oversized { length } => {
                self.events.push(ClaudeEvent::Skipped { length });
                return;
            }
        };
        match wire::read(bytes) {
            Err(_) => self.events.push(ClaudeEvent::Skipped { length: bytes.len() }),
            Ok(Wire::Response(response)) if response.response.request_id == INITIALIZE => {
                let version = response.response.response.unwrap_or_default().claude_code_version;
                self.ready = Some(Ready { version });
            }
            Ok(Wire::Response(response)) => {
                if let Some(error) = response.response.error {
                    tracing::debug!(
                        request = response.response.request_id,
                        error,
                        "Claude refused a request"
                    );
                }
            }
            Ok(Wire::Request(request)) if request.request.subtype != "can_use_tool" => {
                self.say(say::unsupported(&request.request_id, &request.request.subtype));
            }
            Ok(line) => {
                self.events.extend(self.turns.read(line));
                if self.turns.is_hopeless() && !self.gave_up {
                    self.say(say::interrupt("hopeless"));
                }
                self.gave_up = self.turns.is_hopeless();
            }
        }
    }

    /// Sends a line if there is room. A process with a full queue does not read; it must not stop us from reading it.
    fn say(&self, line: Vec<u8>) {
        if self.stdin.try_send(Say::Line(line)).is_err() {
            tracing::debug!("a control line for Claude was dropped: it does not read its input");
        }
    }

    fn keep_error(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let excess = self.tail.len().saturating_sub(STDERR_TAIL);
        self.tail.drain(..excess);
    }
}

/// Text from standard error that is fit for a log and a chat.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().filter(|c| *c == '\n' || !tool::is_unsafe(*c)).collect()
}
