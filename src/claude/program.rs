//! The installed Claude Code program: which version it is, and whether that is enough.
//!
//! Called by the daemon at start. Invariant: the program runs in a cell here too; it is code from outside.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::{Cell, Command, Exit, SpawnError};
use crate::model::Failure;

/// The oldest version whose wire this program knows.
pub const MINIMUM: Version = Version { major: 2, minor: 1, patch: 197 };

/// How long `--version` may take: the program is 380 MB, and the card may be slow.
const WITHIN: Duration = Duration::from_secs(30);

/// A version of Claude Code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third.
    pub patch: u32,
}

impl Version {
    /// Reads `2.1.329` from the beginning of `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = text.get(..end)?.split('.').map(str::parse);
        let version =
            Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()?, patch: numbers.next()?.ok()? };
        numbers.next().is_none().then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Why the program cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// There is nothing at its path.
    #[error("there is no Claude Code program at {}", .0.display())]
    NotFound(PathBuf),
    /// It is not a program.
    #[error("{} is not an executable file", .0.display())]
    NotExecutable(PathBuf),
    /// Its path cannot be looked at.
    #[error("cannot look at the Claude Code program {}", path.display())]
    Look {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It cannot be asked.
    #[error("cannot run {} --version", path.display())]
    Run {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: SpawnError,
    },
    /// It says nothing that could be a version.
    #[error("{} --version gave no version ({how:?}): {said:?}", path.display())]
    NoVersion {
        /// The path.
        path: PathBuf,
        /// How it ended.
        how: Exit,
        /// What it said, at most 200 characters.
        said: String,
    },
    /// It is older than [`MINIMUM`].
    #[error("Claude Code {found} is too old: {MINIMUM} or newer is needed")]
    TooOld {
        /// Its version.
        found: Version,
    },
}

impl ProgramError {
    /// The error in the owner's words.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let fix = match self {
            Self::NotFound(_) | Self::TooOld { .. } => {
                "Install Claude Code 2.1.197 or newer (README, \"Your first message\"), or set `program` under [claude] in \
                 /etc/skep/skep.toml to where it is."
            }
            Self::NotExecutable(_) => "Make it executable: `sudo chmod 755` and its path.",
            Self::Look { .. } => "Let the user `skep` read that directory.",
            Self::Run { .. } => "Run `skep status` on the machine: it says what is missing.",
            Self::NoVersion { .. } => {
                "Run it by hand with --version: it must be the Claude Code build for this machine."
            }
        };
        Failure { what: self.to_string(), fix: fix.to_owned() }
    }
}

/// Asks the program at `path` for its version. `spawn` starts a cell without network with that program in it.
///
/// # Errors
/// See [`ProgramError`].
pub async fn probe<S, F>(spawn: S, path: &Path) -> Result<Version, ProgramError>
where
    S: FnOnce(Command, [OwnedFd; 3]) -> F,
    F: Future<Output = Result<Cell, SpawnError>>,
{
    look(path)?;
    let run = |source: SpawnError| ProgramError::Run { path: path.to_owned(), source };
    let (said, how) = ask(spawn).await.map_err(run)?;
    let Some(found) = Version::parse(said.trim_start()) else {
        let said = said.trim().chars().take(200).collect();
        return Err(ProgramError::NoVersion { path: path.to_owned(), how, said });
    };
    if found < MINIMUM { Err(ProgramError::TooOld { found }) } else { Ok(found) }
}

/// What can be said without running it. One `stat`: it does not hold up the runtime.
fn look(path: &Path) -> Result<(), ProgramError> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::metadata(path) {
        Ok(file) if file.is_file() && file.permissions().mode() & 0o111 != 0 => Ok(()),
        Ok(_) => Err(ProgramError::NotExecutable(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ProgramError::NotFound(path.to_owned())),
        Err(source) => Err(ProgramError::Look { path: path.to_owned(), source }),
    }
}

async fn ask<S, F>(spawn: S) -> Result<(String, Exit), SpawnError>
where
    S: FnOnce(Command, [OwnedFd; 3]) -> F,
    F: Future<Output = Result<Cell, SpawnError>>,
{
    let (stdin, _) = io::pipe()?;
    let (ours, stdout) = io::pipe()?;
    let stderr = stdout.try_clone()?;
    let mut output = pipe::Receiver::from_owned_fd(ours.into())?.take(4096);
    let command = Command {
        arguments: vec!["--version".to_owned()],
        environment: [
            ("PATH", "/usr/bin:/bin"),
            ("HOME", "/tmp"),
            ("TMPDIR", "/tmp"),
            ("LANG", "C.UTF-8"),
            ("DISABLE_AUTOUPDATER", "1"),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
    };
    let cell = spawn(command, [stdin.into(), stdout.into(), stderr.into()]).await?;
    let mut said = Vec::new();
    let talk = async {
        let _ = output.read_to_end(&mut said).await;
        cell.exit.await
    };
    let how = timeout(WITHIN, talk).await.unwrap_or(Exit::Unknown);
    cell.control.kill();
    Ok((String::from_utf8_lossy(&said).into_owned(), how))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_three_numbers_at_the_beginning() {
        let version = |major, minor, patch| Some(Version { major, minor, patch });
        let cases = [
            ("2.1.329 (Claude Code)\n", version(2, 1, 329)),
            ("2.1.197", version(2, 1, 197)),
            ("10.0.0-beta", version(10, 0, 0)),
            ("2.1", None),
            ("2.1.3.4", None),
            ("claude 2.1.3", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Version::parse(text), expected, "{text}");
        }
        assert!(Version::parse("2.1.196").unwrap() < MINIMUM);
        assert!(Version::parse("2.2.0").unwrap() > MINIMUM);
    }
}
