//! What can go wrong with a Bot API call, sorted by what the caller has to do about it.

use std::error::Error;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use teloxide_core::RequestError;

use crate::model::ChatId;

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The Bot API's root is no URL.
    #[error("the Bot API address {0:?} is not a URL such as https://api.telegram.org")]
    Address(String),
    /// The token does not begin with the bot's number.
    #[error("the bot token is malformed: it looks like 123456789:AA… as @BotFather gave it")]
    Token,
    /// The HTTP client refused to start.
    #[error("the HTTP client could not be made: {0}")]
    Client(String),
}

/// Why a call failed. The texts hold no token and no message content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Flood control: nothing was done, and nothing will be before this time is over.
    #[error("Telegram asks to wait {} s", .0.as_secs())]
    RetryAfter(Duration),
    /// An edit that changes nothing: the wanted state is there.
    #[error("the message is as wanted already")]
    NotModified,
    /// The chat cannot be reached: blocked, left, deleted, or never begun.
    #[error("the chat cannot be reached: {0}")]
    Gone(String),
    /// The token is wrong or was revoked.
    #[error("Telegram refused the bot token")]
    Unauthorized,
    /// Somebody else polls this token, or a webhook is set.
    #[error("Telegram reports a conflict: {0}")]
    Conflict(String),
    /// Telegram refused what was asked; asking the same again is useless.
    #[error("Telegram refused the request: {0}")]
    BadRequest(String),
    /// The group has become a supergroup with another id.
    #[error("the chat has moved to {0}")]
    Migrated(ChatId),
    /// The request never left: it certainly had no effect.
    #[error("Telegram cannot be reached: {0}")]
    Unsent(String),
    /// No usable answer came back: the request may have had its effect.
    #[error("no usable answer from Telegram: {0}")]
    Unknown(String),
}

/// The envelope of every answer. Fields we do not know are passed over.
#[derive(Deserialize)]
struct Answer<'a> {
    ok: bool,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error_code: Option<i64>,
    #[serde(default)]
    description: Option<String>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Parameters {
    #[serde(default)]
    retry_after: Option<u64>,
    #[serde(default)]
    migrate_to_chat_id: Option<i64>,
}

/// A wait beyond this is taken for a mistake of the server's; it is asked again after this long.
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);

/// Takes the result out of an answer's body, or says what the answer means.
pub(super) fn open(status: u16, body: &str) -> Result<&RawValue, ApiError> {
    let Ok(answer) = serde_json::from_str::<Answer<'_>>(body) else {
        // A proxy's page, a captive portal, half an answer.
        return Err(ApiError::Unknown(format!("status {status} and no JSON")));
    };
    if let (true, Some(result)) = (answer.ok, answer.result) {
        return Ok(result);
    }
    let parameters: Parameters =
        answer.parameters.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let code = answer.error_code.unwrap_or(i64::from(status));
    Err(sort(code, answer.description.unwrap_or_default(), &parameters))
}

fn sort(code: i64, description: String, parameters: &Parameters) -> ApiError {
    if let Some(chat) = parameters.migrate_to_chat_id {
        return ApiError::Migrated(ChatId(chat));
    }
    if code == 429 || parameters.retry_after.is_some() {
        let wait = Duration::from_secs(parameters.retry_after.unwrap_or(5));
        return ApiError::RetryAfter(wait.min(LONGEST_WAIT));
    }
    let lower = description.to_ascii_lowercase();
    match code {
        401 => ApiError::Unauthorized,
        // A token of the wrong form is a path that does not exist.
        404 if lower == "not found" => ApiError::Unauthorized,
        409 => ApiError::Conflict(description),
        403 => ApiError::Gone(description),
        400 if lower.contains("message is not modified") => ApiError::NotModified,
        400 if ["chat not found", "peer_id_invalid", "user not found", "chat_write_forbidden"]
            .iter()
            .any(|gone| lower.contains(gone)) =>
        {
            ApiError::Gone(description)
        }
        400..500 => ApiError::BadRequest(description),
        _ => ApiError::Unknown(format!("{code} {description}")),
    }
}

/// Sorts a failure below the Bot API. `RequestError` has taken the token out of the URL already, and neither URL nor
/// outer texts are used here.
pub(super) fn network(error: &RequestError) -> ApiError {
    let RequestError::Network(error) = error else {
        return ApiError::Unknown("unreadable answer".to_owned());
    };
    let mut cause: &dyn Error = error.as_ref();
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let timed_out = error.is_timeout();
    let said = match (cause.source().is_none() && std::ptr::addr_eq(cause, error.as_ref()), timed_out) {
        (_, true) => "no answer in time".to_owned(),
        (true, false) => "the connection failed".to_owned(),
        (false, false) => cause.to_string(),
    };
    if error.is_connect() || error.is_builder() { ApiError::Unsent(said) } else { ApiError::Unknown(said) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, body: &str) -> ApiError {
        open(status, body).map(RawValue::get).unwrap_err()
    }

    #[test]
    fn every_kind_of_refusal_is_sorted() {
        let bad = |text: &str| ApiError::BadRequest(text.to_owned());
        let cases = [
            (
                429,
                r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 7","parameters":{"retry_after":7}}"#,
                ApiError::RetryAfter(Duration::from_secs(7)),
            ),
            (429, r#"{"ok":false,"error_code":429}"#, ApiError::RetryAfter(Duration::from_secs(5))),
            (
                400,
                r#"{"ok":false,"error_code":400,"description":"Bad Request: message is not modified: specified new…"}"#,
                ApiError::NotModified,
            ),
            (
                403,
                r#"{"ok":false,"error_code":403,"description":"Forbidden: bot was blocked by the user"}"#,
                ApiError::Gone("Forbidden: bot was blocked by the user".to_owned()),
            ),
            (
                400,
                r#"{"ok":false,"error_code":400,"description":"Bad Request: chat not found"}"#,
                ApiError::Gone("Bad Request: chat not found".to_owned()),
            ),
            (401, r#"{"ok":false,"error_code":401,"description":"Unauthorized"}"#, ApiError::Unauthorized),
            (404, r#"{"ok":false,"error_code":404,"description":"Not Found"}"#, ApiError::Unauthorized),
            (
                404,
                r#"{"ok":false,"error_code":404,"description":"Not Found: method not found"}"#,
                bad("Not Found: method not found"),
            ),
            (
                409,
                r#"{"ok":false,"error_code":409,"description":"Conflict: x"}"#,
                ApiError::Conflict("Conflict: x".to_owned()),
            ),
            (
                400,
                r#"{"ok":false,"error_code":400,"description":"moved","parameters":{"migrate_to_chat_id":-100}}"#,
                ApiError::Migrated(ChatId(-100)),
            ),
            (
                400,
                r#"{"ok":false,"error_code":400,"description":"Bad Request: x","parameters":{"new":[1]}}"#,
                bad("Bad Request: x"),
            ),
            (
                500,
                r#"{"ok":false,"error_code":500,"description":"Internal"}"#,
                ApiError::Unknown("500 Internal".to_owned()),
            ),
            (502, "<html>", ApiError::Unknown("status 502 and no JSON".to_owned())),
            (200, r#"{"ok":true,"result":{"mess"#, ApiError::Unknown("status 200 and no JSON".to_owned())),
            (200, r#"{"ok":true}"#, ApiError::Unknown("200 ".to_owned())),
        ];
        for (status, body, expected) in cases {
            assert_eq!(failure(status, body), expected, "{body}");
        }
    }

    #[test]
    fn a_result_comes_back_as_it_was_sent() {
        let body = r#"{"ok":true,"future":1,"result":[{"b":1, "a":18446744073709551616}]}"#;
        assert_eq!(open(200, body).unwrap().get(), r#"[{"b":1, "a":18446744073709551616}]"#);
    }
}
