//! Settings, secrets and places.
//!
//! Stages: the text with positions (`section`), the names and bounds (`schema`), the validated [`Settings`]. Called by
//! the daemon at start and at reload, and by `skep check`. Reading is blocking and bounded by [`FILE_LIMIT`].
//!
//! Invariants:
//! - [`Settings`] exist only validated; every mistake of a file is reported at once, with its place and its remedy.
//! - No secret is read from the settings file, the environment or a command line, and none is quoted in a message.

pub mod credentials;
pub mod password;
mod paths;
mod problem;
mod scalar;
mod schema;
mod secret;
mod section;
mod settings;
#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use toml::de::DeTable;

pub use credentials::{CredentialError, Credentials};
pub use paths::Paths;
pub use problem::{ConfigErrors, Problem, Warning};
pub use secret::{Credential, Secret};
pub use settings::{AgentSettings, ClaudeSettings, Permissions, Settings, StatusSettings, TelegramSettings};

use problem::Report;

/// Bytes a settings file may have.
pub const FILE_LIMIT: u64 = 256 * 1024;

/// Settings, and what deserves a word about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Doubts, in the order of the file.
    pub warnings: Vec<Warning>,
}

/// Reads and checks a settings file.
///
/// # Errors
/// [`ConfigErrors::Read`] when it cannot be read, [`ConfigErrors::Mistakes`] with every mistake otherwise.
pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
    let bytes =
        read(path).map_err(|(source, fix)| ConfigErrors::Read { path: path.to_owned(), fix, source })?;
    parse_bytes(&bytes, &path.display().to_string())
}

/// Checks the text of a settings file; `name` is how messages call it.
///
/// # Errors
/// [`ConfigErrors::Mistakes`] with every mistake.
pub fn parse(text: &str, name: &str) -> Result<Loaded, ConfigErrors> {
    let mut report = Report::new(name, text);
    let (table, broken) = DeTable::parse_recoverable(text);
    for error in &broken {
        broken_line(text, error, &mut report);
    }
    if !broken.is_empty() {
        // What could be saved of a broken file would be reported as mistakes the owner never made.
        return Err(report.into_errors());
    }
    let settings = schema::settings(table.get_ref(), &mut report);
    report.finish(settings).map(|(settings, warnings)| Loaded { settings, warnings })
}

/// A line that is not TOML, or says again what another said.
fn broken_line(text: &str, error: &toml::de::Error, report: &mut Report<'_>) {
    let span = error.span().unwrap_or(0..0);
    match text.get(span.clone()) {
        Some(key) if error.message() == "duplicate key" => {
            report.refuse(
                span,
                section::clean(key),
                "this stands here for the second time",
                "keep one of the two",
            );
        }
        _ => {
            let what = section::clean(error.message());
            report.refuse_once_per_line(
                span,
                what,
                "this is not TOML: man skep.toml shows how it is written",
            );
        }
    }
}

fn parse_bytes(bytes: &[u8], name: &str) -> Result<Loaded, ConfigErrors> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text, name),
        Err(error) => {
            let good = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            let mut report = Report::new(name, good);
            report.refuse(good.len()..good.len(), "", "this is not UTF-8", "save the file as UTF-8 text");
            Err(report.into_errors())
        }
    }
}

/// The whole file, never waiting for a FIFO and never more than [`FILE_LIMIT`].
fn read(path: &Path) -> Result<Vec<u8>, (io::Error, String)> {
    let refused = |error: io::Error| {
        let fix = match error.kind() {
            io::ErrorKind::NotFound => "create it: an empty file means every default (man skep.toml)",
            io::ErrorKind::PermissionDenied => "run this as root, or as a member of group skep",
            _ => "see the reason at the end",
        };
        (error, fix.to_owned())
    };
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = options.open(path).map_err(refused)?;
    if !file.metadata().map_err(refused)?.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err((error, "name the settings file itself".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > FILE_LIMIT {
        let error = io::Error::new(io::ErrorKind::FileTooLarge, "more than 256 KiB");
        return Err((error, "keep long texts in files of the agent's workspace".to_owned()));
    }
    Ok(bytes)
}
