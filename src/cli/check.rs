//! `skep check [FILE]`: every mistake of a settings file at once. Needs no daemon.

use std::path::Path;

use serde::Serialize;

use super::Form;
use super::failure::CliError;
use super::terminal::{complain, plain, write, write_json};
use crate::config::{self, ConfigErrors, Problem};

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Verdict<'a> {
    ok: bool,
    mistakes: &'a [Problem],
    warnings: &'a [Problem],
}

pub(super) fn run(file: &Path, form: Form) -> Result<(), CliError> {
    match config::load(file) {
        Ok(loaded) if form.json => {
            write_json(&Verdict { ok: true, mistakes: &[], warnings: &loaded.warnings })
        }
        Ok(loaded) => {
            for warning in &loaded.warnings {
                complain(&plain(&format!("warning: {warning}")));
            }
            let agents: Vec<&str> =
                loaded.settings.agents.keys().map(crate::model::AgentName::as_str).collect();
            write(&format!("{} is good; agents: {}\n", file.display(), agents.join(", ")))
        }
        Err(error) => {
            if let (true, ConfigErrors::Mistakes(mistakes)) = (form.json, &error) {
                write_json(&Verdict { ok: false, mistakes, warnings: &[] })?;
            }
            Err(error.into())
        }
    }
}
