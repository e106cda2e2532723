//! Tables of Markdown and what becomes of it, and the module's invariants as properties.

use proptest::prelude::*;

use super::*;

/// The text with its entities as tags, for tables that can be read.
fn tagged(rendered: &Rendered) -> String {
    let name = |kind: &EntityKind| match kind {
        EntityKind::Quote => "q".to_owned(),
        EntityKind::Bold => "b".to_owned(),
        EntityKind::Italic => "i".to_owned(),
        EntityKind::Strike => "s".to_owned(),
        EntityKind::Link(url) => format!("a={url}"),
        EntityKind::Code => "c".to_owned(),
        EntityKind::Pre(None) => "pre".to_owned(),
        EntityKind::Pre(Some(language)) => format!("pre={language}"),
    };
    let mut out = String::new();
    let mut open: Vec<&Entity> = Vec::new();
    let mut waiting = rendered.entities.iter().peekable();
    let mut at = 0;
    for c in rendered.text.chars().map(Some).chain([None]) {
        while open.pop_if(|entity| entity.end() <= at).is_some() {
            out.push_str("</>");
        }
        while let Some(entity) = waiting.next_if(|entity| entity.offset <= at) {
            out.push_str(&format!("<{}>", name(&entity.kind)));
            open.push(entity);
        }
        if let Some(c) = c {
            out.push(c);
            at += c.len_utf16();
        }
    }
    out
}

#[test]
fn markdown_becomes_text_with_entities() {
    let cases = [
        ("", ""),
        ("  \n\n ", ""),
        ("plain", "plain"),
        ("one\ntwo\n\n\n\nthree", "one\ntwo\n\nthree"),
        ("a **b *c* d** e", "a <b>b <i>c</> d</> e"),
        ("~~gone~~ and _it_", "<s>gone</> and <i>it</>"),
        ("unfinished **bold", "unfinished **bold"),
        ("# Title with `code`\ntext", "<b>Title with</> <c>code</>\n\ntext"),
        ("**bold `code` bold**", "<b>bold</> <c>code</> <b>bold</>"),
        ("***both***", "<b><i>both</></>"),
        ("# **twice**", "<b>twice</>"),
        ("🐝 **b🐝** c", "🐝 <b>b🐝</> c"),
        ("```rust\nfn a() {}\n\n  b\n```\nafter", "<pre=rust>fn a() {}\n\n  b</>\n\nafter"),
        ("```\n  indented\n```", "<pre>  indented</>"),
        ("```sh title=\"x\"\nls", "<pre=sh>ls</>"),
        ("```\n```\nx", "x"),
        ("- a\n- b\n  - c\n    - d\n- e", "• a\n• b\n  • c\n    • d\n• e"),
        ("text\n- a\n\n- b\n\nafter", "text\n\n• a\n• b\n\nafter"),
        ("3. x\n4. y\n   more", "3. x\n4. y\nmore"),
        ("-\n- b", "• \n• b"),
        ("- [ ] todo\n- [x] done", "☐ todo\n☑ done"),
        ("- ```sh\n  ls\n  ```\n- b", "• <pre=sh>ls</>\n• b"),
        ("> quote\n> more\n\nafter", "<q>quote\nmore</>\n\nafter"),
        ("> a\n>> b\n>\n> `c`", "<q>a\n\nb\n\n<c>c</></>"),
        ("- > in a list", "• <q>in a list</>"),
        ("[words](https://example.com/a)", "<a=https://example.com/a>words</>"),
        ("[`code`](https://example.com/)", "<a=https://example.com/>code</>"),
        ("**[b](https://example.com/)**", "<a=https://example.com/><b>b</></>"),
        ("[main.rs](src/main.rs)", "main.rs"),
        ("[the code](src/main.rs)", "the code (src/main.rs)"),
        ("[x](javascript:alert(1))", "x (javascript:alert(1))"),
        ("[local](http://localhost:3000/)", "local (http://localhost:3000/)"),
        ("[write](mailto:a@example.com)", "write (a@example.com)"),
        ("<https://example.com>", "<a=https://example.com>https://example.com</>"),
        ("![a cat](https://example.com/c.png)", "<a=https://example.com/c.png>a cat</>"),
        ("![](https://example.com/c.png)", "https://example.com/c.png"),
        ("[![ci](https://example.com/b.svg)](https://example.com/)", "<a=https://example.com/>ci</>"),
        ("a<br>b <b>raw</b> &amp; &lt;x&gt;", "a\nb <b>raw</b> & <x>"),
        ("<div>\nraw\n</div>", "<div>\nraw\n</div>"),
        ("a\n\n---\n\nb", "a\n\n──────────\n\nb"),
        ("price $5 and $6", "price $5 and $6"),
        ("a\u{b}b\u{202e}c\u{2028}d", "a bcd"),
        (
            "| n | name |\n|--:|:-----|\n| 1 | `x` |\n| 22 | **🐝** y |",
            "<pre> n  name\n──  ────\n 1  x\n22  🐝 y</>",
        ),
    ];
    for (markdown, expected) in cases {
        assert_eq!(tagged(&render(markdown)), expected, "{markdown:?}");
    }
}

#[test]
fn a_wide_table_becomes_a_line_per_cell() {
    let markdown = "| Host | What it does | Since |\n|---|---|---|\n\
        | alpha | serves the pages of the shop | 2024 |\n| beta | | [log](https://example.com/) |";
    let expected = "<b>Host · What it does · Since</>\n\n<b>alpha</>\nWhat it does: serves the pages of the shop\n\
        Since: 2024\n\n<b>beta</>\nSince: log (https://example.com/)";
    assert_eq!(tagged(&render(markdown)), expected);
}

#[test]
fn a_cut_is_made_at_the_best_place() {
    let cases: [(&str, usize, &[&str]); 9] = [
        ("short", 10, &["short"]),
        ("", 10, &[]),
        ("\u{200b}", 10, &[]),
        ("one two\n\nthree four", 14, &["one two", "three four"]),
        ("aaa bbb\nccc ddd", 12, &["aaa bbb", "ccc ddd"]),
        ("aaaaaa bbbbbbb", 10, &["aaaaaa", "bbbbbbb"]),
        ("aaaaaaaaaaaaaaa", 10, &["aaaaaaaaaa", "aaaaa"]),
        ("🐝🐝🐝", 3, &["🐝", "🐝", "🐝"]),
        ("**aaaa bbbb**", 6, &["<b>aaaa</>", "<b>bbbb</>"]),
    ];
    for (markdown, limit, expected) in cases {
        let parts: Vec<String> = split(&render(markdown), limit).iter().map(tagged).collect();
        assert_eq!(parts, expected, "{markdown:?}");
    }
}

#[test]
fn code_keeps_its_language_and_indentation_on_both_sides_of_a_cut() {
    let parts = split(&render("```py\nif a:\n    b()\n    c()\n```"), 17);
    let parts: Vec<String> = parts.iter().map(tagged).collect();
    assert_eq!(parts, ["<pre=py>if a:\n    b()</>", "<pre=py>    c()</>"]);
}

#[test]
fn a_block_of_code_is_not_cut_when_it_fits_the_next_message() {
    let text = format!("{}\n\n```\nx\n\ny\n```", "word ".repeat(15));
    let parts: Vec<String> = split(&render(&text), 79).iter().map(tagged).collect();
    assert_eq!(parts, ["word ".repeat(15).trim_end(), "<pre>x\n\ny</>"]);
}

#[test]
fn a_message_has_at_most_a_hundred_entities() {
    let parts = split(&render(&"*a* ".repeat(250)), 4000);
    assert_eq!(parts.iter().map(|part| part.entities.len()).collect::<Vec<_>>(), [100, 100, 50]);
}

#[test]
fn entities_are_named_as_the_bot_api_names_them() {
    let body = render("**b** [w](https://example.com/)\n```sh\nls\n```");
    let expected = serde_json::json!([
        {"type": "bold", "offset": 0, "length": 1},
        {"type": "text_link", "offset": 2, "length": 1, "url": "https://example.com/"},
        {"type": "pre", "offset": 5, "length": 2, "language": "sh"},
    ]);
    assert_eq!(serde_json::to_value(&body.entities).unwrap(), expected);
}

#[test]
fn a_line_before_moves_the_entities_along() {
    let body = render("**b**").with_line_before("🐝");
    assert_eq!(tagged(&body), "🐝\n\n<b>b</>");
}

#[test]
fn the_tail_is_the_newest_text_and_does_not_move_with_every_word() {
    let text: String = (0..100).map(|n| format!("line {n:04}  \n")).collect();
    let tail = |text: &str| render(text).tail(300);
    let first = tail(&text);
    assert!(first.text.starts_with("…\n\nline") && first.text.ends_with("line 0099"));
    assert!(first.units() <= 303);
    let head = |body: &Rendered| body.text.lines().nth(2).unwrap().to_owned();
    assert_eq!(head(&tail(&format!("{text}and more"))), head(&first));
    assert_eq!(tail("short").text, "short");
}

/// What Telegram's server would have to repair or refuse.
fn faults(body: &Rendered) -> Vec<String> {
    let mut faults = Vec::new();
    let mut marks = std::collections::BTreeSet::from([0]);
    let mut at = 0;
    for c in body.text.chars() {
        at += c.len_utf16();
        marks.insert(at);
    }
    for entity in &body.entities {
        if entity.length == 0 || !marks.contains(&entity.offset) || !marks.contains(&entity.end()) {
            faults.push(format!("bounds: {entity:?}"));
        }
    }
    for (n, a) in body.entities.iter().enumerate() {
        for b in &body.entities[n + 1..] {
            let apart = b.offset >= a.end();
            let nested = b.end() <= a.end();
            let legal = !a.kind.is_code()
                && (!b.kind.is_code() || a.kind == EntityKind::Quote)
                && b.kind != EntityKind::Quote;
            if a.offset > b.offset || !(apart || nested && legal) {
                faults.push(format!("nesting: {a:?} {b:?}"));
            }
        }
    }
    if body.text.ends_with([' ', '\n']) || body.text.contains('\r') {
        faults.push("not trimmed".to_owned());
    }
    faults
}

fn visible(text: &str) -> String {
    text.chars().filter(|c| is_visible(*c)).collect()
}

fn check(markdown: &str, limit: usize) -> Result<(), TestCaseError> {
    let body = render(markdown);
    prop_assert_eq!(faults(&body), Vec::<String>::new());
    let parts = split(&body, limit);
    for part in &parts {
        prop_assert_eq!(faults(part), Vec::<String>::new());
        prop_assert!(part.units() <= limit && part.entities.len() <= 100);
        prop_assert!(part.text.chars().any(is_visible));
    }
    let joined: String = parts.iter().map(|part| visible(&part.text)).collect();
    prop_assert_eq!(joined, visible(&body.text));
    prop_assert_eq!(faults(&body.clone().tail(limit.max(4))), Vec::<String>::new());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_renders_and_splits_into_valid_messages(markdown in "\\PC{0,200}", limit in 2usize..80) {
        check(&markdown, limit)?;
    }

    #[test]
    fn any_markdown_renders_and_splits_into_valid_messages(
        pieces in proptest::collection::vec(prop_oneof![
            Just("**"), Just("*"), Just("_"), Just("~~"), Just("`"), Just("```"), Just("\n"), Just("\n\n"), Just("> "),
            Just("- "), Just("1. "), Just("    "), Just("["), Just("]("), Just(")"), Just("https://example.com"),
            Just("!["), Just("| a | b |\n|---|---|\n"), Just("|"), Just("# "), Just("<b>"), Just("word "), Just("🐝"),
            Just("e\u{301}"), Just(" "), Just("- [ ] "), Just("\\"), Just("&amp;"), Just("---\n"), Just("<!-- "),
            Just("\u{200b}"), Just("\r\n"), Just("rust\n"),
        ], 0..60),
        limit in 2usize..60,
    ) {
        check(&pieces.concat(), limit)?;
    }
}
