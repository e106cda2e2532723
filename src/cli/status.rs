//! `skep status`: what is going on.

use super::failure::CliError;
use super::terminal::{Style, write, write_json};
use super::{Form, client, overview};
use crate::config::Paths;
use crate::control::{Reply, Request};

pub(super) async fn run(paths: &Paths, form: Form) -> Result<(), CliError> {
    let Reply::Overview(overview) = client::single(paths, &Request::Status).await? else {
        return Err(client::unexpected());
    };
    if form.json {
        return write_json(&overview);
    }
    write(&overview::page(&overview, overview::now(), Style::of_output()))
}
