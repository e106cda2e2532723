//! `skep reload`: the daemon reads its settings again, and says what it could not apply.

use super::client;
use super::failure::CliError;
use super::terminal::{complain, plain, write};
use crate::config::Paths;
use crate::control::{Reply, Request};

pub(super) async fn run(paths: &Paths) -> Result<(), CliError> {
    let Reply::Reloaded { warnings, restart } = client::single(paths, &Request::Reload).await? else {
        return Err(client::unexpected());
    };
    for warning in warnings {
        complain(&plain(&format!("warning: {warning}")));
    }
    if restart.is_empty() {
        return write("the settings are in force\n");
    }
    write(&format!(
        "the settings are in force, but for {}: these wait for a restart (sudo systemctl restart skep)\n",
        plain(&restart.join(", "))
    ))
}
