//! Updates: from Telegram's JSON to our words (pure).
//!
//! `poll` asks [`classify`] what may be stored, the router asks [`decode`] what a stored update says. Both read with
//! structs of our own: teloxide's types lose text and media of messages that hold anything newer than they are.
//!
//! Invariants:
//! - No input panics, and an unknown field or kind never hides a known one.
//! - A stranger's words are never kept: only an owner's message, or one that is exactly the pairing code.
//! - What an owner sends is never passed over in silence, but for edits, service messages, and in groups what is not
//!   addressed to the bot.

use super::fields::Fields;
use crate::model::{
    Access, Admission, AgentName, ChatId, Command, Content, MessageId, Origin, Place, RunId, ThreadId,
    UpdateId, UserId,
};

/// The bot itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bot {
    /// Its user id, known from the token.
    pub id: UserId,
    /// Its user name without the `@`; `None` until Telegram told.
    pub username: Option<String>,
}

/// Reads the id of an update, and whether it may be stored beyond that id. `None` when no id can be found.
#[must_use]
pub fn classify(raw: &str, access: &Access, bot: &Bot) -> Option<(UpdateId, bool)> {
    let id = id_of(raw)?;
    let keep = matches!(decode(raw, access, bot, &[]), Some((_, content)) if content != Content::Nothing);
    Some((id, keep))
}

/// Says what an update means. `None` when it is neither a message nor a press, or names no chat; [`Content::Nothing`] when
/// nobody is to be answered.
#[must_use]
pub fn decode(raw: &str, access: &Access, bot: &Bot, agents: &[AgentName]) -> Option<(Origin, Content)> {
    let update = Fields::of(raw)?;
    if let Some(press) = update.object("callback_query") {
        return decode_press(&press, access);
    }
    let message = Message::of(update.object("message")?)?;
    let content = match access.judge(message.origin.user, message.private, &message.text) {
        Admission::Owner if message.private || message.is_addressed(bot) => message.content(bot, agents),
        Admission::Pairs => Content::Pair,
        Admission::Owner | Admission::Stranger => Content::Nothing,
    };
    Some((message.origin, content))
}

/// Whether judging this update needs the bot's user name: it comes from a group.
pub(super) fn needs_username(raw: &str) -> bool {
    let chat = Fields::of(raw).and_then(|u| u.object("message")).and_then(|m| m.object("chat"));
    chat.and_then(|chat| chat.get::<String>("type")).is_some_and(|kind| kind != "private")
}

/// The id of an update: by its field, or, should the JSON be of an unexpected form, by the first number behind its name.
fn id_of(raw: &str) -> Option<UpdateId> {
    if let Some(id) = Fields::of(raw).and_then(|update| update.get::<i64>("update_id")) {
        return Some(UpdateId(id));
    }
    let (_, rest) = raw.split_once("\"update_id\"")?;
    let rest =
        rest.trim_start().strip_prefix(':')?.trim_start_matches(|c: char| c == '"' || c.is_whitespace());
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok().map(UpdateId)
}

fn place_of(message: &Fields<'_>) -> Option<(Place, bool)> {
    let chat = message.object("chat")?;
    // Outside forums `message_thread_id` names a chain of replies, not a topic.
    let topic = message.get::<bool>("is_topic_message").unwrap_or(false);
    let thread = message.get::<i64>("message_thread_id").filter(|_| topic).map(ThreadId);
    let private = chat.get::<String>("type").is_some_and(|kind| kind == "private");
    Some((Place::Telegram { chat: ChatId(chat.get("id")?), thread }, private))
}

fn decode_press(press: &Fields<'_>, access: &Access) -> Option<(Origin, Content)> {
    let user = press.object("from").and_then(|from| from.get("id")).map(UserId);
    let message = press.object("message")?;
    let (place, private) = place_of(&message)?;
    let run = press.get::<String>("data").and_then(|data| data.strip_prefix("cancel:")?.parse().ok());
    let content = match (access.judge(user, private, ""), run) {
        (Admission::Owner, Some(run)) => Content::CancelRun { run: RunId(run), callback: press.get("id") },
        _ => Content::Nothing,
    };
    Some((Origin { place, user, message: message.get("message_id").map(MessageId) }, content))
}

/// What we read of a message.
struct Message<'a> {
    fields: Fields<'a>,
    origin: Origin,
    private: bool,
    /// Text or caption; empty for none.
    text: String,
    reply_to: Option<MessageId>,
    reply_to_user: Option<UserId>,
}

impl<'a> Message<'a> {
    fn of(fields: Fields<'a>) -> Option<Self> {
        let (place, private) = place_of(&fields)?;
        let user = fields.object("from").and_then(|from| from.get("id")).map(UserId);
        let text = fields.get("text").or_else(|| fields.get("caption")).unwrap_or_default();
        // In a topic every message replies to the one that created the topic; that is no reply of the owner's.
        let reply = fields.object("reply_to_message").filter(|reply| !reply.has("forum_topic_created"));
        Some(Self {
            origin: Origin { place, user, message: fields.get("message_id").map(MessageId) },
            private,
            text,
            reply_to: reply.as_ref().and_then(|reply| reply.get("message_id")).map(MessageId),
            reply_to_user: reply.and_then(|reply| reply.object("from")?.get("id")).map(UserId),
            fields,
        })
    }

    /// Whether a message in a group is meant for the bot.
    fn is_addressed(&self, bot: &Bot) -> bool {
        let name = bot.username.as_deref();
        let command = match Command::parse(&self.text, name) {
            // A command nobody here knows is another bot's, unless ours is named.
            Some(Command::Unknown(_)) => self.text.split_whitespace().next().is_some_and(|w| w.contains('@')),
            Some(_) => true,
            None => false,
        };
        command || self.reply_to_user == Some(bot.id) || name.is_some_and(|name| mentions(&self.text, name))
    }

    fn content(&self, bot: &Bot, agents: &[AgentName]) -> Content {
        let attached = attachment(&self.fields);
        if self.text.trim().is_empty() {
            return match attached {
                Attachment::Known(what) => Content::Unsupported(what.to_owned()),
                Attachment::Unknown => Content::Unsupported("a message of a kind I do not know".to_owned()),
                Attachment::None => Content::Nothing,
            };
        }
        let name = bot.username.as_deref();
        let words = name.and_then(|name| after_name(&self.text, name)).unwrap_or(&self.text).trim();
        if matches!(attached, Attachment::None)
            && let Some(command) = Command::parse(words, name)
        {
            return Content::Command(command);
        }
        let addressed = agents.iter().find_map(|agent| Some((agent, after_name(words, agent.as_str())?)));
        let (agent, words) = match addressed {
            Some((agent, rest)) => (Some(agent.clone()), rest),
            None => (None, words),
        };
        let text = match attached {
            Attachment::Known(what) => {
                format!("{words}\n\n[{what} came with this message; it could not be passed on]")
            }
            Attachment::None | Attachment::Unknown => words.to_owned(),
        };
        Content::Text { agent, text, reply_to: self.reply_to }
    }
}

/// What follows a leading `@name`; `None` when the text does not begin with that name, or nothing follows.
fn after_name<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let rest = text.trim_start().strip_prefix('@')?;
    let (head, rest) = rest.split_at_checked(name.len())?;
    let rest = rest.trim_start_matches([',', ':']);
    let ends = rest.len() < text.len() && rest.starts_with(char::is_whitespace);
    let words = rest.trim();
    (head.eq_ignore_ascii_case(name) && ends && !words.is_empty()).then_some(words)
}

/// Whether `@name` occurs as a word.
fn mentions(text: &str, name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices('@').any(|(at, _)| {
        let alone = !text[..at].ends_with(word);
        let after = text[at + 1..].split(|c| !word(c)).next().unwrap_or_default();
        alone && after.eq_ignore_ascii_case(name)
    })
}

enum Attachment {
    None,
    Known(&'static str),
    Unknown,
}

/// Kinds of content besides text. An animation is also a document, a venue also a location: the first match counts.
const KINDS: [(&str, &str); 20] = [
    ("photo", "a photo"),
    ("live_photo", "a live photo"),
    ("voice", "a voice message"),
    ("audio", "an audio file"),
    ("animation", "an animation"),
    ("video", "a video"),
    ("video_note", "a video message"),
    ("sticker", "a sticker"),
    ("document", "a file"),
    ("venue", "a place"),
    ("location", "a location"),
    ("contact", "a contact"),
    ("poll", "a poll"),
    ("checklist", "a checklist"),
    ("dice", "a dice"),
    ("game", "a game"),
    ("story", "a story"),
    ("paid_media", "paid media"),
    ("rich_message", "a rich message"),
    ("invoice", "an invoice"),
];

/// Fields every message may have, which say nothing about its kind.
const PLAIN: [&str; 34] = [
    "message_id",
    "from",
    "chat",
    "date",
    "text",
    "entities",
    "caption",
    "caption_entities",
    "edit_date",
    "author_signature",
    "message_thread_id",
    "is_topic_message",
    "direct_messages_topic",
    "sender_chat",
    "sender_boost_count",
    "sender_business_bot",
    "sender_tag",
    "business_connection_id",
    "forward_origin",
    "is_automatic_forward",
    "reply_to_message",
    "external_reply",
    "quote",
    "reply_to_story",
    "reply_to_checklist_task_id",
    "via_bot",
    "has_protected_content",
    "is_from_offline",
    "is_paid_post",
    "media_group_id",
    "paid_star_count",
    "link_preview_options",
    "reply_markup",
    "effect_id",
];

/// Service messages: something happened in the chat, nobody said anything.
const SERVICE: [&str; 9] = [
    "new_chat",
    "left_chat",
    "delete_chat",
    "group_chat",
    "supergroup_chat",
    "channel_chat",
    "migrate_",
    "pinned_message",
    "message_auto_delete",
];

/// Further service messages, by how their names end.
const SERVICE_ENDS: [&str; 21] = [
    "_created",
    "_edited",
    "_closed",
    "_reopened",
    "_hidden",
    "_unhidden",
    "_started",
    "_ended",
    "_scheduled",
    "_invited",
    "_set",
    "_added",
    "_shared",
    "_completed",
    "_changed",
    "_triggered",
    "_allowed",
    "_refunded",
    "_payment",
    "_data",
    "_website",
];

fn attachment(message: &Fields<'_>) -> Attachment {
    if let Some((_, what)) = KINDS.iter().find(|(key, _)| message.has(key)) {
        return Attachment::Known(what);
    }
    let unknown = |name: &str| {
        message.has(name)
            && !PLAIN.contains(&name)
            && !SERVICE.iter().any(|start| name.starts_with(start))
            && !SERVICE_ENDS.iter().any(|end| name.ends_with(end))
    };
    if message.names().any(unknown) { Attachment::Unknown } else { Attachment::None }
}

#[cfg(test)]
#[path = "update_tests.rs"]
mod tests;
