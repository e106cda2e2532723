//! The Bot API as the rest of this module sees it: one cheap handle, one method per call, one error type.
//!
//! teloxide-core supplies the client (TLS, connection pool), the token and the `Payload` trait. Reading the answer is ours,
//! for four reasons: teloxide sleeps ten seconds inside the call on any 5xx; it parses through an untagged enum, which
//! cannot carry raw JSON and so would rewrite updates; it drops `error_code`; and its error for unreadable JSON holds the
//! whole answer. It also has one timeout per client where each call here has its own, so that a single connection pool
//! serves long polls and ordinary calls.
//!
//! Invariant: one request per call and no retry: whether trying again is safe is the caller's knowledge.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use teloxide_core::RequestError;
use teloxide_core::net::default_reqwest_settings;
use teloxide_core::requests::Payload;

use super::error::{self, ApiError, SetupError};
use super::markup::Rendered;
use super::payload::{
    AnswerCallbackQuery, BotCommand, Button, ChatScope, DeleteWebhook, EditMessageText, GetMe, GetUpdates,
    Keyboard, LinkPreview, RemoveButtons, ReplyParameters, SendChatAction, SendMessage, SetMyCommands,
};
use crate::config::Secret;
use crate::model::{ChatId, MENU, MessageId, ThreadId, UpdateId, UserId};

const CONNECT: Duration = Duration::from_secs(10);
/// Idle connections die silently behind NAT, and a send on a dead one has an unknown outcome.
const KEEP_IDLE: Duration = Duration::from_secs(60);
/// No true answer comes near this: 25 updates of some 30 KB each.
const LARGEST_ANSWER: usize = 16 << 20;
/// Updates in one answer.
const UPDATES: u32 = 25;
/// What we ask for. Edits of messages are left out: nothing would be done with them but write their ids to flash.
const ALLOWED: &[&str] = &["message", "callback_query"];

/// A handle to the Bot API; clones share connections.
#[derive(Clone)]
pub struct Api {
    bot: teloxide_core::Bot,
    root: Arc<str>,
    id: UserId,
    limits: Limits,
}

/// When a call is given up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// An ordinary call.
    pub(super) call: Duration,
    /// How long Telegram holds a poll when nothing comes.
    pub(super) poll: Duration,
    /// How long after that a poll without an answer is given up.
    pub(super) grace: Duration,
}

const LIMITS: Limits = Limits {
    call: Duration::from_secs(20),
    // The server cuts longer ones to this.
    poll: Duration::from_secs(50),
    grace: Duration::from_secs(15),
};

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `Bot` would print the token.
        f.debug_struct("Api").field("root", &self.root).field("id", &self.id).finish_non_exhaustive()
    }
}

/// The bot itself, as `getMe` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// Its user id.
    pub id: UserId,
    /// Its user name without the `@`.
    pub username: Option<String>,
}

/// A message to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewMessage<'a> {
    pub(super) chat: ChatId,
    pub(super) thread: Option<ThreadId>,
    pub(super) body: &'a Rendered,
    pub(super) buttons: &'a [(String, String)],
    pub(super) reply_to: Option<MessageId>,
    pub(super) sound: Sound,
}

/// Whether Telegram holds a poll until something comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// For as long as it can.
    Long,
    /// Not at all: the answer tells that the line works.
    No,
}

/// Whether the phone makes a noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sound {
    On,
    Off,
}

impl Api {
    /// Makes the client. Nothing is sent.
    ///
    /// # Errors
    /// When the address is no URL, the token has no bot number, or the TLS stack refuses to start.
    pub fn new(token: &Secret, api_url: &str) -> Result<Self, SetupError> {
        let id = token.expose().split_once(':').and_then(|(id, _)| id.parse().ok()).map(UserId);
        let id = id.filter(|id| id.0 > 0).ok_or(SetupError::Token)?;
        let client = default_reqwest_settings()
            .timeout(LIMITS.call)
            .connect_timeout(CONNECT)
            .pool_idle_timeout(KEEP_IDLE)
            .tcp_keepalive(Duration::from_secs(30))
            .build()
            .map_err(|error| SetupError::Client(error.to_string()))?;
        let bot = teloxide_core::Bot::with_client(token.expose(), client);
        let url = api_url.parse().map_err(|_| SetupError::Address(api_url.to_owned()))?;
        let bot = bot.set_api_url(url);
        let web = matches!(bot.api_url().scheme(), "http" | "https") && bot.api_url().has_host();
        if !web {
            return Err(SetupError::Address(api_url.to_owned()));
        }
        Ok(Self { bot, root: api_url.trim_end_matches('/').into(), id, limits: LIMITS })
    }

    /// The same with other limits, for tests that must not wait.
    #[cfg(test)]
    pub(super) fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The bot's own user id, which is the first part of its token.
    #[must_use]
    pub fn bot_id(&self) -> UserId {
        self.id
    }

    /// Fetches updates from `offset` on, which confirms everything below it. Each comes back as the JSON text Telegram
    /// sent; none when nothing came.
    pub(super) async fn get_updates(
        &self,
        offset: Option<UpdateId>,
        hold: Hold,
    ) -> Result<Vec<String>, ApiError> {
        let wait = if hold == Hold::Long { self.limits.poll } else { Duration::ZERO };
        let payload = GetUpdates {
            offset: offset.map(|id| id.0),
            timeout: wait.as_secs(),
            limit: UPDATES,
            allowed_updates: ALLOWED,
        };
        let updates = self.call(&payload, wait + self.limits.grace).await?;
        Ok(updates.into_iter().map(|raw| Box::<str>::from(raw).into_string()).collect())
    }

    /// Sends one message.
    pub(super) async fn send_message(&self, message: NewMessage<'_>) -> Result<MessageId, ApiError> {
        let payload = SendMessage {
            chat_id: message.chat.0,
            message_thread_id: message.thread.map(|thread| thread.0),
            text: &message.body.text,
            entities: &message.body.entities,
            link_preview_options: LinkPreview { is_disabled: true },
            disable_notification: message.sound == Sound::Off,
            reply_parameters: message
                .reply_to
                .map(|message| ReplyParameters { message_id: message.0, allow_sending_without_reply: true }),
            reply_markup: keyboard(message.buttons),
        };
        self.call(&payload, self.limits.call).await.map(|sent| MessageId(sent.message_id))
    }

    /// Brings a message to the wanted text and buttons. Idempotent.
    pub(super) async fn edit_message(
        &self,
        chat: ChatId,
        message: MessageId,
        body: &Rendered,
        buttons: &[(String, String)],
    ) -> Result<(), ApiError> {
        let payload = EditMessageText {
            chat_id: chat.0,
            message_id: message.0,
            text: &body.text,
            entities: &body.entities,
            link_preview_options: LinkPreview { is_disabled: true },
            reply_markup: keyboard(buttons),
        };
        self.call(&payload, self.limits.call).await.map(drop)
    }

    /// Takes the buttons of a message away. Idempotent.
    pub(super) async fn remove_buttons(&self, chat: ChatId, message: MessageId) -> Result<(), ApiError> {
        self.call(&RemoveButtons { chat_id: chat.0, message_id: message.0 }, self.limits.call).await.map(drop)
    }

    /// Shows "typing…" for five seconds, or until the next message.
    pub(super) async fn typing(&self, chat: ChatId, thread: Option<ThreadId>) -> Result<(), ApiError> {
        let payload =
            SendChatAction { chat_id: chat.0, message_thread_id: thread.map(|t| t.0), action: "typing" };
        self.call(&payload, self.limits.call).await.map(drop)
    }

    /// Confirms a press; `text` (at most 200 characters) is shown for a moment, none when empty.
    pub(super) async fn answer_callback(&self, id: &str, text: &str) -> Result<(), ApiError> {
        self.call(&AnswerCallbackQuery { callback_query_id: id, text }, self.limits.call).await.map(drop)
    }

    /// Shows the menu of commands in one private chat; strangers see none.
    pub(super) async fn set_menu(&self, owner: UserId) -> Result<(), ApiError> {
        let commands =
            MENU.iter().map(|&(command, description)| BotCommand { command, description }).collect();
        let scope = ChatScope { r#type: "chat", chat_id: owner.0 };
        self.call(&SetMyCommands { commands, scope }, self.limits.call).await.map(drop)
    }

    /// Ends a webhook that somebody set, keeping the updates that wait.
    pub(super) async fn delete_webhook(&self) -> Result<(), ApiError> {
        self.call(&DeleteWebhook { drop_pending_updates: false }, self.limits.call).await.map(drop)
    }

    /// Who the bot is. Also tells whether the token is good.
    ///
    /// # Errors
    /// [`ApiError::Unauthorized`] for a wrong token; otherwise what kept Telegram from answering.
    pub async fn get_me(&self) -> Result<Me, ApiError> {
        let me = self.call(&GetMe {}, self.limits.call).await?;
        Ok(Me { id: UserId(me.id), username: me.username })
    }

    async fn call<P>(&self, payload: &P, limit: Duration) -> Result<P::Output, ApiError>
    where
        P: Payload + Serialize,
        P::Output: DeserializeOwned,
    {
        let body = serde_json::to_vec(payload).map_err(|error| ApiError::BadRequest(error.to_string()))?;
        let failed = |error| error::network(&RequestError::from(error));
        let request = self
            .bot
            .client()
            .post(format!("{}/bot{}/{}", self.root, self.bot.token(), P::NAME))
            .timeout(limit)
            .header("content-type", "application/json")
            .body(body);
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let mut answer = Vec::new();
        // Once the request is out, every failure to read the answer leaves its effect unknown.
        while let Some(chunk) = response.chunk().await.map_err(|error| match failed(error) {
            ApiError::Unsent(said) => ApiError::Unknown(said),
            other => other,
        })? {
            if answer.len() + chunk.len() > LARGEST_ANSWER {
                return Err(ApiError::Unknown("an answer of more than 16 MiB".to_owned()));
            }
            answer.extend_from_slice(&chunk);
        }
        let answer = String::from_utf8_lossy(&answer);
        let result = error::open(status, &answer)?;
        serde_json::from_str(result.get())
            .map_err(|_| ApiError::Unknown(format!("{} answered in an unknown form", P::NAME)))
    }
}

fn keyboard(buttons: &[(String, String)]) -> Option<Keyboard<'_>> {
    (!buttons.is_empty()).then(|| Keyboard {
        inline_keyboard: buttons.iter().map(|(text, data)| [Button { text, callback_data: data }]).collect(),
    })
}
