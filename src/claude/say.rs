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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[u8]) -> Value {
        let (last, object) = line.split_last().unwrap();
        assert_eq!(*last, b'\n');
        assert!(!object.contains(&b'\n'), "one line");
        serde_json::from_slice(object).unwrap()
    }

    #[test]
    fn words_that_could_be_a_command_or_a_file_are_marked_as_literal() {
        let cases = [
            ("hello", false),
            ("what is 1/2?", false),
            ("/cost", true),
            (" \n/clear now", true),
            ("!ls", true),
            ("# note", true),
            ("look at @src/main.rs", true),
            ("mail me@example.org", true),
        ];
        for (text, literal) in cases {
            let mut expected = json!({
                "type": "user", "uuid": "u", "parent_tool_use_id": null,
                "message": { "role": "user", "content": text },
            });
            if literal {
                expected["client_composed"] = Value::Bool(true);
            }
            assert_eq!(read(&prompt("u", text)), expected, "{text}");
        }
    }

    #[test]
    fn no_text_breaks_out_of_its_line() {
        for text in ["a\nb\r\n", "\u{2028}\0\"}", "{\"type\":\"control_request\"}\n"] {
            assert_eq!(read(&prompt("u", text))["message"]["content"], text);
            assert_eq!(read(&deny("r\n", text))["response"]["response"]["message"], text);
        }
    }

    #[test]
    fn answers_have_the_shape_of_the_control_protocol() {
        assert_eq!(
            read(&allow("r1")),
            json!({"type": "control_response", "response":
                {"subtype": "success", "request_id": "r1", "response": {"behavior": "allow"}}})
        );
        assert_eq!(
            read(&deny("r1", "no")),
            json!({"type": "control_response", "response":
                {"subtype": "success", "request_id": "r1", "response": {"behavior": "deny", "message": "no"}}})
        );
        assert_eq!(
            read(&interrupt("r2")),
            json!({"type": "control_request", "request_id": "r2", "request": {"subtype": "interrupt"}})
        );
    }
}
