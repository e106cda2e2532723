//! `skep agents`: the agents and what each is doing.

use super::failure::CliError;
use super::terminal::{table, write, write_json};
use super::{Form, client, overview};
use crate::config::Paths;
use crate::control::{Reply, Request};

pub(super) async fn run(paths: &Paths, form: Form) -> Result<(), CliError> {
    let Reply::Agents(agents) = client::single(paths, &Request::Agents).await? else {
        return Err(client::unexpected());
    };
    if form.json {
        return write_json(&agents);
    }
    write(&table(&agents.iter().map(overview::agent_row).collect::<Vec<_>>()))
}
