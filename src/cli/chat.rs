//! `skep chat [AGENT]`: a conversation in the terminal. Line editing is the terminal's own.

use std::io::{self, BufRead, IsTerminal, Read};
use std::thread;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::client;
use super::failure::CliError;
use super::terminal::{self, Style, complain};
use super::transcript::{Outcome, Transcript};
use super::turn::{Ended, Thread};
use crate::config::Paths;
use crate::control::{LINE_LIMIT, Request};
use crate::model::AgentName;

/// `skep chat`.
#[derive(Debug, Args)]
pub(super) struct Chat {
    /// The agent; by default the one the conversation is with
    #[arg(value_parser = super::agent_name)]
    agent: Option<AgentName>,
    /// Begin afresh instead of going on where the conversation was left
    #[arg(long)]
    new: bool,
    /// Keep a conversation of this name, apart from others
    #[arg(long, value_name = "NAME", default_value = "chat", value_parser = super::ask::conversation)]
    conversation: String,
}

/// What the person at the terminal did.
enum Input {
    Message(String),
    Leave,
}

/// The state of one `skep chat`.
struct Session<'p> {
    paths: &'p Paths,
    thread: Thread,
    lines: mpsc::Receiver<io::Result<String>>,
    interrupts: Signal,
    style: Style,
    /// Whether a person types: only then are there prompts.
    typed: bool,
    failed: usize,
}

impl Chat {
    pub(super) async fn run(self, paths: &Paths) -> Result<(), CliError> {
        // That nobody is there is said before anything is typed.
        client::single(paths, &Request::Version).await?;
        let session = Session {
            paths,
            thread: Thread { agent: self.agent, conversation: self.conversation },
            lines: read_lines()?,
            interrupts: signal(SignalKind::interrupt()).map_err(CliError::io("watch for Ctrl-C"))?,
            style: Style::of_output(),
            typed: io::stdin().is_terminal(),
            failed: 0,
        };
        if self.new {
            session.thread.begin_anew(paths).await?;
        }
        session.run().await
    }
}

impl Session<'_> {
    async fn run(mut self) -> Result<(), CliError> {
        if self.typed {
            terminal::write(&format!("{}\n", self.style.dim("/help lists commands, Ctrl-D leaves")))?;
        }
        while let Input::Message(text) = self.input().await? {
            if matches!(text.trim(), "/quit" | "/exit") {
                break;
            }
            if !self.turn(&text).await? {
                break;
            }
        }
        match self.failed {
            0 => Ok(()),
            // A person has seen the errors; a script looks at the exit code.
            _ if self.typed => Ok(()),
            failed => Err(CliError::SomeFailed(failed)),
        }
    }

    /// One message and its answer; whether the conversation goes on.
    async fn turn(&mut self, text: &str) -> Result<bool, CliError> {
        let mut transcript = Transcript::new(self.style);
        let show = |event: &_| terminal::write(&transcript.show(event));
        match self.thread.say(self.paths, text, &mut self.interrupts, show).await {
            Ok(Ended::Run(Outcome::Failed(failure))) => {
                self.failed += 1;
                let error = CliError::RunFailed { what: failure.what, fix: failure.fix };
                complain(&terminal::plain(&format!("skep: {error}")));
            }
            Ok(Ended::Run(Outcome::Cancelled)) => self.failed += 1,
            Ok(Ended::Left) => return Ok(false),
            Ok(Ended::Run(Outcome::Finished(_)) | Ended::Told) => {}
            // The daemon is there and said no: the next message may do better.
            Err(CliError::Refused { message, fix }) => {
                self.failed += 1;
                complain(&terminal::plain(&format!("skep: {message}; {fix}")));
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// The next message: a line, or several joined by a backslash at the end.
    async fn input(&mut self) -> Result<Input, CliError> {
        let mut message = String::new();
        loop {
            if self.typed {
                let prompt = if message.is_empty() { "> " } else { "… " };
                terminal::write(&self.style.bold(prompt))?;
            }
            let line = tokio::select! {
                line = self.lines.recv() => line,
                _ = self.interrupts.recv() => None,
            };
            let Some(line) = line else {
                if self.typed {
                    terminal::write("\n")?;
                }
                // What stands before an end of input without a newline is a message too.
                return Ok(if message.trim().is_empty() { Input::Leave } else { Input::Message(message) });
            };
            let line = line.map_err(CliError::io("read standard input"))?;
            match line.strip_suffix('\\') {
                Some(part) => {
                    message.push_str(part);
                    message.push('\n');
                }
                None => {
                    message.push_str(&line);
                    if !message.trim().is_empty() {
                        return Ok(Input::Message(message));
                    }
                    message.clear();
                }
            }
        }
    }
}

/// Standard input by lines, from a thread of its own: reading a terminal cannot be given up halfway.
fn read_lines() -> Result<mpsc::Receiver<io::Result<String>>, CliError> {
    let (lines, receiver) = mpsc::channel(1);
    let reader = thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut line = String::new();
            let read = match (&mut input).take(LINE_LIMIT as u64).read_line(&mut line) {
                Ok(0) => return,
                Ok(_) => Ok(line.trim_end_matches(['\n', '\r']).to_owned()),
                Err(error) => Err(error),
            };
            let last = read.is_err();
            if lines.blocking_send(read).is_err() || last {
                return;
            }
        }
    });
    reader.map(|_| receiver).map_err(CliError::io("read standard input"))
}
