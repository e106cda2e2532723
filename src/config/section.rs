//! One table of the file, read key by key: every wrong type and every unknown key becomes a line of the report.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::problem::Report;
use super::scalar::Refusal;

/// A value and where it stands.
pub(super) type At<T> = (T, Range<usize>);

/// A table with its dotted name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section<'a> {
    name: &'a str,
    table: &'a DeTable<'a>,
}

/// Words that owners put into settings files and that must not be there.
const SECRETS: [(&str, &str); 6] = [
    ("token", "telegram-token"),
    ("bot_token", "telegram-token"),
    ("telegram_token", "telegram-token"),
    ("api_key", "anthropic-api-key"),
    ("anthropic_api_key", "anthropic-api-key"),
    ("oauth_token", "claude-oauth-token"),
];

impl<'a> Section<'a> {
    pub(super) fn new(name: &'a str, table: &'a DeTable<'a>) -> Self {
        Self { name, table }
    }

    /// The dotted path of `key`.
    pub(super) fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Refuses every key that is not in `known`, with the nearest known one.
    pub(super) fn refuse_unknown(&self, known: &[&str], report: &mut Report<'_>) {
        for key in self.table.keys() {
            let word = key.get_ref().as_ref();
            if known.contains(&word) {
                continue;
            }
            let (what, fix) = match (SECRETS.iter().find(|(name, _)| *name == word), nearest(word, known)) {
                (Some((_, credential)), _) => (
                    "secrets do not belong in this file".to_owned(),
                    format!(
                        "remove the line and store it as the credential {credential}: man skep.toml, CREDENTIALS"
                    ),
                ),
                (None, Some(meant)) => {
                    ("there is no such setting".to_owned(), format!("did you mean {meant:?}?"))
                }
                (None, None) => {
                    ("there is no such setting".to_owned(), format!("known here: {}", known.join(", ")))
                }
            };
            report.refuse(key.span(), self.path(&clean(word)), what, fix);
        }
    }

    /// A table below this one.
    pub(super) fn table(&self, key: &str, report: &mut Report<'_>) -> Option<&'a DeTable<'a>> {
        let value = self.table.get(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(key, value, "a section", &format!("write [{}]", self.path(key)), report);
        }
        table
    }

    /// Text; `example` is what a number or a list in its place is answered with.
    fn text(&self, key: &str, example: &str, report: &mut Report<'_>) -> Option<At<&'a str>> {
        let value = self.table.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some((text.as_ref(), value.span())),
            _ => {
                self.wrong_type(key, value, "text in quotes", &format!("write {key} = {example:?}"), report);
                None
            }
        }
    }

    /// Text with a notation of its own.
    pub(super) fn read<T>(
        &self,
        key: &str,
        example: &str,
        report: &mut Report<'_>,
        reader: impl FnOnce(&str) -> Result<T, Refusal>,
    ) -> Option<At<T>> {
        let (text, span) = self.text(key, example, report)?;
        match reader(text) {
            Ok(value) => Some((value, span)),
            Err((what, fix)) => {
                report.refuse(span, self.path(key), what, fix);
                None
            }
        }
    }

    /// A whole number.
    pub(super) fn integer(&self, key: &str, report: &mut Report<'_>) -> Option<At<i64>> {
        let value = self.table.get(key)?;
        let number = integer(value.get_ref());
        if number.is_none() {
            self.wrong_type(key, value, "a whole number", "write digits without quotes", report);
        }
        number.map(|number| (number, value.span()))
    }

    /// A list.
    pub(super) fn list(
        &self,
        key: &str,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<At<&'a DeArray<'a>>> {
        let value = self.table.get(key)?;
        let list = value.get_ref().as_array();
        if list.is_none() {
            self.wrong_type(key, value, "a list", &format!("write {key} = {example}"), report);
        }
        list.map(|list| (list, value.span()))
    }

    fn wrong_type(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &str,
        fix: &str,
        report: &mut Report<'_>,
    ) {
        let found = type_name(value.get_ref());
        report.refuse(value.span(), self.path(key), format!("this must be {wanted}, and is {found}"), fix);
    }
}

/// The number a value is, if it is a whole one.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// What a value is, in plain words.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) if integer(value).is_none() => "a number too large",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// A key as it may be shown: short and without control characters.
pub(super) fn clean(key: &str) -> String {
    key.chars()
        .take(64)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// The known word that `word` was probably meant to be.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    if word.len() > 40 {
        return None;
    }
    let allowed = if word.len() <= 4 { 1 } else { 2 };
    known
        .iter()
        .map(|candidate| (distance(&word, candidate), *candidate))
        .filter(|(steps, _)| *steps <= allowed)
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, candidate)| candidate)
}

/// Insertions, removals, replacements and swaps of neighbours that make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let steps = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    if swapped { steps.min(rows[i - 2][j - 2] + 1) } else { steps }
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_word_is_offered_and_a_far_one_is_not() {
        let known = ["memory", "model", "idle", "pids", "turn_limit"];
        let cases = [
            ("memroy", Some("memory")),
            ("Model", Some("model")),
            ("turn-limit", Some("turn_limit")),
            ("pid", Some("pids")),
            ("turnlimit", Some("turn_limit")),
            ("colour", None),
            ("x", None),
            ("", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, &known), expected, "{word}");
        }
    }
}
