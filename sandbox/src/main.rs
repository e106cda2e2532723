//! `skep-sandbox`: the resident helper. The daemon starts it with a socket as standard input; it takes no arguments.

use std::process::ExitCode;

fn main() -> ExitCode {
    match skep_sandbox::helper::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            // The daemon passes its own standard error on, which is the journal.
            let _ = writeln!(std::io::stderr(), "skep-sandbox: {error}");
            ExitCode::from(77)
        }
    }
}
