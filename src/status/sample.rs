//! A rich overview for tests, with its times moved so that it was taken `now`.

use serde_json::Value;

use crate::model::Overview;

const TAKEN: i64 = 1_790_000_000;

pub(super) fn overview(now: i64) -> Overview {
    let text = include_str!("../../tests/fixtures/status/overview.json");
    let mut value = serde_json::from_str(text).unwrap();
    shift(&mut value, now - TAKEN);
    serde_json::from_value(value).unwrap()
}

fn shift(value: &mut Value, by: i64) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| shift(item, by)),
        Value::Object(fields) => {
            for (key, field) in fields {
                let is_time =
                    matches!(key.as_str(), "started_at" | "created_at" | "ended_at" | "last_poll" | "since");
                match field.as_i64() {
                    Some(at) if is_time => *field = (at + by).into(),
                    _ => shift(field, by),
                }
            }
        }
        _ => {}
    }
}
