//! `skep ask AGENT TEXT…`: one question, one answer.
//!
//! On a terminal the answer streams and tools are shown; into a pipe goes the answer alone.

use std::io::{self, IsTerminal, Read};

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::CliError;
use super::terminal::{self, Style};
use super::transcript::{Outcome, Transcript};
use super::turn::{Ended, Thread};
use crate::config::Paths;
use crate::control::LINE_LIMIT;
use crate::model::{AgentEvent, AgentName, Usage};

/// `skep ask`.
#[derive(Debug, Args)]
pub(super) struct Ask {
    /// The agent
    #[arg(value_parser = super::agent_name)]
    agent: AgentName,
    /// The words; "-" or none: they are read from standard input
    #[arg(value_name = "TEXT")]
    words: Vec<String>,
    /// Go on where the last question to this agent ended, instead of beginning afresh
    #[arg(short = 'c', long = "continue")]
    go_on: bool,
    /// Keep a conversation of this name, apart from other questions; it always goes on
    #[arg(long, value_name = "NAME", value_parser = conversation)]
    conversation: Option<String>,
    #[command(flatten)]
    form: super::Form,
}

/// The answer as `--json` writes it.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    agent: &'a AgentName,
    text: &'a str,
    usage: Usage,
}

/// The name of a conversation, for clap.
pub(super) fn conversation(text: &str) -> Result<String, String> {
    let good = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if good { Ok(text.to_owned()) } else { Err("use 1 to 64 of letters, digits, -, _ and .".to_owned()) }
}

impl Ask {
    pub(super) async fn run(self, paths: &Paths) -> Result<(), CliError> {
        let text = question(&self.words)?;
        let thread = Thread {
            agent: Some(self.agent.clone()),
            conversation: self.conversation.clone().unwrap_or_else(|| "ask".to_owned()),
        };
        let mut interrupts = signal(SignalKind::interrupt()).map_err(CliError::io("watch for Ctrl-C"))?;
        if !self.go_on && self.conversation.is_none() {
            thread.begin_anew(paths).await?;
        }
        let live = io::stdout().is_terminal() && !self.form.json;
        let mut transcript = Transcript::new(Style::of_output());
        let mut used = Usage::default();
        let ended = thread
            .say(paths, &text, &mut interrupts, |event| {
                if let AgentEvent::Finished { usage, .. } = event {
                    used = *usage;
                }
                if live { terminal::write(&transcript.show(event)) } else { Ok(()) }
            })
            .await?;
        match ended {
            Ended::Run(Outcome::Finished(text)) if self.form.json => {
                terminal::write_json(&Answer { agent: &self.agent, text: &text, usage: used })
            }
            // Into a file the words go as they are; what is dangerous on a terminal is data there.
            Ended::Run(Outcome::Finished(text)) if !live => {
                terminal::write(&format!("{}\n", text.trim_end()))
            }
            Ended::Run(Outcome::Finished(_)) | Ended::Told => Ok(()),
            Ended::Run(Outcome::Failed(failure)) => {
                Err(CliError::RunFailed { what: failure.what, fix: failure.fix })
            }
            Ended::Run(Outcome::Cancelled) | Ended::Left => Err(CliError::Stopped),
        }
    }
}

/// The words of the command line, or of standard input.
fn question(words: &[String]) -> Result<String, CliError> {
    let text = if words.is_empty() || words == ["-"] {
        if words.is_empty() && io::stdin().is_terminal() {
            return Err(CliError::Usage("there is no question; write it after the agent's name".to_owned()));
        }
        let mut text = String::new();
        let read = io::stdin().lock().take(LINE_LIMIT as u64).read_to_string(&mut text);
        match read {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(CliError::Data("the question is not UTF-8 text".to_owned()));
            }
            read => read.map_err(CliError::io("read the question"))?,
        };
        text
    } else {
        words.join(" ")
    };
    if text.trim().is_empty() {
        return Err(CliError::Data("the question is empty".to_owned()));
    }
    Ok(text)
}
