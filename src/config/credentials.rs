//! The three secrets of the service, from systemd's credentials directory or from files only their owner can read.
//!
//! Invariant: neither the environment nor a command line ever holds a secret; no message quotes one.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use super::{Credential, Secret};

/// The file and credential name of the bot token.
pub const TELEGRAM_TOKEN: &str = "telegram-token";
/// The file and credential name of the API key.
pub const ANTHROPIC_API_KEY: &str = "anthropic-api-key";
/// The file and credential name of the subscription token.
pub const CLAUDE_OAUTH_TOKEN: &str = "claude-oauth-token";

/// Bytes a secret may have.
const LIMIT: u64 = 4096;

/// The secrets that were found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// The bot token; `None` means that the Telegram side stays off.
    pub telegram_token: Option<Secret>,
    /// What the model API is asked with; `None` means that no agent can answer.
    pub model: Option<Credential>,
    /// Doubts, one line each.
    pub warnings: Vec<String>,
}

/// Why a secret that is there is not used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("cannot read the credential {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Others could read or replace the file, or it is no plain file.
    #[error("the credential {} {problem}; {fix}", path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// The command that mends it.
        fix: String,
    },
    /// The content is not what the name says.
    #[error("the credential {} {problem}; {fix}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, without quoting it.
        problem: &'static str,
        /// What to do about it.
        fix: &'static str,
    },
}

/// Whether a file's mode and owner are ours to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    /// systemd made the file and its directory for this service alone.
    Systemd,
    /// The owner of the machine made it by hand.
    Owner,
}

/// Reads the secrets: each from systemd's directory (`given`, the value of `$CREDENTIALS_DIRECTORY`) if it is there,
/// else from `own`, where files must be regular, ours or root's, and closed to group and others.
///
/// # Errors
/// When a file is there and cannot be used: a secret is never silently passed over.
pub fn load(given: Option<&Path>, own: &Path) -> Result<Credentials, CredentialError> {
    let find = |name: &str| -> Result<Option<(PathBuf, String)>, CredentialError> {
        if let Some(found) = given.map(|dir| read(dir.join(name), Keeper::Systemd)).transpose()?.flatten() {
            return Ok(Some(found));
        }
        read(own.join(name), Keeper::Owner)
    };
    let telegram_token = find(TELEGRAM_TOKEN)?.map(|found| shaped(found, &BOT)).transpose()?;
    let key = find(ANTHROPIC_API_KEY)?.map(|found| shaped(found, &KEY)).transpose()?;
    let token = find(CLAUDE_OAUTH_TOKEN)?.map(|found| shaped(found, &OAUTH)).transpose()?;
    let mut warnings = Vec::new();
    if key.is_some() && token.is_some() {
        warnings.push(format!(
            "both {ANTHROPIC_API_KEY} and {CLAUDE_OAUTH_TOKEN} are set: the API key is used; remove one of them"
        ));
    }
    let model = key.map(Credential::ApiKey).or(token.map(Credential::OauthToken));
    Ok(Credentials { telegram_token, model, warnings })
}

/// What a secret looks like.
struct Shape {
    good: fn(&str) -> bool,
    problem: &'static str,
    fix: &'static str,
}

const BOT: Shape = Shape {
    good: |text| {
        text.split_once(':').is_some_and(|(id, rest)| {
            !id.is_empty()
                && id.bytes().all(|b| b.is_ascii_digit())
                && rest.len() >= 20
                && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        })
    },
    problem: "is not a bot token",
    fix: "store what @BotFather gave you, digits:letters, and nothing else",
};
const KEY: Shape = Shape {
    good: printable,
    problem: "is not an API key",
    fix: "store the key from console.anthropic.com on one line, and nothing else",
};
const OAUTH: Shape = Shape {
    good: printable,
    problem: "is not a token",
    fix: "store what claude setup-token printed on one line, and nothing else",
};

/// Other gateways give keys of other shapes: only what would break a header is refused.
fn printable(text: &str) -> bool {
    text.len() >= 8 && text.bytes().all(|b| b.is_ascii_graphic())
}

fn shaped((path, text): (PathBuf, String), shape: &Shape) -> Result<Secret, CredentialError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(CredentialError::Malformed { path, problem: "is empty", fix: shape.fix });
    }
    if !(shape.good)(text) {
        return Err(CredentialError::Malformed { path, problem: shape.problem, fix: shape.fix });
    }
    Ok(Secret::new(text.to_owned()))
}

/// The path and text of a file; `None` when it is not there.
fn read(path: PathBuf, keeper: Keeper) -> Result<Option<(PathBuf, String)>, CredentialError> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
    let file = match options.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => {
            let fix = format!("put the file itself there: mv \"$(readlink -f {0})\" {0}", path.display());
            return Err(CredentialError::Unsafe { path, problem: "is a symbolic link".to_owned(), fix });
        }
        Err(source) => return Err(CredentialError::Read { path, source }),
    };
    let about = file.metadata().map_err(|source| CredentialError::Read { path: path.clone(), source })?;
    if !about.is_file() {
        let fix = "put a plain file there".to_owned();
        return Err(CredentialError::Unsafe { path, problem: "is not a plain file".to_owned(), fix });
    }
    if keeper == Keeper::Owner {
        guarded(&path, about.mode(), about.uid())?;
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| CredentialError::Read { path: path.clone(), source })?;
    if bytes.len() as u64 > LIMIT {
        return Err(CredentialError::Malformed {
            path,
            problem: "is larger than 4 KiB",
            fix: "store the secret alone",
        });
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some((path, text))),
        Err(_) => {
            Err(CredentialError::Malformed { path, problem: "is not text", fix: "store the secret alone" })
        }
    }
}

fn guarded(path: &Path, mode: u32, uid: u32) -> Result<(), CredentialError> {
    let path = path.to_owned();
    let own = geteuid().as_raw();
    if mode & 0o077 != 0 {
        let problem = format!("is open to others (mode {:04o})", mode & 0o7777);
        let fix = format!("close it: chmod 600 {}", path.display());
        return Err(CredentialError::Unsafe { path, problem, fix });
    }
    if uid != own && uid != 0 {
        let problem = format!("belongs to user {uid}");
        let fix = format!("make it ours: chown {own} {}", path.display());
        return Err(CredentialError::Unsafe { path, problem, fix });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const BOT_TOKEN: &str = "123456:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn put(dir: &Path, name: &str, text: &str, mode: u32) {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn no_files_mean_no_secrets() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(None, dir.path()).unwrap(), Credentials::default());
        assert_eq!(load(Some(&dir.path().join("gone")), dir.path()).unwrap(), Credentials::default());
    }

    #[test]
    fn secrets_are_trimmed_and_the_api_key_wins_with_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), TELEGRAM_TOKEN, &format!("  {BOT_TOKEN}\n"), 0o600);
        put(dir.path(), CLAUDE_OAUTH_TOKEN, "token-12345\n", 0o400);
        let found = load(None, dir.path()).unwrap();
        assert_eq!(
            found,
            Credentials {
                telegram_token: Some(secret(BOT_TOKEN)),
                model: Some(Credential::OauthToken(secret("token-12345"))),
                warnings: vec![],
            }
        );
        put(dir.path(), ANTHROPIC_API_KEY, "key-12345678", 0o600);
        let found = load(None, dir.path()).unwrap();
        assert_eq!(found.model, Some(Credential::ApiKey(secret("key-12345678"))));
        assert_eq!(
            found.warnings,
            [
                "both anthropic-api-key and claude-oauth-token are set: the API key is used; remove one of them"
            ]
        );
    }

    #[test]
    fn what_systemd_gives_comes_first_and_its_modes_are_its_own() {
        let (given, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        put(given.path(), ANTHROPIC_API_KEY, "from-systemd", 0o440);
        put(own.path(), ANTHROPIC_API_KEY, "from-a-file", 0o600);
        put(own.path(), TELEGRAM_TOKEN, BOT_TOKEN, 0o600);
        let found = load(Some(given.path()), own.path()).unwrap();
        assert_eq!(found.model, Some(Credential::ApiKey(secret("from-systemd"))));
        assert_eq!(found.telegram_token, Some(secret(BOT_TOKEN)), "each name is looked for by itself");
    }

    #[test]
    fn a_file_others_can_read_is_refused_with_the_command_that_mends_it() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o644, 0o640, 0o604, 0o620] {
            put(dir.path(), TELEGRAM_TOKEN, BOT_TOKEN, mode);
            let path = dir.path().join(TELEGRAM_TOKEN);
            let path = path.display();
            assert_eq!(
                load(None, dir.path()).unwrap_err().to_string(),
                format!(
                    "the credential {path} is open to others (mode {mode:04o}); close it: chmod 600 {path}"
                )
            );
        }
    }

    #[test]
    fn links_directories_and_fifos_are_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "real", BOT_TOKEN, 0o600);
        let path = dir.path().join(TELEGRAM_TOKEN);
        symlink(dir.path().join("real"), &path).unwrap();
        assert!(load(None, dir.path()).unwrap_err().to_string().contains("is a symbolic link"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(load(None, dir.path()).unwrap_err().to_string().contains("is not a plain file"));
        fs::remove_dir(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(load(None, dir.path()).unwrap_err().to_string().contains("is not a plain file"));
    }

    #[test]
    fn a_secret_of_the_wrong_shape_is_refused_and_never_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(5000);
        let cases = [
            (TELEGRAM_TOKEN, "not-a-token", "is not a bot token"),
            (TELEGRAM_TOKEN, "", "is empty"),
            (TELEGRAM_TOKEN, " \n", "is empty"),
            (TELEGRAM_TOKEN, "TOKEN=123456:AAAAAAAAAAAAAAAAAAAAAAAA", "is not a bot token"),
            (ANTHROPIC_API_KEY, "two words here", "is not an API key"),
            (ANTHROPIC_API_KEY, &long, "is larger than 4 KiB"),
            (CLAUDE_OAUTH_TOKEN, "line\nanother", "is not a token"),
        ];
        for (name, text, problem) in cases {
            put(dir.path(), name, text, 0o600);
            let shown = load(None, dir.path()).unwrap_err().to_string();
            assert!(shown.contains(problem), "{shown}");
            assert!(text.trim().is_empty() || !shown.contains(text), "{shown}");
            fs::remove_file(dir.path().join(name)).unwrap();
        }
    }
}
