//! The lines that the process writes. Pure.
//!
//! Called by `pump`; read by `turn`. Invariant: reading never fails on account of what a newer CLI adds: a type, a
//! subtype or a field that is not named here is passed over, whatever the order of the keys.
//!
//! A line is read twice, first for its type alone: so a tool result of many megabytes is never built as a value.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// One line.
#[derive(Debug)]
pub(super) enum Line {
    Init(Init),
    Status(Status),
    ApiRetry(ApiRetry),
    CompactBoundary(CompactBoundary),
    ModelFallback(ModelFallback),
    BackgroundTasks(BackgroundTasks),
    Stream(StreamLine),
    Assistant(Spoken),
    User(Spoken),
    Result(Box<TurnResult>),
    RateLimit(RateLimitLine),
    Lifecycle(Lifecycle),
    Request(Request),
    Response(Response),
    CancelRequest {
        request_id: String,
    },
    /// Known, and of no use here.
    Nothing,
    /// A type this version does not know.
    Unknown {
        kind: String,
    },
}

#[derive(Debug, Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    subtype: Option<Cow<'a, str>>,
}

/// `system/init`: every turn begins with it.
#[derive(Debug, Deserialize)]
pub(super) struct Init {
    #[serde(default, deserialize_with = "lenient")]
    pub session_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub user_message_uuids: Vec<String>,
}

/// `system/status`.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    #[serde(default, deserialize_with = "lenient")]
    pub status: Option<String>,
}

/// `system/api_retry`.
#[derive(Debug, Deserialize)]
pub(super) struct ApiRetry {
    #[serde(default, deserialize_with = "lenient")]
    pub attempt: u32,
    #[serde(default, deserialize_with = "lenient")]
    pub max_retries: u32,
    #[serde(default, deserialize_with = "lenient")]
    pub retry_delay_ms: f64,
    #[serde(default, deserialize_with = "lenient")]
    pub error_status: Option<u16>,
}

/// `system/compact_boundary`.
#[derive(Debug, Deserialize)]
pub(super) struct CompactBoundary {
    #[serde(default, deserialize_with = "lenient")]
    pub compact_metadata: CompactMetadata,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct CompactMetadata {
    #[serde(default, deserialize_with = "lenient")]
    pub pre_tokens: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    pub post_tokens: Option<u64>,
}

/// `system/model_fallback`.
#[derive(Debug, Deserialize)]
pub(super) struct ModelFallback {
    #[serde(default, deserialize_with = "lenient")]
    pub fallback_model: Option<String>,
}

/// `system/background_tasks_changed`.
#[derive(Debug, Deserialize)]
pub(super) struct BackgroundTasks {
    #[serde(default, deserialize_with = "lenient")]
    pub tasks: Vec<Task>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Task {
    #[serde(default, deserialize_with = "lenient")]
    pub ambient: bool,
}

/// `stream_event`.
#[derive(Debug, Deserialize)]
pub(super) struct StreamLine {
    pub event: StreamEvent,
    #[serde(default)]
    pub parent_tool_use_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum StreamEvent {
    MessageStart {},
    ContentBlockStart {
        #[serde(default)]
        content_block: Option<BlockKind>,
    },
    ContentBlockDelta {
        delta: Delta,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
pub(super) struct BlockKind {
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Delta {
    TextDelta {
        text: String,
    },
    #[serde(other)]
    Other,
}

/// `assistant` and `user`.
#[derive(Debug, Deserialize)]
pub(super) struct Spoken {
    pub message: Message,
    #[serde(default)]
    pub parent_tool_use_id: Option<String>,
    #[serde(default, rename = "isSynthetic")]
    pub synthetic: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Message {
    #[serde(default)]
    pub model: Option<String>,
    #[serde(default, deserialize_with = "blocks")]
    pub content: Vec<Block>,
}

/// One block of a message, of whatever kind. What a tool returned is not among its fields and so is never kept.
#[derive(Debug, Deserialize)]
pub(super) struct Block {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub text: Option<String>,
    #[serde(default)]
    pub id: Option<String>,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub input: Option<ToolInput>,
    #[serde(default)]
    pub tool_use_id: Option<String>,
    #[serde(default)]
    pub is_error: Option<bool>,
}

/// What a line about a tool use may show. A file's new content is not among its fields and so is never kept.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ToolInput {
    #[serde(default, deserialize_with = "lenient")]
    pub command: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub file_path: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub pattern: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub query: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub url: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub description: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub task_id: Option<String>,
}

/// `content` is a string in some lines of the user's side: those have no blocks of interest.
fn blocks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Block>, D::Error> {
    struct Blocks;
    impl<'de> Visitor<'de> for Blocks {
        type Value = Vec<Block>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of blocks, or text")
        }
        fn visit_str<E>(self, _: &str) -> Result<Vec<Block>, E> {
            Ok(Vec::new())
        }
        fn visit_unit<E>(self) -> Result<Vec<Block>, E> {
            Ok(Vec::new())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Block>, A::Error> {
            let mut blocks = Vec::new();
            while let Some(block) = list.next_element()? {
                blocks.push(block);
            }
            Ok(blocks)
        }
    }
    deserializer.deserialize_any(Blocks)
}

/// A field that is worth reading and not worth failing for: null, or of another shape, it has its default.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

/// `result`: exactly one a turn.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TurnResult {
    #[serde(default, deserialize_with = "lenient")]
    pub subtype: String,
    #[serde(default, deserialize_with = "lenient")]
    pub is_error: bool,
    #[serde(default, deserialize_with = "lenient")]
    pub result: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub errors: Vec<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub terminal_reason: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub api_error_status: Option<u16>,
    #[serde(default, deserialize_with = "lenient")]
    pub total_cost_usd: f64,
    #[serde(default, deserialize_with = "lenient")]
    pub usage: Tokens,
    #[serde(default, deserialize_with = "lenient")]
    pub model_usage_since_last_result: Option<HashMap<String, ModelUsage>>,
    #[serde(default, deserialize_with = "lenient")]
    pub user_message_uuids: Vec<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub origin: Option<Value>,
    #[serde(default, deserialize_with = "lenient")]
    pub session_id: Option<String>,
}

/// Tokens of the main loop.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Tokens {
    #[serde(default, deserialize_with = "lenient")]
    pub input_tokens: u64,
    #[serde(default, deserialize_with = "lenient")]
    pub output_tokens: u64,
    #[serde(default, deserialize_with = "lenient")]
    pub cache_read_input_tokens: u64,
    #[serde(default, deserialize_with = "lenient")]
    pub cache_creation_input_tokens: u64,
}

/// Tokens and cost of one model.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ModelUsage {
    #[serde(default, deserialize_with = "lenient")]
    pub input_tokens: u64,
    #[serde(default, deserialize_with = "lenient")]
    pub output_tokens: u64,
    #[serde(default, deserialize_with = "lenient")]
    pub cache_read_input_tokens: u64,
    #[serde(default, deserialize_with = "lenient")]
    pub cache_creation_input_tokens: u64,
    #[serde(default, rename = "costUSD", deserialize_with = "lenient")]
    pub cost_usd: f64,
}

/// `rate_limit_event`.
#[derive(Debug, Deserialize)]
pub(super) struct RateLimitLine {
    #[serde(default, deserialize_with = "lenient")]
    pub rate_limit_info: RateLimitInfo,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RateLimitInfo {
    #[serde(default, deserialize_with = "lenient")]
    pub status: String,
    #[serde(default, deserialize_with = "lenient")]
    pub resets_at: Option<f64>,
    #[serde(default, deserialize_with = "lenient")]
    pub rate_limit_type: Option<String>,
}

/// `command_lifecycle`.
#[derive(Debug, Deserialize)]
pub(super) struct Lifecycle {
    pub command_uuid: String,
    pub state: String,
}

/// `control_request`: the process asks us.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    pub request_id: String,
    pub request: RequestBody,
}

#[derive(Debug, Deserialize)]
pub(super) struct RequestBody {
    #[serde(default, deserialize_with = "lenient")]
    pub subtype: String,
    #[serde(default, deserialize_with = "lenient")]
    pub tool_name: String,
    #[serde(default)]
    pub input: Value,
}

/// `control_response`: the answer to one of our requests.
#[derive(Debug, Deserialize)]
pub(super) struct Response {
    pub response: ResponseBody,
}

#[derive(Debug, Deserialize)]
pub(super) struct ResponseBody {
    #[serde(default, deserialize_with = "lenient")]
    pub request_id: String,
    #[serde(default, deserialize_with = "lenient")]
    pub error: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub response: Option<InitializeResponse>,
}

/// Of every response only that to `initialize` is looked into.
#[derive(Debug, Default, Deserialize)]
pub(super) struct InitializeResponse {
    #[serde(default, deserialize_with = "lenient")]
    pub claude_code_version: Option<String>,
}

/// Reads one line. `Err` when it is not JSON, has no type, or a known type lacks what makes it that type.
pub(super) fn read(line: &[u8]) -> Result<Line, serde_json::Error> {
    let head: Head<'_> = serde_json::from_slice(line)?;
    Ok(match &*head.kind {
        "system" => return read_system(head.subtype.as_deref().unwrap_or_default(), line),
        "stream_event" => Line::Stream(serde_json::from_slice(line)?),
        "assistant" => Line::Assistant(serde_json::from_slice(line)?),
        "user" => Line::User(serde_json::from_slice(line)?),
        "result" => Line::Result(serde_json::from_slice(line)?),
        "rate_limit_event" => Line::RateLimit(serde_json::from_slice(line)?),
        "command_lifecycle" => Line::Lifecycle(serde_json::from_slice(line)?),
        "control_request" => Line::Request(serde_json::from_slice(line)?),
        "control_response" => Line::Response(serde_json::from_slice(line)?),
        "control_cancel_request" => {
            #[derive(Deserialize)]
            struct Cancel {
                request_id: String,
            }
            Line::CancelRequest { request_id: serde_json::from_slice::<Cancel>(line)?.request_id }
        }
        "conversation_reset" | "keep_alive" | "tool_progress" | "task_progress" | "prompt_suggestion"
        | "auth_status" | "tool_use_summary" => Line::Nothing,
        kind => Line::Unknown { kind: kind.to_owned() },
    })
}

fn read_system(subtype: &str, line: &[u8]) -> Result<Line, serde_json::Error> {
    Ok(match subtype {
        "init" => Line::Init(serde_json::from_slice(line)?),
        "status" => Line::Status(serde_json::from_slice(line)?),
        "api_retry" => Line::ApiRetry(serde_json::from_slice(line)?),
        "compact_boundary" => Line::CompactBoundary(serde_json::from_slice(line)?),
        "model_fallback" => Line::ModelFallback(serde_json::from_slice(line)?),
        "background_tasks_changed" => Line::BackgroundTasks(serde_json::from_slice(line)?),
        "session_state_changed"
        | "thinking_tokens"
        | "task_started"
        | "task_updated"
        | "task_progress"
        | "task_notification"
        | "permission_denied"
        | "hook_started"
        | "hook_progress"
        | "hook_response"
        | "informational"
        | "model_refusal_no_fallback"
        | "session_title_changed"
        | "commands_changed"
        | "session_writes_lost"
        | "ui_invalidate"
        | "local_command_output"
        | "files_persisted" => Line::Nothing,
        other => Line::Unknown { kind: format!("system/{other}") },
    })
}
