//! One line about a tool use. Pure.
//!
//! Called by `turn`. Invariant: at most 200 characters, none of which moves a cursor or turns a line around.

use super::wire::ToolInput;

/// The longest detail, in characters.
const LONGEST: usize = 200;

/// What the tool works on, in one line; empty when nothing says it shortly.
pub(super) fn detail(name: &str, input: &ToolInput) -> String {
    let ToolInput { command, file_path, pattern, query, url, description, task_id } = input;
    let preferred = match name {
        "Agent" | "Task" => description,
        _ => command,
    };
    let found = [preferred, file_path, pattern, query, url, command, description, task_id]
        .into_iter()
        .flatten()
        .next();
    found.map(|text| one_line(text)).unwrap_or_default()
}

/// `text` in one line of at most 200 characters.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    let mut length = 0;
    let mut gap = false;
    for c in text.chars() {
        if c.is_whitespace() {
            gap = !line.is_empty();
            continue;
        }
        if is_unsafe(c) {
            continue;
        }
        if length + usize::from(gap) + 1 > LONGEST {
            line.pop();
            line.push('…');
            break;
        }
        if gap {
            line.push(' ');
            length += 1;
            gap = false;
        }
        line.push(c);
        length += 1;
    }
    line
}

/// Whether a character could make a line show something else than it says: controls, and marks of direction.
pub(super) fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_use_is_one_short_harmless_line() {
        let input = |json: &str| serde_json::from_str::<ToolInput>(json).unwrap();
        let long = format!(r#"{{"command":"{}"}}"#, "x".repeat(300));
        let cases = [
            ("Bash", r#"{"command":"ls  -l\n\tsrc","description":"List"}"#, "ls -l src".to_owned()),
            ("Read", r#"{"file_path":"/workspace/a","limit":3}"#, "/workspace/a".to_owned()),
            ("Grep", r#"{"pattern":"fn main","path":"src"}"#, "fn main".to_owned()),
            ("Agent", r#"{"description":"Count","prompt":"…"}"#, "Count".to_owned()),
            ("Bash", "{\"command\":\"a\\u001b[2Jb\\u202ec\"}", "a[2Jbc".to_owned()),
            ("Odd", r#"{"command":{"a":1},"url":"https://x"}"#, "https://x".to_owned()),
            ("Odd", "{}", String::new()),
            ("Bash", &long, format!("{}…", "x".repeat(199))),
        ];
        for (name, json, expected) in cases {
            assert_eq!(detail(name, &input(json)), expected, "{json}");
        }
    }
}
