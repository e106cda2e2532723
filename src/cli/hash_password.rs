//! `skep hash-password`: what `[status] password` wants. The password never stands on a command line.

use std::io::{self, BufRead, IsTerminal, Write};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::failure::CliError;
use super::terminal;
use crate::config::password;

/// Shorter ones fall to a patient guesser.
const SHORTEST: usize = 8;

pub(super) fn run() -> Result<(), CliError> {
    let password = if io::stdin().is_terminal() {
        let first = ask("Password: ")?;
        if ask("Again: ")? != first {
            return Err(CliError::Data("the two are not the same".to_owned()));
        }
        first
    } else {
        line()?
    };
    if password.chars().count() < SHORTEST {
        return Err(CliError::Data(format!("a password has at least {SHORTEST} characters")));
    }
    terminal::write(&format!("{}\n", password::hash(&password)?))
}

/// Reads a line that is not shown.
fn ask(prompt: &str) -> Result<String, CliError> {
    let _ = write!(io::stderr(), "{prompt}");
    let hidden = Hidden::new()?;
    let answer = line();
    drop(hidden);
    let _ = writeln!(io::stderr());
    answer
}

fn line() -> Result<String, CliError> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(CliError::io("read the password"))?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// A terminal that does not echo, until dropped.
struct Hidden(Termios);

impl Hidden {
    fn new() -> Result<Self, CliError> {
        let failed = |errno: nix::Error| CliError::io("hide the password")(errno.into());
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}
