//! `skep version`: this program's version and the running daemon's.

use serde::Serialize;

use super::failure::CliError;
use super::terminal::{plain, write, write_json};
use super::{Form, client};
use crate::config::Paths;
use crate::control::{Reply, Request};

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Versions {
    version: &'static str,
    /// `None` when it does not run or does not answer.
    daemon: Option<String>,
}

pub(super) async fn run(paths: &Paths, form: Form) -> Result<(), CliError> {
    let daemon = match client::single(paths, &Request::Version).await {
        Ok(Reply::Version { version }) => Some(version),
        // The version of this program is an answer in any case.
        _ => None,
    };
    let version = env!("CARGO_PKG_VERSION");
    if form.json {
        return write_json(&Versions { version, daemon });
    }
    write(&match daemon {
        Some(daemon) if daemon == version => format!("skep {version}\n"),
        Some(daemon) => {
            format!("skep {version}; the daemon still runs {}: sudo systemctl restart skep\n", plain(&daemon))
        }
        None => format!("skep {version}; no daemon answers\n"),
    })
}
