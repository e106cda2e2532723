//! `skep exec AGENT -- CMD…`: a command in a cell like an agent's, with or without a running daemon.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

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
    /// The command's own exit code; 128 and the signal's number when one ended it.
    pub(super) fn run(self, paths: &Paths) -> Result<u8, CliError> {
        let (theirs, streams) = Streams::new().map_err(CliError::io("make pipes"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(CliError::io("start"))?;
        let request =
            Request::Exec { agent: self.agent.clone(), argv: self.argv.clone(), env: self.env.clone() };
        let ends = [theirs[0].as_fd(), theirs[1].as_fd(), theirs[2].as_fd()];
        let code = match runtime.block_on(client::open_with(paths, &request, &ends)) {
            Ok(mut connection) => {
                drop(theirs);
                let pumps = streams.pump();
                let reply = runtime.block_on(connection.expect_next())?;
                pumps.finish();
                match reply {
                    Reply::Exit { code } => code,
                    _ => return Err(client::unexpected()),
                }
            }
            Err(CliError::NotRunning { .. }) => {
                // Still one thread: the privileges of a root shell are given up before there are more.
                drop(runtime);
                let mut pumps = None;
                let code =
                    crate::daemon::exec_alone(paths, &self.agent, self.argv, self.env, theirs, || {
                        pumps = Some(streams.pump());
                    })?;
                if let Some(pumps) = pumps {
                    pumps.finish();
                }
                code
            }
            Err(error) => return Err(error),
        };
        Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
    }
}

/// Our ends of the command's three streams. A cell is never given a terminal or a file of the host: what it reads and
/// writes passes through here.
struct Streams {
    input: PipeWriter,
    output: PipeReader,
    errors: PipeReader,
}

/// The copying of both outputs.
struct Pumps {
    output: JoinHandle<()>,
    errors: JoinHandle<()>,
}

impl Streams {
    fn new() -> io::Result<([OwnedFd; 3], Self)> {
        let (stdin, input) = io::pipe()?;
        let (output, stdout) = io::pipe()?;
        let (errors, stderr) = io::pipe()?;
        Ok(([stdin.into(), stdout.into(), stderr.into()], Self { input, output, errors }))
    }

    fn pump(self) -> Pumps {
        let Self { mut input, mut output, mut errors } = self;
        // Never joined: it may wait for a line that nobody types any more. It ends with the process.
        std::thread::spawn(move || {
            let _ = io::copy(&mut io::stdin(), &mut input);
        });
        Pumps {
            output: std::thread::spawn(move || {
                let _ = io::copy(&mut output, &mut io::stdout());
            }),
            errors: std::thread::spawn(move || {
                let _ = io::copy(&mut errors, &mut io::stderr());
            }),
        }
    }
}

impl Pumps {
    /// Everything the command wrote has been passed on.
    fn finish(self) {
        let _ = self.output.join();
        let _ = self.errors.join();
    }
}
