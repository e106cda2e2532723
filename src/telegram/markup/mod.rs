//! Markdown to what Telegram shows: plain text with entities, never a parse mode (pure).
//!
//! `render` walks pulldown-cmark's events, `split` cuts the result into messages. Escaping for a parse mode is where other
//! bots lose messages; entities cannot be refused as long as their offsets are right.
//!
//! Invariants, property-tested:
//! - Entities lie inside the text, never cut a surrogate pair, and are sorted; offsets are in UTF-16 units.
//! - Code and pre hold no other entity, quotes are not nested, two entities nest or are apart.
//! - Every visible character of the text is in exactly one part after a split, in order.

mod link;
mod split;
mod table;
mod walk;
mod write;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

pub(super) use split::split;
pub(super) use walk::render;

/// What a stretch of text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntityKind {
    /// Quote; never inside another.
    Quote,
    /// Bold.
    Bold,
    /// Italic.
    Italic,
    /// Struck through.
    Strike,
    /// A link behind words.
    Link(String),
    /// Code in a line.
    Code,
    /// A block of code, with its language.
    Pre(Option<String>),
}

/// A stretch of text with a meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// What it is.
    pub kind: EntityKind,
    /// Where it begins, in UTF-16 units.
    pub offset: usize,
    /// How long it is, in UTF-16 units; never 0.
    pub length: usize,
}

impl Entity {
    fn end(&self) -> usize {
        self.offset + self.length
    }
}

impl EntityKind {
    fn is_code(&self) -> bool {
        matches!(self, Self::Code | Self::Pre(_))
    }
}

impl Serialize for Entity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let name = match &self.kind {
            EntityKind::Quote => "blockquote",
            EntityKind::Bold => "bold",
            EntityKind::Italic => "italic",
            EntityKind::Strike => "strikethrough",
            EntityKind::Link(url) => {
                map.serialize_entry("url", url)?;
                "text_link"
            }
            EntityKind::Code => "code",
            EntityKind::Pre(language) => {
                if let Some(language) = language {
                    map.serialize_entry("language", language)?;
                }
                "pre"
            }
        };
        map.serialize_entry("type", name)?;
        map.serialize_entry("offset", &self.offset)?;
        map.serialize_entry("length", &self.length)?;
        map.end()
    }
}

/// Text with entities, as one message or before it is split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Its entities, by offset, the longer first.
    pub entities: Vec<Entity>,
}

impl Rendered {
    /// Text without any entity.
    pub(super) fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), entities: Vec::new() }
    }

    /// How long it is for Telegram, in UTF-16 units.
    pub(super) fn units(&self) -> usize {
        units(&self.text)
    }

    /// Puts a line before the text, an empty line between.
    pub(super) fn with_line_before(mut self, line: &str) -> Self {
        let head = format!("{line}\n\n");
        let shift = units(&head);
        self.text.insert_str(0, &head);
        for entity in &mut self.entities {
            entity.offset += shift;
        }
        self
    }

    /// Puts a line behind the text, an empty line between if there is text.
    pub(super) fn with_line_after(mut self, line: &str) -> Self {
        if !self.text.is_empty() {
            self.text.push_str("\n\n");
        }
        self.text.push_str(line);
        self
    }

    /// The newest part: at most `limit` units from the end, beginning at a line. What is left out grows in steps, so that
    /// a text that grows does not move on every edit.
    pub(super) fn tail(self, limit: usize) -> Self {
        let total = self.units();
        if total <= limit {
            return self;
        }
        let step = limit / 2;
        let drop = (total - limit).div_ceil(step) * step;
        split::from(&self, drop).with_line_before("…")
    }
}

/// Length in UTF-16 units.
fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// Whether a character alone would make a message that is not empty to Telegram.
fn is_visible(c: char) -> bool {
    !c.is_whitespace() && !matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{3164}')
}

#[cfg(test)]
mod tests;
