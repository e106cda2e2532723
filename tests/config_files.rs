//! Every settings file we ship is good, and every bad one is answered in exactly these words.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

use skep::config;

fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{}", directory.display());
    files
}

#[test]
fn every_shipped_file_is_good_and_gives_no_warning() {
    for path in [files("config", "toml"), files("config/examples", "toml")].concat() {
        let loaded = config::load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.warnings, [], "{}", path.display());
    }
}

/// The installed file as it is when the owner has removed every "# " before a setting.
#[test]
fn what_the_installed_file_shows_in_comments_is_good_too() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/skep.toml")).unwrap();
    let mut in_text = false;
    let opened: String = text
        .lines()
        .map(|line| {
            let shown = line.strip_prefix("# ").unwrap_or(line);
            let setting =
                shown.starts_with('[') || shown.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
            let open = setting || in_text || shown == "\"\"\"";
            if shown.matches("\"\"\"").count() == 1 {
                in_text = !in_text;
            }
            format!("{}\n", if open { shown } else { line })
        })
        .collect();
    let loaded = config::parse(&opened, "skep.toml").unwrap_or_else(|error| panic!("{error}\n{opened}"));
    let shipped = config::parse(&text, "skep.toml").unwrap();
    assert_eq!(loaded.settings.agents.len(), 2);
    let general = &loaded.settings.default_agent;
    assert_eq!(
        (&loaded.settings.agents[general], &loaded.settings.status, &loaded.settings.telegram),
        (&shipped.settings.agents[general], &shipped.settings.status, &shipped.settings.telegram),
        "the comments show the defaults"
    );
}

#[test]
fn every_bad_file_is_answered_in_exactly_these_words() {
    for path in files("tests/fixtures/config", "toml") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let said = config::parse(&text, name).expect_err(name).to_string();
        let expected = fs::read_to_string(path.with_extension("expected")).unwrap_or_default();
        assert_eq!(said.trim_end(), expected.trim_end(), "{name}");
        assert!(!said.contains("do-not-quote-me"), "{name} is answered with a secret");
    }
}
