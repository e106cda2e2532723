//! The lines that are written to the process. Pure.
//!
//! Called by `process` and `pump`. Invariant: every function gives exactly one JSON object and one newline; a line that
//! is not JSON would end the process.

use serde_json::{Value, json};

fn line(value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

/// A message for the model, exactly as the owner wrote it.
///
/// The CLI would run a leading `/word` as a command and replace `@path` by a file. `client_composed` switches both off,
/// but it also leaves out what the CLI adds at the start of a turn (the reminder of plan mode, dates, changed files), so
/// it is set only where the text could be taken for more than words.
pub(super) fn prompt(uuid: &str, text: &str) -> Vec<u8> {
    let mut message = json!({
        "type": "user",
        "uuid": uuid,
        "parent_tool_use_id": null,
        "message": { "role": "user", "content": text },
    });
    if text.trim_start().starts_with(['/', '!', '#']) || text.contains('@') {
        message["client_composed"] = Value::Bool(true);
    }
    line(&message)
}

/// The request whose answer means that the process is ready.
pub(super) fn initialize(request_id: &str) -> Vec<u8> {
    request(request_id, &json!({ "subtype": "initialize" }))
}

/// Ends the running turn.
pub(super) fn interrupt(request_id: &str) -> Vec<u8> {
    request(request_id, &json!({ "subtype": "interrupt" }))
}

fn request(request_id: &str, body: &Value) -> Vec<u8> {
    line(&json!({ "type": "control_request", "request_id": request_id, "request": body }))
}

/// Permits a tool use as it was asked.
pub(super) fn allow(request_id: &str) -> Vec<u8> {
    answer(request_id, &json!({ "behavior": "allow" }))
}

/// Refuses a tool use; `message` is told to the model.
pub(super) fn deny(request_id: &str, message: &str) -> Vec<u8> {
    answer(request_id, &json!({ "behavior": "deny", "message": message }))
}

fn answer(request_id: &str, body: &Value) -> Vec<u8> {
    line(&json!({
        "type": "control_response",
        "response": { "subtype": "success", "request_id": request_id, "response": body },
    }))
}

/// Refuses a request that this version does not serve.
pub(super) fn unsupported(request_id: &str, subtype: &str) -> Vec<u8> {
    line(&json!({
        "type": "control_response",
        "response": {
            "subtype": "error",
            "request_id": request_id,
            "error": format!("{subtype} is not served here"),
            "error_code": "unsupported_request",
        },
    }))
}
