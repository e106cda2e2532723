//! One run as it is shown while it runs. Pure: events in, text for the terminal out.

use super::terminal::{Style, one_line, plain};
use crate::model::{AgentEvent, Failure};

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// Well; the whole answer.
    Finished(String),
    /// Badly.
    Failed(Failure),
    /// Somebody stopped it.
    Cancelled,
}

impl Outcome {
    /// The outcome an event stands for, if it ends a run.
    pub(super) fn of(event: &AgentEvent) -> Option<Self> {
        match event {
            AgentEvent::Finished { text, .. } => Some(Self::Finished(text.clone())),
            AgentEvent::Failed(failure) => Some(Self::Failed(failure.clone())),
            AgentEvent::Cancelled => Some(Self::Cancelled),
            _ => None,
        }
    }
}

/// What has been shown of a run.
#[derive(Debug)]
pub(super) struct Transcript {
    style: Style,
    /// The answer as it streamed.
    streamed: String,
    /// Whether the cursor is at the start of a line.
    fresh_line: bool,
}

impl Transcript {
    pub(super) fn new(style: Style) -> Self {
        Self { style, streamed: String::new(), fresh_line: true }
    }

    /// What to write for `event`.
    pub(super) fn show(&mut self, event: &AgentEvent) -> String {
        match event {
            AgentEvent::Started => String::new(),
            AgentEvent::Text { delta } => {
                self.streamed.push_str(delta);
                let text = plain(delta);
                self.fresh_line = if text.is_empty() { self.fresh_line } else { text.ends_with('\n') };
                text
            }
            AgentEvent::Queued { ahead: 0 } => self.aside("waiting"),
            AgentEvent::Queued { ahead } => self.aside(&format!("waiting behind {ahead}")),
            AgentEvent::Tool(tool) => match tool.ok {
                None => {
                    self.aside(&format!("· {} {}", one_line(&tool.name, 40), one_line(&tool.detail, 120)))
                }
                Some(false) => self.aside(&format!("✗ {} failed", one_line(&tool.name, 40))),
                Some(true) => String::new(),
            },
            AgentEvent::Notice { text } => self.aside(&one_line(text, 400)),
            AgentEvent::Finished { text, .. } => self.rest(text),
            AgentEvent::Failed(_) => self.end_line(),
            AgentEvent::Cancelled => self.aside("stopped"),
        }
    }

    /// The end of the answer: all of it, if pieces of it were lost on the way.
    fn rest(&mut self, text: &str) -> String {
        let mut rest = self.end_line();
        if !squashed(&self.streamed).contains(&squashed(text)) {
            rest.push_str(plain(text).trim_end());
            rest.push('\n');
        }
        self.streamed.clear();
        rest
    }

    /// A faint line of its own.
    fn aside(&mut self, line: &str) -> String {
        let before = self.end_line();
        format!("{before}{}\n", self.style.dim(line.trim_end()))
    }

    fn end_line(&mut self) -> String {
        if std::mem::replace(&mut self.fresh_line, true) { String::new() } else { "\n".to_owned() }
    }
}

/// Without white space: how pieces are joined is not told apart from what they say.
fn squashed(text: &str) -> String {
    text.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ToolActivity, Usage};

    fn text(delta: &str) -> AgentEvent {
        AgentEvent::Text { delta: delta.to_owned() }
    }

    fn tool(ok: Option<bool>) -> AgentEvent {
        AgentEvent::Tool(ToolActivity {
            id: "1".to_owned(),
            name: "Bash".to_owned(),
            detail: "ls\u{1b}[2J".to_owned(),
            ok,
        })
    }

    fn finished(text: &str) -> AgentEvent {
        AgentEvent::Finished { text: text.to_owned(), usage: Usage::default() }
    }

    fn shown(style: Style, events: &[AgentEvent]) -> String {
        let mut transcript = Transcript::new(style);
        events.iter().map(|event| transcript.show(event)).collect()
    }

    #[test]
    fn runs_are_shown_as_they_run() {
        let cases: [(&[AgentEvent], &str); 7] = [
            (&[text("Hel"), text("lo"), finished("Hello")], "Hello\n"),
            (&[finished("Hello\n")], "Hello\n"),
            (&[finished("")], ""),
            (&[text("Hel"), finished("Hello")], "Hel\nHello\n"),
            (
                &[text("Look:"), tool(None), tool(Some(true)), text("done\n"), finished("Look:\n\ndone")],
                "Look:\n· Bash ls␛[2J\ndone\n",
            ),
            (&[text("a\u{1b}c"), tool(Some(false)), AgentEvent::Cancelled], "a␛c\n✗ Bash failed\nstopped\n"),
            (&[AgentEvent::Queued { ahead: 2 }, AgentEvent::Started], "waiting behind 2\n"),
        ];
        for (events, expected) in cases {
            assert_eq!(shown(Style::Bare, events), expected);
        }
    }

    #[test]
    fn only_our_own_colours_reach_the_terminal() {
        assert_eq!(shown(Style::Coloured, &[tool(None)]), "\u{1b}[2m· Bash ls␛[2J\u{1b}[0m\n");
    }
}
