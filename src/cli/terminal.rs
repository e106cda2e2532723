//! What is written to the terminal, and what must never reach it.
//!
//! Invariant: words that are not ours (a model's, a prompt's, an error's) pass [`plain`] first: an escape sequence in
//! them could retitle the window, move the cursor over an earlier line or answer a question nobody asked.

use std::io::{self, IsTerminal, Write};

use super::failure::CliError;

/// `text` with line ends and tabs kept, and every other control character made visible. Carriage returns vanish: they
/// would let a line be overwritten. Marks that turn the direction of writing are shown as a replacement character.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| *c != '\r')
        .map(|c| match c {
            '\n' | '\t' => c,
            '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
            '\u{7f}' => '\u{2421}',
            '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            _ => c,
        })
        .collect()
}

/// [`plain`] on one line, cut after `most` characters.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let flat = plain(text).split_whitespace().collect::<Vec<_>>().join(" ");
    match flat.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &flat[..end]),
        None => flat,
    }
}

/// Whether we may colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// A terminal whose owner does not mind.
    Coloured,
    /// A file, a pipe, or `NO_COLOR` is set.
    Bare,
}

impl Style {
    /// The style for standard output.
    pub(super) fn of_output() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if io::stdout().is_terminal() && !refused { Self::Coloured } else { Self::Bare }
    }

    /// `text` made faint.
    pub(super) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// `text` made strong.
    pub(super) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        match self {
            Self::Coloured => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Self::Bare => text.to_owned(),
        }
    }
}

/// Writes to standard output at once.
pub(super) fn write(text: &str) -> Result<(), CliError> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(CliError::io("write the output"))
}

/// Writes a line to standard error; that nobody reads it is no reason to stop.
pub(super) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes `value` as one line of JSON.
pub(super) fn write_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let mut line = serde_json::to_string(value).map_err(CliError::Protocol)?;
    line.push('\n');
    write(&line)
}

/// Columns as wide as their widest cell; the last one is not padded.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_become_visible_and_text_stays() {
        let cases = [
            ("plain é 漢字 🐝\n\tnext", "plain é 漢字 🐝\n\tnext"),
            ("\u{1b}[2J\u{1b}]0;owned\u{7}", "␛[2J␛]0;owned␇"),
            ("safe\rowned", "safeowned"),
            ("line\r\nline", "line\nline"),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("\u{7f}\u{0}\u{8}", "␡␀␈"),
            ("abc\u{202e}cba", "abc\u{fffd}cba"),
        ];
        for (text, shown) in cases {
            assert_eq!(plain(text), shown);
        }
        assert_eq!(one_line("a\n b\t\u{1b}c and more", 6), "a b ␛c…");
    }

    #[test]
    fn a_table_is_aligned_by_characters() {
        let rows = [vec!["é".to_owned(), "b".to_owned()], vec!["long".to_owned(), "c".to_owned()]];
        assert_eq!(table(&rows), "é     b\nlong  c\n");
    }
}
