//! The writer under the walker: text with the offsets of its entities counted while it is written (pure).

use super::{Entity, EntityKind, Rendered};

/// A style that is open, and since where.
struct Open {
    kind: EntityKind,
    since: usize,
    /// Inside the same style already, or where none is allowed: nothing is recorded.
    silent: bool,
}

/// Writes text and entities.
#[derive(Default)]
pub(super) struct Writer {
    text: String,
    units: usize,
    entities: Vec<Entity>,
    open: Vec<Open>,
    /// Line ends owed before the next text.
    gap: usize,
    /// Nothing has been written since a place where no gap is wanted (a bullet, the start of a quote).
    fresh: bool,
    /// A bullet owed before the next text.
    bullet: Option<String>,
}

impl Writer {
    /// Wants at least `lines` line ends before the next text.
    pub(super) fn gap(&mut self, lines: usize) {
        if !self.text.is_empty() && !self.fresh && self.bullet.is_none() {
            self.gap = self.gap.max(lines);
        }
    }

    /// Wants `bullet` before the next text of a list's item.
    pub(super) fn bullet(&mut self, bullet: String) {
        self.flush();
        self.gap(1);
        self.bullet = Some(bullet);
    }

    /// Changes the owed bullet's sign (a task's box).
    pub(super) fn sign(&mut self, sign: &str) {
        match &mut self.bullet {
            Some(bullet) => {
                let indent = bullet.len() - bullet.trim_start().len();
                bullet.truncate(indent);
                bullet.push_str(sign);
            }
            None => self.text(sign),
        }
    }

    /// Ends a list's item: an empty one still shows its bullet.
    pub(super) fn end_item(&mut self) {
        if self.bullet.is_some() {
            self.flush();
        }
        self.fresh = false;
    }

    /// Writes what is owed.
    pub(super) fn flush(&mut self) {
        for _ in 0..std::mem::take(&mut self.gap) {
            self.put('\n');
            self.fresh = true;
        }
        if let Some(bullet) = self.bullet.take() {
            bullet.chars().for_each(|c| self.put(c));
            self.fresh = true;
        }
    }

    fn put(&mut self, c: char) {
        // What the server does to these, done here, so that offsets stay true.
        let c = match c {
            '\r' | '\u{2028}'..='\u{202e}' | '\u{333}' | '\u{33f}' | '\u{30a}' => return,
            '\n' => '\n',
            c if c < ' ' || c == '\u{7f}' => ' ',
            c => c,
        };
        self.text.push(c);
        self.units += c.len_utf16();
    }

    /// Writes text as it is.
    pub(super) fn text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.flush();
        text.chars().for_each(|c| self.put(c));
        self.fresh = false;
    }

    /// Begins a style.
    pub(super) fn begin(&mut self, kind: EntityKind) {
        self.flush();
        let linked = self.in_link();
        let silent = self.open.iter().any(|open| open.kind == kind)
            || (linked && matches!(kind, EntityKind::Link(_) | EntityKind::Quote));
        self.open.push(Open { kind, since: self.units, silent });
        if matches!(self.open.last(), Some(open) if open.kind == EntityKind::Quote) {
            self.fresh = true;
        }
    }

    /// Ends the style begun last. Returns the text written in it.
    pub(super) fn end(&mut self) -> &str {
        let Some(open) = self.open.pop() else { return "" };
        let since = open.since;
        if !open.silent {
            self.record(open.kind, since);
        }
        self.fresh = false;
        &self.text[byte_at(&self.text, since)..]
    }

    /// Whether a link is open.
    pub(super) fn in_link(&self) -> bool {
        self.open.iter().any(|open| matches!(open.kind, EntityKind::Link(_)))
    }

    /// Withdraws the link begun last (nothing is recorded for it) and returns its text.
    pub(super) fn withdraw(&mut self) -> String {
        if let Some(open) = self.open.last_mut() {
            open.silent = true;
        }
        self.end().to_owned()
    }

    /// Writes code: styles around it pause, for code holds no other entity and lies in none but a quote.
    pub(super) fn code(&mut self, kind: EntityKind, code: &str) {
        if code.is_empty() {
            return;
        }
        self.flush();
        self.pause();
        let since = self.units;
        self.text(code);
        self.record(kind, since);
        for open in self.open.iter_mut().filter(|open| open.kind != EntityKind::Quote) {
            open.since = self.units;
        }
    }

    fn pause(&mut self) {
        let paused: Vec<_> = self
            .open
            .iter()
            .filter(|open| open.kind != EntityKind::Quote && !open.silent)
            .map(|open| (open.kind.clone(), open.since))
            .collect();
        for (kind, since) in paused {
            self.record(kind, since);
        }
    }

    fn record(&mut self, kind: EntityKind, offset: usize) {
        if self.units > offset {
            self.entities.push(Entity { kind, offset, length: self.units - offset });
        }
    }

    /// Everything written, trimmed as the server trims.
    pub(super) fn finish(mut self) -> Rendered {
        while !self.open.is_empty() {
            self.end();
        }
        super::split::whole(&Rendered { text: self.text, entities: self.entities })
    }
}

/// The byte at which the `units`th UTF-16 unit begins.
fn byte_at(text: &str, units: usize) -> usize {
    let mut at = 0;
    text.char_indices()
        .find(|(_, c)| {
            let here = at >= units;
            at += c.len_utf16();
            here
        })
        .map_or(text.len(), |(byte, _)| byte)
}
