//! The few Bot API calls we make, as payloads of our own: results are as small as what we read of them, so that no
//! future field of Telegram's can make a call fail after it took effect.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use teloxide_core::requests::Payload;

use super::markup::Entity;

macro_rules! payload {
    ($name:literal, $type:ty, $output:ty) => {
        impl Payload for $type {
            type Output = $output;
            const NAME: &'static str = $name;
        }
    };
}

/// An answer nobody reads.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Done(#[expect(dead_code, reason = "present so that any JSON is accepted")] Box<RawValue>);

/// `getUpdates`.
#[derive(Serialize)]
pub(super) struct GetUpdates {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<i64>,
    pub(super) timeout: u64,
    pub(super) limit: u32,
    pub(super) allowed_updates: &'static [&'static str],
}
payload!("getUpdates", GetUpdates, Vec<Box<RawValue>>);

/// The only thing we read of a sent message.
#[derive(Deserialize)]
pub(super) struct Sent {
    pub(super) message_id: i64,
}

/// `sendMessage`.
#[derive(Serialize)]
pub(super) struct SendMessage<'a> {
    pub(super) chat_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message_thread_id: Option<i64>,
    pub(super) text: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) entities: &'a [Entity],
    pub(super) link_preview_options: LinkPreview,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) disable_notification: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reply_parameters: Option<ReplyParameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reply_markup: Option<Keyboard<'a>>,
}
payload!("sendMessage", SendMessage<'_>, Sent);

/// `editMessageText`.
#[derive(Serialize)]
pub(super) struct EditMessageText<'a> {
    pub(super) chat_id: i64,
    pub(super) message_id: i64,
    pub(super) text: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) entities: &'a [Entity],
    pub(super) link_preview_options: LinkPreview,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reply_markup: Option<Keyboard<'a>>,
}
payload!("editMessageText", EditMessageText<'_>, Done);

/// `editMessageReplyMarkup` without a keyboard: takes the buttons away.
#[derive(Serialize)]
pub(super) struct RemoveButtons {
    pub(super) chat_id: i64,
    pub(super) message_id: i64,
}
payload!("editMessageReplyMarkup", RemoveButtons, Done);

/// `sendChatAction`.
#[derive(Serialize)]
pub(super) struct SendChatAction {
    pub(super) chat_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message_thread_id: Option<i64>,
    pub(super) action: &'static str,
}
payload!("sendChatAction", SendChatAction, Done);

/// `answerCallbackQuery`.
#[derive(Serialize)]
pub(super) struct AnswerCallbackQuery<'a> {
    pub(super) callback_query_id: &'a str,
    pub(super) text: &'a str,
}
payload!("answerCallbackQuery", AnswerCallbackQuery<'_>, Done);

/// `setMyCommands` for one chat.
#[derive(Serialize)]
pub(super) struct SetMyCommands {
    pub(super) commands: Vec<BotCommand>,
    pub(super) scope: ChatScope,
}
payload!("setMyCommands", SetMyCommands, Done);

/// `deleteWebhook`, keeping what waits.
#[derive(Serialize)]
pub(super) struct DeleteWebhook {
    pub(super) drop_pending_updates: bool,
}
payload!("deleteWebhook", DeleteWebhook, Done);

/// `getMe`.
#[derive(Serialize)]
pub(super) struct GetMe {}
payload!("getMe", GetMe, User);

/// The only things we read of the bot itself.
#[derive(Deserialize)]
pub(super) struct User {
    pub(super) id: i64,
    #[serde(default)]
    pub(super) username: Option<String>,
}

#[derive(Serialize)]
pub(super) struct LinkPreview {
    pub(super) is_disabled: bool,
}

#[derive(Serialize)]
pub(super) struct ReplyParameters {
    pub(super) message_id: i64,
    pub(super) allow_sending_without_reply: bool,
}

#[derive(Serialize)]
pub(super) struct Keyboard<'a> {
    pub(super) inline_keyboard: Vec<[Button<'a>; 1]>,
}

#[derive(Serialize)]
pub(super) struct Button<'a> {
    pub(super) text: &'a str,
    pub(super) callback_data: &'a str,
}

#[derive(Serialize)]
pub(super) struct BotCommand {
    pub(super) command: &'static str,
    pub(super) description: &'static str,
}

#[derive(Serialize)]
pub(super) struct ChatScope {
    pub(super) r#type: &'static str,
    pub(super) chat_id: i64,
}
