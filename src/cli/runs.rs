//! `skep runs`: the latest runs.

use super::failure::CliError;
use super::terminal::{table, write, write_json};
use super::{Form, client, overview};
use crate::config::Paths;
use crate::control::{Reply, Request};

pub(super) async fn run(paths: &Paths, limit: u32, form: Form) -> Result<(), CliError> {
    let Reply::Runs(runs) = client::single(paths, &Request::Runs { limit }).await? else {
        return Err(client::unexpected());
    };
    if form.json {
        return write_json(&runs);
    }
    let now = overview::now();
    write(&table(&runs.iter().map(|run| overview::run_row(run, now)).collect::<Vec<_>>()))
}
