//! Tables: columns where they fit a phone, else a line per cell (pure).

use pulldown_cmark::Alignment;

/// Columns wider than this in all do not fit a phone's screen in a fixed-width font.
const WIDEST: usize = 40;

/// A table being collected.
#[derive(Default)]
pub(super) struct Table {
    alignments: Vec<Alignment>,
    rows: Vec<Vec<String>>,
}

/// How a table is shown.
pub(super) enum Shown {
    /// Padded columns, for fixed width.
    Columns(String),
    /// One block per row: its title and its further lines.
    Cells(Vec<(String, Vec<String>)>),
}

impl Table {
    pub(super) fn new(alignments: Vec<Alignment>) -> Self {
        Self { alignments, rows: Vec::new() }
    }

    pub(super) fn row(&mut self) {
        self.rows.push(Vec::new());
    }

    pub(super) fn cell(&mut self, text: &str) {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(row) = self.rows.last_mut() {
            row.push(text);
        }
    }

    pub(super) fn show(self) -> Shown {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|at| {
                self.rows.iter().filter_map(|row| row.get(at)).map(|cell| width(cell)).max().unwrap_or(0)
            })
            .collect();
        if widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1) <= WIDEST {
            Shown::Columns(self.padded(&widths))
        } else {
            Shown::Cells(self.cells())
        }
    }

    fn padded(&self, widths: &[usize]) -> String {
        let mut lines = Vec::new();
        for (at, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = widths
                .iter()
                .enumerate()
                .map(|(column, &wide)| {
                    let cell = row.get(column).map_or("", String::as_str);
                    let space = wide.saturating_sub(width(cell));
                    let left = match self.alignments.get(column) {
                        Some(Alignment::Right) => space,
                        Some(Alignment::Center) => space / 2,
                        _ => 0,
                    };
                    format!("{}{cell}{}", " ".repeat(left), " ".repeat(space - left))
                })
                .collect();
            lines.push(cells.join("  ").trim_end().to_owned());
            if at == 0 {
                lines.push(widths.iter().map(|wide| "─".repeat(*wide)).collect::<Vec<_>>().join("  "));
            }
        }
        lines.join("\n")
    }

    fn cells(self) -> Vec<(String, Vec<String>)> {
        let mut rows = self.rows.into_iter();
        let header = rows.next().unwrap_or_default();
        let mut shown: Vec<_> = rows
            .map(|row| {
                let mut cells = row.into_iter().enumerate();
                let title = cells.next().map(|(_, cell)| cell).unwrap_or_default();
                let lines = cells.filter(|(_, cell)| !cell.is_empty()).map(|(at, cell)| {
                    match header.get(at).filter(|name| !name.is_empty()) {
                        Some(name) => format!("{name}: {cell}"),
                        None => cell,
                    }
                });
                (title, lines.collect())
            })
            .collect();
        // The first column's name and a table of nothing but a header have no row to stand in.
        shown.insert(0, (header.join(" · "), Vec::new()));
        shown
    }
}

/// Columns a text takes: East Asian wide characters and emoji take two.
fn width(text: &str) -> usize {
    text.chars()
        .map(|c| match u32::from(c) {
            0x300..=0x36f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
            0x1100..=0x115f
            | 0x2e80..=0xa4cf
            | 0xac00..=0xd7a3
            | 0xf900..=0xfaff
            | 0xfe30..=0xfe6f
            | 0xff00..=0xff60
            | 0xffe0..=0xffe6
            | 0x1f300..=0x1f64f
            | 0x1f680..=0x1f6ff
            | 0x1f900..=0x1f9ff
            | 0x20000..=0x3fffd => 2,
            0x2705 | 0x274c | 0x2728 | 0x2b50 => 2,
            _ => 1,
        })
        .sum()
}
