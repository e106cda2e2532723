//! Cutting rendered text into messages (pure).

use super::{Entity, EntityKind, Rendered, is_visible};

/// Telegram drops entities beyond this many in a message without a word.
const MOST_ENTITIES: usize = 100;

/// Cuts into parts of at most `limit` UTF-16 units (at least 2) and 100 entities, at a blank line, else at a line's end,
/// else at a blank, else between two characters. A part is never empty to Telegram; of text with nothing visible comes
/// no part.
pub(in crate::telegram) fn split(rendered: &Rendered, limit: usize) -> Vec<Rendered> {
    let text = Indexed::new(rendered);
    let mut parts = Vec::new();
    let mut from = 0;
    while from < text.chars.len() {
        // Blank lines at a seam belong to nobody; the indentation of the first line does.
        if text.chars[from].0 == '\n' {
            from += 1;
            continue;
        }
        let to = text.cut(from, limit.max(2)).max(from + 1);
        let part = text.slice(from, to);
        if part.text.chars().any(is_visible) {
            parts.push(part);
        }
        from = to;
    }
    parts
}

/// All of it as one, trimmed and with its entities in order.
pub(super) fn whole(rendered: &Rendered) -> Rendered {
    let text = Indexed::new(rendered);
    text.slice(0, text.chars.len())
}

/// Everything from the first line that begins at or behind `units`; from there on at a character if there is no line end.
pub(super) fn from(rendered: &Rendered, units: usize) -> Rendered {
    let text = Indexed::new(rendered);
    let at = text.at(units);
    let line = text.chars[at..].iter().take(600).position(|(c, _)| *c == '\n').map(|n| at + n + 1);
    text.slice(line.unwrap_or(at), text.chars.len())
}

/// Text by characters, each with the UTF-16 offset at which it begins.
struct Indexed<'r> {
    chars: Vec<(char, usize)>,
    end: usize,
    entities: Vec<&'r Entity>,
}

impl<'r> Indexed<'r> {
    fn new(rendered: &'r Rendered) -> Self {
        let mut end = 0;
        let chars = rendered
            .text
            .chars()
            .map(|c| {
                let at = end;
                end += c.len_utf16();
                (c, at)
            })
            .collect();
        let mut entities: Vec<&Entity> = rendered.entities.iter().collect();
        entities.sort_by_key(|e| (e.offset, std::cmp::Reverse(e.length), rank(&e.kind)));
        Self { chars, end, entities }
    }

    /// The first character at or behind a UTF-16 offset.
    fn at(&self, units: usize) -> usize {
        self.chars.partition_point(|(_, offset)| *offset < units)
    }

    fn offset(&self, at: usize) -> usize {
        self.chars.get(at).map_or(self.end, |(_, offset)| *offset)
    }

    /// Where the part that begins at `from` ends.
    fn cut(&self, from: usize, limit: usize) -> usize {
        let begin = self.offset(from);
        let mut far = if self.end - begin <= limit {
            self.chars.len()
        } else {
            // A pair that would cross the limit goes to the next part.
            self.chars.partition_point(|(c, offset)| offset + c.len_utf16() <= begin + limit)
        };
        let inside = self.entities.iter().filter(|e| e.end() > begin && e.offset < self.offset(far));
        if let Some(first_over) = inside.map(|e| e.offset.max(begin)).nth(MOST_ENTITIES) {
            far = far.min(self.at(first_over));
        }
        if far == self.chars.len() {
            return far;
        }
        let near = self.at(begin + (self.offset(far) - begin) / 2).max(from + 1);
        self.best(near, far).unwrap_or(far)
    }

    /// The best place to cut in `near..=far`: the last one of the best kind.
    fn best(&self, near: usize, far: usize) -> Option<usize> {
        let is = |at: usize, wanted: char| self.chars.get(at).is_some_and(|(c, _)| *c == wanted);
        let behind = |at: &usize, wanted: char| *at > 0 && is(*at - 1, wanted);
        let places = || (near..=far).rev();
        places()
            .find(|at| behind(at, '\n') && *at > 1 && is(at - 2, '\n') && !self.in_pre(*at))
            .or_else(|| self.last_pre(near, far))
            .or_else(|| places().find(|at| behind(at, '\n')))
            .or_else(|| places().find(|at| behind(at, ' ')))
    }

    fn in_pre(&self, at: usize) -> bool {
        let offset = self.offset(at);
        self.entities
            .iter()
            .any(|e| matches!(e.kind, EntityKind::Pre(_)) && e.offset < offset && offset < e.end())
    }

    /// Where the last block of code in `near..=far` begins.
    fn last_pre(&self, near: usize, far: usize) -> Option<usize> {
        let blocks = self.entities.iter().filter(|e| matches!(e.kind, EntityKind::Pre(_)));
        blocks.map(|e| self.at(e.offset)).filter(|at| (near..=far).contains(at)).max()
    }

    /// A stretch as a text of its own: trimmed as the server trims, entities cut to it.
    fn slice(&self, from: usize, to: usize) -> Rendered {
        let blank = |at: &usize| matches!(self.chars[*at].0, ' ' | '\n');
        let last = (from..to).rev().find(|at| !blank(at)).map_or(from, |at| at + 1);
        let in_code = |at: usize| {
            let offset = self.offset(at);
            self.entities.iter().any(|e| e.kind.is_code() && e.offset <= offset && offset < e.end())
        };
        let first = (from..last).find(|at| !blank(at) || in_code(*at)).unwrap_or(last);
        let (begin, end) = (self.offset(first), self.offset(last));
        let entities = self.entities.iter().filter_map(|entity| {
            let (mut low, mut high) = (entity.offset.max(begin), entity.end().min(end));
            if !entity.kind.is_code() {
                // Blanks in code count: a quote around code must not end inside it.
                while low < high && blank(&self.at(low)) && !in_code(self.at(low)) {
                    low += 1;
                }
                while high > low && blank(&(self.at(high) - 1)) && !in_code(self.at(high) - 1) {
                    high -= 1;
                }
            }
            (low < high).then(|| Entity {
                kind: entity.kind.clone(),
                offset: low - begin,
                length: high - low,
            })
        });
        let mut entities: Vec<Entity> = entities.collect();
        entities.sort_by_key(|e| (e.offset, std::cmp::Reverse(e.length), rank(&e.kind)));
        Rendered { text: self.chars[first..last].iter().map(|(c, _)| *c).collect(), entities }
    }
}

/// Of two entities over the same text the quote is the outer one, code the inner.
fn rank(kind: &EntityKind) -> u8 {
    match kind {
        EntityKind::Quote => 0,
        EntityKind::Link(_) => 1,
        EntityKind::Bold | EntityKind::Italic | EntityKind::Strike => 2,
        EntityKind::Code | EntityKind::Pre(_) => 3,
    }
}
