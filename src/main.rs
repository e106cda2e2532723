//! The `skep` program: parse, dispatch, the chain of causes on one line, the exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use skep::cli::{Cli, CliError};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match cli.run() {
        Ok(code) => ExitCode::from(code),
        Err(CliError::OutputClosed) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "skep: {}", error.explain());
            ExitCode::from(error.exit_code())
        }
    }
}
