//! Pure routing: one inbound item and what is known about its place in, one decision out.

use std::collections::BTreeMap;

use crate::model::{AgentName, Command, Content, Inbound, RunId, UserId};

/// What is known when an item is routed.
#[derive(Debug, Clone)]
pub struct Table<'a> {
    /// Agents and their descriptions.
    pub agents: &'a BTreeMap<AgentName, String>,
    /// The agent of a place that chose none.
    pub default: &'a AgentName,
    /// The agent the place chose.
    pub chosen: Option<&'a AgentName>,
    /// The agent that wrote the message this one replies to.
    pub author: Option<&'a AgentName>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Give the words to an agent.
    Prompt {
        /// To whom.
        agent: AgentName,
        /// The words.
        text: String,
    },
    /// Stop what this agent, or whoever is busy here, is doing.
    Stop,
    /// Begin a fresh session with the place's agent.
    New(AgentName),
    /// Say how things stand.
    Status,
    /// Make this agent the place's own.
    Choose(AgentName),
    /// Cancel a queued run.
    Cancel {
        /// The run.
        run: RunId,
        /// Telegram's id of the press.
        callback: Option<String>,
    },
    /// A stranger becomes an owner.
    Pair(UserId),
    /// Answer with these words.
    Say(String),
    /// Nothing.
    Ignore,
}

/// Decides.
#[must_use]
pub fn route(table: &Table<'_>, inbound: &Inbound) -> Route {
    match &inbound.content {
        Content::Text { agent, text, .. } => prompt(table, agent.as_ref(), text),
        Content::Command(command) => command_route(table, command),
        Content::CancelRun { run, callback } => Route::Cancel { run: *run, callback: callback.clone() },
        Content::Pair => inbound.origin.user.map_or(Route::Ignore, Route::Pair),
        Content::Unsupported(what) => Route::Say(format!(
            "I cannot read {what} yet. Send me text; a file can be put into the agent's workspace on the machine."
        )),
        Content::Nothing => Route::Ignore,
    }
}

fn prompt(table: &Table<'_>, named: Option<&AgentName>, text: &str) -> Route {
    let here = own_agent(table);
    let agent = match named {
        Some(name) if table.agents.contains_key(name) => name,
        Some(name) => return Route::Say(unknown_agent(table, name)),
        None => table.author.filter(|name| table.agents.contains_key(*name)).unwrap_or(here),
    };
    if text.trim().is_empty() {
        return Route::Say(format!(
            "There is nothing to give to {agent}: write your message after the name."
        ));
    }
    Route::Prompt { agent: agent.clone(), text: text.to_owned() }
}

/// The agent a place talks to when none is named: its choice while that exists, else the first of the settings.
fn own_agent<'a>(table: &Table<'a>) -> &'a AgentName {
    table.chosen.filter(|name| table.agents.contains_key(*name)).unwrap_or(table.default)
}

fn command_route(table: &Table<'_>, command: &Command) -> Route {
    match command {
        Command::Start => Route::Say(greeting(table)),
        Command::Help => Route::Say(HELP.to_owned()),
        Command::Agents(None) => Route::Say(listing(table)),
        Command::Agents(Some(name)) if table.agents.contains_key(name) => Route::Choose(name.clone()),
        Command::Agents(Some(name)) => Route::Say(unknown_agent(table, name)),
        Command::New => Route::New(own_agent(table).clone()),
        Command::Stop => Route::Stop,
        Command::Status => Route::Status,
        Command::Unknown(what) => Route::Say(format!("{what}. /help lists what I know.")),
    }
}

const HELP: &str = "\
Write to me and your agent answers. While it works, further messages wait in line.\n\n\
• `@name words` — ask another agent once\n\
• reply to a message — ask the agent that wrote it\n\
• /agents — who is there; `/agents name` changes who answers here\n\
• /new — forget this conversation and begin a fresh one\n\
• /stop — end what is running\n\
• /status — what is going on, and how the cells are protected";

fn greeting(table: &Table<'_>) -> String {
    format!(
        "Hello. You are talking to **{}**. Send a message to begin; /help shows what else there is.",
        own_agent(table)
    )
}

fn listing(table: &Table<'_>) -> String {
    let here = own_agent(table);
    let mut text = String::from("**Agents**\n");
    for (name, description) in table.agents {
        let mark = if name == here { " ← answers here" } else { "" };
        text.push_str(&format!("\n• `@{name}` {description}{mark}"));
    }
    text.push_str("\n\n`/agents name` changes who answers here.");
    text
}

fn unknown_agent(table: &Table<'_>, name: &AgentName) -> String {
    let known: Vec<String> = table.agents.keys().map(|name| format!("`{name}`")).collect();
    format!("There is no agent `{name}`. There are: {}.", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InboxId, MessageId, Origin, Place};

    fn name(text: &str) -> AgentName {
        AgentName::new(text).unwrap()
    }

    fn words(agent: Option<&str>, text: &str) -> Content {
        Content::Text { agent: agent.map(name), text: text.to_owned(), reply_to: Some(MessageId(1)) }
    }

    fn to(agent: &str, text: &str) -> Route {
        Route::Prompt { agent: name(agent), text: text.to_owned() }
    }

    fn decide(chosen: Option<&str>, author: Option<&str>, content: Content) -> Route {
        let agents = [("coder", "writes code"), ("general", "answers")];
        let agents = agents.into_iter().map(|(n, d)| (name(n), d.to_owned())).collect();
        let (chosen, author, default) = (chosen.map(name), author.map(name), name("general"));
        let table =
            Table { agents: &agents, default: &default, chosen: chosen.as_ref(), author: author.as_ref() };
        let origin = Origin { place: Place::Terminal("t".to_owned()), user: Some(UserId(5)), message: None };
        route(&table, &Inbound { id: InboxId(1), origin, content })
    }

    #[test]
    fn the_agent_is_the_named_one_else_the_author_else_the_chosen_else_the_first() {
        assert_eq!(decide(Some("coder"), Some("general"), words(Some("coder"), "x")), to("coder", "x"));
        assert_eq!(decide(Some("general"), Some("coder"), words(None, "x")), to("coder", "x"));
        assert_eq!(decide(Some("coder"), None, words(None, "x")), to("coder", "x"));
        assert_eq!(decide(None, None, words(None, "x")), to("general", "x"));
        assert_eq!(decide(Some("gone"), Some("gone"), words(None, "x")), to("general", "x"));
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let said = |route| match route {
            Route::Say(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            said(decide(None, None, words(Some("nobody"), "x"))),
            "There is no agent `nobody`. There are: `coder`, `general`."
        );
        assert!(said(decide(None, None, words(Some("coder"), "  "))).contains("nothing to give to coder"));
        assert!(said(decide(None, None, Content::Unsupported("a sticker".to_owned()))).contains("a sticker"));
        let unknown = Content::Command(Command::Unknown("/x is not a command here".to_owned()));
        assert_eq!(said(decide(None, None, unknown)), "/x is not a command here. /help lists what I know.");
        let missing = Content::Command(Command::Agents(Some(name("nobody"))));
        assert!(said(decide(None, None, missing)).contains("There is no agent `nobody`"));
    }

    #[test]
    fn commands_find_their_route() {
        let command = |command| decide(Some("coder"), None, Content::Command(command));
        assert_eq!(command(Command::New), Route::New(name("coder")));
        assert_eq!(command(Command::Stop), Route::Stop);
        assert_eq!(command(Command::Status), Route::Status);
        assert_eq!(command(Command::Agents(Some(name("general")))), Route::Choose(name("general")));
        let Route::Say(listed) = command(Command::Agents(None)) else { panic!() };
        assert!(listed.contains("• `@coder` writes code ← answers here\n• `@general` answers\n"), "{listed}");
        let Route::Say(hello) = command(Command::Start) else { panic!() };
        assert!(hello.contains("**coder**"), "{hello}");
        assert_eq!(decide(None, None, Content::Pair), Route::Pair(UserId(5)));
        assert_eq!(decide(None, None, Content::Nothing), Route::Ignore);
    }
}
