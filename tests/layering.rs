//! Imports run downhill: every `crate::` path in `src` is an edge of this table, or the test names it. And `unsafe` stands in
//! one file of the whole repository.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module of the crate's root, and the others it may name.
const MAY_IMPORT: [(&str, &[&str]); 19] = [
    ("model", &[]),
    ("failpoint", &[]),
    ("config", &["model"]),
    ("systemd", &["model"]),
    ("announce", &["model"]),
    ("store", &["model", "config", "systemd", "failpoint"]),
    ("broker", &["model", "config", "systemd", "store", "failpoint"]),
    ("claude", &["model", "config", "systemd", "store", "failpoint", "skep_sandbox"]),
    ("telegram", &["model", "config", "systemd", "store", "failpoint"]),
    ("status", &["model", "config", "systemd", "store", "failpoint"]),
    ("agent", &["model", "config", "announce", "store", "failpoint", "claude", "broker", "skep_sandbox"]),
    ("inbox", &["model", "config", "systemd", "store", "failpoint"]),
    ("overview", &["model", "config", "systemd", "store", "agent"]),
    ("router", &["model", "config", "announce", "store", "failpoint", "agent", "inbox", "overview"]),
    (
        "control",
        &["model", "config", "systemd", "store", "failpoint", "agent", "inbox", "router", "skep_sandbox"],
    ),
    (
        "daemon",
        &[
            "model",
            "config",
            "systemd",
            "store",
            "failpoint",
            "announce",
            "broker",
            "claude",
            "telegram",
            "status",
            "agent",
            "inbox",
            "router",
            "overview",
            "control",
            "skep_sandbox",
        ],
    ),
    ("cli", &["model", "config", "control", "daemon"]),
    ("main", &["cli"]),
    ("lib", &[]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The code of a file: comments and the inside of texts are blank, so that words in them are no code.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => quoted(rest),
            'r' if !code.ends_with(|c: char| c.is_alphanumeric() || c == '_') => raw(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if skipped > 0 {
            code.push(' ');
            rest = &rest[skipped..];
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw(text: &str) -> usize {
    let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[2 + hashes..].find(&end).map_or(text.len(), |at| 2 + hashes + at + end.len())
}

/// A character such as `'"'`; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            text[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 3)
        }
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

/// The root modules that a piece of code names: `crate::x`, `crate::{x, y::z}`, `skep::x` and `skep_sandbox`.
fn named(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for path in ["crate::", "skep::"] {
        for (at, _) in code.match_indices(path) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = code[at + path.len()..].trim_start();
            let Some(group) = rest.strip_prefix('{') else {
                found.insert(word(rest));
                continue;
            };
            let mut depth = 0;
            let mut fresh = true;
            for (at, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => fresh = true,
                    c if fresh && depth == 0 && !c.is_whitespace() => {
                        found.insert(word(&group[at..]));
                        fresh = false;
                    }
                    _ => {}
                }
            }
        }
    }
    if code.contains("skep_sandbox") {
        found.insert("skep_sandbox".to_owned());
    }
    found
}

/// The root module a file belongs to.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn nobody_imports_uphill() {
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")) {
        let module = module(&path);
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: the table does not know {module}", path.display()));
            continue;
        };
        for other in named(&code(&fs::read_to_string(&path).unwrap())) {
            if other != module && !allowed.contains(&other.as_str()) {
                wrong.push(format!("{}: {module} may not import {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_table_itself_has_no_cycle() {
    for (position, (name, allowed)) in MAY_IMPORT.iter().enumerate() {
        for other in allowed.iter().filter(|other| **other != "skep_sandbox") {
            let place = MAY_IMPORT.iter().position(|(name, _)| name == other);
            assert!(
                place.is_some_and(|place| place < position),
                "{name} imports {other}, which is not below it"
            );
        }
    }
}

#[test]
fn unsafe_stands_in_one_file() {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for path in [rust_files(&root().join("src")), rust_files(&root().join("sandbox/src"))].concat() {
        let code = code(&fs::read_to_string(&path).unwrap());
        let found = code.match_indices("unsafe").any(|(at, word)| {
            !code[..at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word)
        });
        assert!(!found || path.ends_with("sandbox/src/sys.rs"), "{} has unsafe code", path.display());
    }
}

#[test]
fn the_reader_of_code_is_not_fooled() {
    let text = r##"
        // crate::telegram
        /* crate::status */
        let a = "crate::agent \" crate::cli"; let b = r#"crate::inbox " "#; let c = '"'; let d = '\'';
        use crate::{model::{A, B}, store, config::Settings};
        fn f<'a>(x: &'a str) -> crate::broker::X { unsafe_name() }
        macro_rules! m { () => { $crate::router }; }
    "##;
    let expected: BTreeSet<String> = ["model", "store", "config", "broker"].map(str::to_owned).into();
    assert_eq!(named(&code(text)), expected);
}
