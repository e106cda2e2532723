//! A lenient view of one JSON object: each field is read by itself, so that a field of an unexpected form hides nothing
//! but itself (pure).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The fields of one object, unread.
#[derive(Debug)]
pub(super) struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    /// `None` when the text is no JSON object. However deep the JSON nests, nothing recurses here.
    pub(super) fn of(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok().map(Self)
    }

    /// Reads one field. `None` when it is missing, null, or of another form.
    pub(super) fn get<T: Deserialize<'a>>(&self, key: &str) -> Option<T> {
        serde_json::from_str::<Option<T>>(self.0.get(key)?.get()).ok().flatten()
    }

    /// One field as an object.
    pub(super) fn object(&self, key: &str) -> Option<Self> {
        Self::of(self.0.get(key)?.get())
    }

    /// Whether the field is there and not null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|raw| raw.get() != "null")
    }

    /// The names of all fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_field_hides_only_itself() {
        let json = r#"{"a": 1, "b": {"c": "x"}, "d": null, "e": "\ud800", "f": [[[1]]]}"#;
        let fields = Fields::of(json).unwrap();
        assert_eq!(fields.get::<i64>("a"), Some(1));
        assert_eq!(fields.get::<String>("a"), None);
        assert_eq!(fields.object("b").and_then(|b| b.get::<String>("c")), Some("x".to_owned()));
        assert_eq!((fields.has("d"), fields.get::<i64>("d")), (false, None));
        assert_eq!((fields.has("e"), fields.get::<String>("e")), (true, None));
        assert!(Fields::of("[1]").is_none());
        let deep = format!(r#"{{"a": 1, "deep": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(Fields::of(&deep).and_then(|f| f.get::<i64>("a")), Some(1));
    }
}
