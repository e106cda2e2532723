//! The command line: one file per command, each a client of the control socket but for those that need no daemon.
//!
//! Called by `main.rs`. Results go to standard output, complaints to standard error, the reason to the exit code
//! (sysexits.h). Listings have `--json`, one line.
//!
//! Invariant: `skep daemon` reaches `daemon::run` with no thread started and no runtime built, because the sandbox
//! helper must be forked from a single-threaded process. Every other command builds its own small runtime.

mod agents;
mod ask;
mod chat;
mod check;
mod client;
mod exec;
mod failure;
mod hash_password;
mod overview;
mod pair;
mod reload;
mod runs;
mod status;
mod terminal;
mod transcript;
mod turn;
mod version;

use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::Paths;
use crate::model::AgentName;

pub use failure::CliError;

/// The command line as typed.
#[derive(Debug, Parser)]
#[command(
    name = "skep",
    version,
    about = "Claude Code agents for the owner of this machine, each in a cell of its own",
    after_help = "Examples:\n  \
        skep status                        what is going on\n  \
        skep chat                          talk to the default agent\n  \
        skep ask general \"What is due?\"    one question, one answer\n  \
        git diff | skep ask coder -        words from a pipe\n  \
        skep pair                          let a phone in\n\n\
        Exit codes are those of sysexits.h: 64 wrong usage, 69 the daemon is not running, 70 it failed,\n\
        75 stopped or interrupted, 77 not allowed, 78 wrong settings. See skep(1) and skep.toml(5).",
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Keep everything (settings, database, socket, credentials) under this directory instead of the system's
    /// places; also read from SKEP_STATE
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service in the foreground (systemd does this)
    Daemon {
        /// Read these settings instead of the usual file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Check a settings file and report every mistake in it
    Check {
        /// The file; by default the one the daemon reads
        file: Option<PathBuf>,
        #[command(flatten)]
        form: Form,
    },
    /// Show what is going on
    Status(Form),
    /// List the agents
    Agents(Form),
    /// List the latest runs, newest first
    Runs {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        form: Form,
    },
    /// Ask an agent one question and print its answer
    #[command(
        after_help = "Examples:\n  skep ask general \"What is due this week?\"\n  git diff | skep ask coder -\n  \
        skep ask --continue general \"And next week?\""
    )]
    Ask(ask::Ask),
    /// Talk to an agent; the conversation goes on where it was left
    #[command(
        after_help = "Ctrl-C stops the running turn, Ctrl-C again or Ctrl-D leaves. A line that ends in \\ goes on in \
        the next.\nSlash commands (/help, /new, /status, …) work as they do in Telegram; /quit leaves.\n\
        With piped input every line is one message."
    )]
    Chat(chat::Chat),
    /// Show a one-time code that lets a Telegram account in
    Pair(Form),
    /// Run a command in a cell like those of an agent
    #[command(
        after_help = "Examples:\n  skep exec general -- id\n  skep exec coder -- sh -c 'cat /proc/self/status'"
    )]
    Exec(exec::Exec),
    /// Let the daemon read its settings again
    Reload,
    /// Turn a password into the hash that [status] password wants
    HashPassword,
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  skep completion bash | sudo tee /etc/bash_completion.d/skep")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Show the version of this program and of the running daemon
    Version(Form),
}

/// How a result is written.
#[derive(Debug, Clone, Copy, Args)]
struct Form {
    /// Write one line of JSON
    #[arg(long)]
    json: bool,
}

impl Cli {
    /// Does what was asked; the exit code comes back.
    ///
    /// # Errors
    /// Why it could not be done; [`CliError::exit_code`] says how the process ends.
    pub fn run(self) -> Result<u8, CliError> {
        let paths = paths(self.state.as_deref(), std::env::var_os("SKEP_STATE"));
        match self.command {
            Command::Daemon { config } => {
                let paths = match config {
                    Some(config) => paths.with_config(config),
                    None => paths,
                };
                crate::daemon::run(paths)?;
            }
            Command::Check { file, form } => check::run(&file.unwrap_or(paths.config), form)?,
            Command::Status(form) => block_on(status::run(&paths, form))??,
            Command::Agents(form) => block_on(agents::run(&paths, form))??,
            Command::Runs { limit, form } => block_on(runs::run(&paths, limit, form))??,
            Command::Ask(ask) => block_on(ask.run(&paths))??,
            Command::Chat(chat) => block_on(chat.run(&paths))??,
            Command::Pair(form) => block_on(pair::run(&paths, form))??,
            Command::Exec(exec) => return exec.run(&paths),
            Command::Reload => block_on(reload::run(&paths))??,
            Command::HashPassword => hash_password::run()?,
            Command::Completion { shell } => completion(shell)?,
            Command::Version(form) => block_on(version::run(&paths, form))??,
        }
        Ok(0)
    }
}

/// An agent's name, for clap.
fn agent_name(text: &str) -> Result<AgentName, crate::model::AgentNameError> {
    AgentName::new(text)
}

fn paths(flag: Option<&Path>, variable: Option<OsString>) -> Paths {
    let variable = variable.filter(|value| !value.is_empty()).map(PathBuf::from);
    match flag.map(Path::to_owned).or(variable) {
        // From the root on: the daemon and its helper name these places from other directories too.
        Some(state) => Paths::under(&std::path::absolute(&state).unwrap_or(state)),
        None => Paths::installed(),
    }
}

/// A runtime of one thread, for one command.
fn block_on<F: Future>(command: F) -> Result<F::Output, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(CliError::io("start"))?.block_on(command))
}

fn completion(shell: clap_complete::Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "skep", &mut script);
    terminal::write(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_flag_wins_over_the_variable_and_an_empty_variable_is_none() {
        let some = |text: &str| Some(OsString::from(text));
        assert_eq!(paths(Some(Path::new("/a")), some("/b")), Paths::under(Path::new("/a")));
        assert_eq!(paths(None, some("/b")), Paths::under(Path::new("/b")));
        assert_eq!(paths(None, some("")), Paths::installed());
        assert_eq!(paths(None, None), Paths::installed());
    }

    #[test]
    fn a_completion_script_is_made_for_every_shell() {
        use clap::ValueEnum;
        for shell in clap_complete::Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "skep", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("hash-password"), "{shell}");
        }
    }
}
