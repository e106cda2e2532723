//! From pulldown-cmark's events to the writer (pure).

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::table::{Shown, Table};
use super::write::Writer;
use super::{EntityKind, Rendered, link};

/// Renders Markdown. The text is trimmed and may be empty.
pub(in crate::telegram) fn render(markdown: &str) -> Rendered {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut walker = Walker::default();
    for event in Parser::new_ext(markdown, options) {
        walker.event(event);
    }
    walker.out.finish()
}

#[derive(Default)]
struct Walker {
    out: Writer,
    /// Open lists: the next number, or `None` for bullets.
    lists: Vec<Option<u64>>,
    quotes: usize,
    /// Addresses of open links and images.
    links: Vec<String>,
    /// Where in `cell` the text of an open link began.
    link_starts: Vec<usize>,
    /// Language and text of the open code block.
    code: Option<(Option<String>, String)>,
    table: Option<Table>,
    /// Text of the open table cell.
    cell: Option<String>,
}

impl Walker {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => self.text(&text),
            Event::Code(code) => self.inline_code(&code),
            Event::InlineMath(text) | Event::DisplayMath(text) => self.inline_code(&text),
            Event::Html(html) => self.text(&html),
            Event::InlineHtml(html) => match html.to_ascii_lowercase().as_str() {
                "<br>" | "<br/>" | "<br />" => self.text("\n"),
                _ => self.text(&html),
            },
            Event::FootnoteReference(name) => self.text(&format!("[{name}]")),
            Event::SoftBreak | Event::HardBreak => self.text("\n"),
            Event::Rule => {
                self.block();
                self.out.text("──────────");
            }
            Event::TaskListMarker(done) => self.out.sign(if done { "☑ " } else { "☐ " }),
        }
    }

    /// Wants the distance between two blocks.
    fn block(&mut self) {
        self.out.gap(if self.lists.is_empty() { 2 } else { 1 });
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { .. } => {
                self.block();
                self.out.begin(EntityKind::Bold);
            }
            Tag::BlockQuote(_) => {
                self.block();
                self.quotes += 1;
                if self.quotes == 1 {
                    self.out.begin(EntityKind::Quote);
                }
            }
            Tag::CodeBlock(kind) => {
                self.block();
                let language = match kind {
                    CodeBlockKind::Fenced(info) => language(&info),
                    CodeBlockKind::Indented => None,
                };
                self.code = Some((language, String::new()));
            }
            Tag::List(first) => {
                self.block();
                self.lists.push(first);
            }
            Tag::Item => self.item(),
            Tag::Table(alignments) => {
                self.block();
                self.table = Some(Table::new(alignments));
            }
            Tag::TableHead | Tag::TableRow => {
                if let Some(table) = &mut self.table {
                    table.row();
                }
            }
            Tag::TableCell => self.cell = Some(String::new()),
            Tag::Emphasis => self.style(EntityKind::Italic),
            Tag::Strong => self.style(EntityKind::Bold),
            Tag::Strikethrough => self.style(EntityKind::Strike),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => self.link(&dest_url),
            // Paragraphs, raw HTML, and what our options never let appear.
            _ => self.block(),
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                self.out.end();
                self.block();
            }
            TagEnd::BlockQuote(_) => {
                self.quotes = self.quotes.saturating_sub(1);
                if self.quotes == 0 {
                    self.out.end();
                }
                self.block();
            }
            TagEnd::CodeBlock => {
                if let Some((language, code)) = self.code.take() {
                    self.out.code(EntityKind::Pre(language), code.trim_end());
                }
                self.block();
            }
            TagEnd::List(_) => {
                self.lists.pop();
                self.block();
            }
            TagEnd::Item => self.out.end_item(),
            TagEnd::TableHead | TagEnd::TableRow => {}
            TagEnd::TableCell => {
                if let (Some(cell), Some(table)) = (self.cell.take(), &mut self.table) {
                    table.cell(&cell);
                }
            }
            TagEnd::Table => self.show_table(),
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough if self.cell.is_none() => {
                self.out.end();
            }
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => {}
            TagEnd::Link | TagEnd::Image => self.end_link(),
            _ => self.block(),
        }
    }

    fn text(&mut self, text: &str) {
        match (&mut self.code, &mut self.cell) {
            (Some((_, code)), _) => code.push_str(text),
            (None, Some(cell)) => cell.push_str(text),
            (None, None) => self.out.text(text),
        }
    }

    fn style(&mut self, kind: EntityKind) {
        if self.cell.is_none() {
            self.out.begin(kind);
        }
    }

    fn inline_code(&mut self, code: &str) {
        // A link's words stay a link: code inside would end it.
        if self.cell.is_some() || self.out.in_link() {
            self.text(code);
        } else {
            self.out.code(EntityKind::Code, code);
        }
    }

    fn item(&mut self) {
        let depth = self.lists.len().saturating_sub(1);
        let sign = match self.lists.last_mut() {
            Some(Some(number)) => {
                let sign = format!("{number}. ");
                *number = number.saturating_add(1);
                sign
            }
            _ => "• ".to_owned(),
        };
        self.out.bullet(format!("{}{sign}", "  ".repeat(depth.min(8))));
    }

    fn link(&mut self, url: &str) {
        self.links.push(url.to_owned());
        match &self.cell {
            Some(cell) => self.link_starts.push(cell.len()),
            None => self.out.begin(EntityKind::Link(url.to_owned())),
        }
    }

    fn end_link(&mut self) {
        let Some(url) = self.links.pop() else { return };
        if let Some(cell) = &mut self.cell {
            let start = self.link_starts.pop().unwrap_or_default();
            let said = cell.get(start..).unwrap_or_default().to_owned();
            cell.push_str(&written_out(&said, &url));
            return;
        }
        // A link in a link (an image, mostly) is silent already; it is written like one Telegram would refuse.
        let outer = !self.links.is_empty();
        if !outer && link::usable(&url).is_some() {
            let said = self.out.end();
            if said.trim().is_empty() {
                self.out.text(&url);
            }
            return;
        }
        let said = self.out.withdraw();
        if !outer || said.is_empty() {
            self.out.text(&written_out(&said, &url));
        }
    }

    fn show_table(&mut self) {
        let Some(table) = self.table.take() else { return };
        match table.show() {
            Shown::Columns(text) => self.out.code(EntityKind::Pre(None), &text),
            Shown::Cells(rows) => {
                for (title, lines) in rows {
                    self.out.gap(2);
                    self.out.begin(EntityKind::Bold);
                    self.out.text(&title);
                    self.out.end();
                    for line in lines {
                        self.out.gap(1);
                        self.out.text(&line);
                    }
                }
            }
        }
        self.block();
    }
}

/// What is to be added to a link's words so that its address is not lost.
fn written_out(said: &str, url: &str) -> String {
    let bare = url.strip_prefix("mailto:").unwrap_or(url);
    if said.trim().is_empty() {
        bare.to_owned()
    } else if bare.is_empty() || bare == said || bare.ends_with(said) {
        String::new()
    } else {
        format!(" ({bare})")
    }
}

/// The language of a fence, from its info string.
fn language(info: &str) -> Option<String> {
    let word: String = info
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '#' | '_' | '.'))
        .take(32)
        .collect();
    (!word.is_empty()).then_some(word)
}
