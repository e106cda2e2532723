//! Slash commands.

use serde::{Deserialize, Serialize};

use super::{AgentName, AgentNameError};

/// A slash command the owner gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// `/start`: a greeting and how to begin.
    Start,
    /// `/help`.
    Help,
    /// `/agents`, or `/agents NAME` to make that agent this chat's own.
    Agents(Option<AgentName>),
    /// `/new`: the next message begins a fresh session.
    New,
    /// `/stop`: end the running turn.
    Stop,
    /// `/status`.
    Status,
    /// Anything else beginning with a slash: named back to the owner, or why its argument is wrong.
    Unknown(String),
}

/// The bot's menu: name without the slash, and the line beside it.
pub const MENU: [(&str, &str); 6] = [
    ("new", "Start a fresh conversation"),
    ("stop", "Stop what is running"),
    ("agents", "Show or choose the agent of this chat"),
    ("status", "What is going on"),
    ("help", "How to use this bot"),
    ("start", "Say hello"),
];

impl Command {
    /// Reads a message that begins with `/`. `bot` is our user name: in groups commands come as `/stop@bot`.
    /// `None` when it is no command, or is addressed to another bot.
    #[must_use]
    pub fn parse(text: &str, bot: Option<&str>) -> Option<Self> {
        let rest = text.strip_prefix('/')?;
        let (word, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let (name, addressee) = match word.split_once('@') {
            Some((name, addressee)) => (name, Some(addressee)),
            None => (word, None),
        };
        if let (Some(addressee), Some(bot)) = (addressee, bot)
            && !addressee.eq_ignore_ascii_case(bot)
        {
            return None;
        }
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return None;
        }
        let argument = argument.trim();
        Some(match name.to_ascii_lowercase().as_str() {
            "start" => Self::Start,
            "help" => Self::Help,
            "agents" | "agent" => match AgentName::new(argument.trim_start_matches('@')) {
                Ok(agent) => Self::Agents(Some(agent)),
                Err(AgentNameError(_)) if argument.is_empty() => Self::Agents(None),
                Err(error) => Self::Unknown(error.to_string()),
            },
            "new" => Self::New,
            "stop" => Self::Stop,
            "status" => Self::Status,
            other => Self::Unknown(format!("/{other} is not a command here")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_and_other_text_is_not() {
        let coder = AgentName::new("coder").unwrap();
        let cases = [
            ("/start", Some(Command::Start)),
            ("/START now", Some(Command::Start)),
            ("/help@skep_bot", Some(Command::Help)),
            ("/help@other_bot", None),
            ("/agents", Some(Command::Agents(None))),
            ("/agents coder", Some(Command::Agents(Some(coder.clone())))),
            ("/agents @coder", Some(Command::Agents(Some(coder)))),
            ("/new", Some(Command::New)),
            ("/stop", Some(Command::Stop)),
            ("/status", Some(Command::Status)),
            ("/frobnicate", Some(Command::Unknown("/frobnicate is not a command here".to_owned()))),
            ("/etc/passwd is a file", None),
            ("/", None),
            ("hello /stop", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Command::parse(text, Some("Skep_Bot")), expected, "{text}");
        }
    }
}
