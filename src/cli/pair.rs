//! `skep pair`: a one-time code that lets a Telegram account in.

use serde::Serialize;

use super::failure::CliError;
use super::terminal::{Style, write, write_json};
use super::{Form, client, overview};
use crate::config::Paths;
use crate::control::{Reply, Request};

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Code<'a> {
    code: &'a str,
    expires_in: u64,
}

pub(super) async fn run(paths: &Paths, form: Form) -> Result<(), CliError> {
    let Reply::Code { code, expires_in } = client::single(paths, &Request::Pair).await? else {
        return Err(client::unexpected());
    };
    if form.json {
        return write_json(&Code { code: &code, expires_in });
    }
    let style = Style::of_output();
    let time = overview::span(i64::try_from(expires_in).unwrap_or(i64::MAX));
    write(&format!(
        "Send this to your bot in a private message, within {time}:\n\n    {}\n\n\
         Whoever sends it first becomes an owner. Do not share it.\n",
        style.bold(&code)
    ))
}
