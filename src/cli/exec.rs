//! `skep exec AGENT -- CMD…`: a command in a cell like an agent's, with this terminal.

use std::io;
use std::os::fd::AsFd;

use clap::Args;

use super::client;
use super::failure::CliError;
use crate::config::Paths;
use crate::control::{Reply, Request};
use crate::model::AgentName;

/// `skep exec`.
#[derive(Debug, Args)]
pub(super) struct Exec {
    /// The agent whose cell it is
    #[arg(value_parser = super::agent_name)]
    agent: AgentName,
    /// Set a variable in the cell
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    argv: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

impl Exec {
    /// The command's own exit code.
    pub(super) async fn run(self, paths: &Paths) -> Result<u8, CliError> {
        let request =
            Request::Exec { agent: self.agent.clone(), argv: self.argv.clone(), env: self.env.clone() };
        let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
        let terminal = [input.as_fd(), output.as_fd(), errors.as_fd()];
        let mut connection = match client::open_with(paths, &request, &terminal).await {
            Err(error @ CliError::NotRunning { .. }) => return alone(paths, &self, error),
            connection => connection?,
        };
        match connection.expect_next().await? {
            Reply::Exit { code } => Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            _ => Err(client::unexpected()),
        }
    }
}

/// The hook for a cell without a daemon. `missing` is what to say while there is none.
fn alone(_paths: &Paths, _exec: &Exec, missing: CliError) -> Result<u8, CliError> {
    Err(missing)
}
