//! A mistake in a settings file: where it is, what is wrong and what to write instead.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;

/// One mistake, or one doubtful setting, with its place and its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The setting, as a dotted path; empty when the file itself is meant.
    pub key: String,
    /// What is wrong. Never quotes a secret.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

/// A setting that is accepted and yet deserves a word.
pub type Warning = Problem;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.what, self.fix)
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigErrors {
    /// The file cannot be read.
    #[error("cannot read the settings {}; {fix}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What to do about it.
        fix: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file was read and is wrong: every mistake, in the order of the file.
    #[error("{}", listing(.0))]
    Mistakes(Vec<Problem>),
}

impl ConfigErrors {
    /// The mistakes; empty when the file could not be read at all.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Mistakes(problems) => problems,
            Self::Read { .. } => &[],
        }
    }
}

/// Mistakes shown at once; a file of rubbish must not fill the journal.
const SHOWN: usize = 50;

fn listing(problems: &[Problem]) -> String {
    let mut lines: Vec<String> = problems.iter().take(SHOWN).map(Problem::to_string).collect();
    if problems.len() > SHOWN {
        lines.push(format!("and {} more", problems.len() - SHOWN));
    }
    lines.join("\n")
}

/// Collects the problems of one file.
#[derive(Debug)]
pub(super) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    mistakes: Vec<Problem>,
    warnings: Vec<Warning>,
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, mistakes: Vec::new(), warnings: Vec::new() }
    }

    /// Notes a mistake at `span`, a range of bytes.
    pub(super) fn refuse(
        &mut self,
        span: Range<usize>,
        key: impl Into<String>,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let problem = self.problem(span, key.into(), what.into(), fix.into());
        self.mistakes.push(problem);
    }

    /// Notes a mistake of the file's form. What follows on the same line mostly follows from it, and is left out.
    pub(super) fn refuse_once_per_line(&mut self, span: Range<usize>, what: String, fix: &str) {
        let problem = self.problem(span, String::new(), what, fix.to_owned());
        if self.mistakes.last().is_none_or(|last| last.line != problem.line) {
            self.mistakes.push(problem);
        }
    }

    /// Notes a doubt at `span`, a range of bytes.
    pub(super) fn warn(
        &mut self,
        span: Range<usize>,
        key: impl Into<String>,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let problem = self.problem(span, key.into(), what.into(), fix.into());
        self.warnings.push(problem);
    }

    /// `value` and the warnings if there was no mistake; otherwise the mistakes.
    pub(super) fn finish<T>(mut self, value: T) -> Result<(T, Vec<Warning>), ConfigErrors> {
        if !self.mistakes.is_empty() {
            return Err(self.into_errors());
        }
        self.warnings.sort_by_key(|problem| (problem.line, problem.column));
        Ok((value, self.warnings))
    }

    /// The mistakes, in the order of the file.
    pub(super) fn into_errors(mut self) -> ConfigErrors {
        self.mistakes.sort_by_key(|problem| (problem.line, problem.column));
        ConfigErrors::Mistakes(self.mistakes)
    }

    fn problem(&self, span: Range<usize>, key: String, what: String, fix: String) -> Problem {
        let (line, column) = position(self.text, span.start);
        Problem { file: self.file.to_owned(), line, column, key, what, fix }
    }
}

/// Line and column, from 1, of the byte at `offset`.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..text.floor_char_boundary(offset)).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_lines_and_characters_from_one() {
        let text = "a\nbé = 1\n";
        for (offset, expected) in
            [(0, (1, 1)), (2, (2, 1)), (3, (2, 2)), (4, (2, 2)), (5, (2, 3)), (99, (3, 1))]
        {
            assert_eq!(position(text, offset), expected, "{offset}");
        }
        assert_eq!(position("", 0), (1, 1));
    }

    #[test]
    fn a_file_of_rubbish_does_not_fill_the_journal() {
        let mut report = Report::new("f", "");
        for _ in 0..SHOWN + 7 {
            report.refuse(0..0, "", "wrong", "right it");
        }
        let shown = report.finish(()).unwrap_err().to_string();
        assert_eq!(shown.lines().count(), SHOWN + 1);
        assert!(shown.ends_with("\nand 7 more"), "{shown}");
    }
}
