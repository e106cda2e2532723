//! Errors of Claude and of the model API in the owner's words. Pure.
//!
//! Called by `turn` and `process`. Invariant: the text names what failed and what to do, and repeats of the vendor's own
//! words no more than one short line.

use super::{CredentialKind, Exit, Exited, tool};
use crate::model::{Failure, RateLimit};

/// Everything that is known about a turn's bad end.
#[derive(Debug, Clone, Copy)]
pub struct Trouble<'a> {
    /// The result's `subtype`.
    pub subtype: &'a str,
    /// The result's `terminal_reason`.
    pub reason: Option<&'a str>,
    /// HTTP status of the model API.
    pub status: Option<u16>,
    /// The CLI's own words.
    pub words: &'a str,
    /// The limit that was reported just before.
    pub limit: Option<&'a RateLimit>,
    /// The model that was asked for.
    pub model: &'a str,
    /// What the API was asked with.
    pub credential: CredentialKind,
}

/// Says it in plain words.
#[must_use]
pub fn explain(trouble: &Trouble<'_>) -> Failure {
    by_words(trouble).or_else(|| by_status(trouble)).unwrap_or_else(|| {
        let (what, fix) = match trouble.subtype {
            "error_max_turns" => {
                ("Claude stopped: the turn took too many steps".to_owned(), "Send “go on”, or ask for less at once.")
            }
            "error_max_budget_usd" => (
                "Claude stopped: the budget of this session is used up".to_owned(),
                "Send /new to begin a fresh conversation.",
            ),
            _ => (
                format!("Claude stopped with an error: {}", short(trouble.words)),
                "Send the message again. If it fails again, send /new; `journalctl -u skep` on the machine shows more.",
            ),
        };
        failure(what, fix)
    })
}

/// The errors that the CLI's own words or its reason tell apart.
fn by_words(trouble: &Trouble<'_>) -> Option<Failure> {
    let words = trouble.words;
    let says = |needle: &str| words.contains(needle);
    Some(if trouble.reason == Some("prompt_too_long") || words.starts_with("Prompt is too long") {
        failure(
            "The conversation has grown too long for the model",
            "Send /new to begin a fresh one; files in the workspace stay.",
        )
    } else if says("Credit balance is too low") {
        failure(
            "The Anthropic account has no credit left",
            "Add credit in the Anthropic console under Billing, then send the message again.",
        )
    } else if says("issue with the selected model") {
        failure(
            format!("The model {:?} does not exist, or this account may not use it", trouble.model),
            "Set another `model` for this agent in /etc/skep/skep.toml, then run `sudo systemctl reload skep`.",
        )
    } else if says("Not logged in") || says("Invalid API key") || says("Failed to authenticate") {
        rejected(trouble)
    } else if trouble.reason == Some("image_error") || trouble.status == Some(413) {
        failure(
            "A picture or file is too large for the model",
            "Send a smaller one, then ask again after /new.",
        )
    } else if says("output token maximum") {
        failure(
            "The answer became longer than the model may write",
            "Ask for it in parts, or for a shorter one.",
        )
    } else if says("safeguards") {
        failure("The model's safeguards refused this message", "Put it in other words, or send /new.")
    } else if says("Connection refused") || says("Unable to connect") || says("Connection error") {
        unreachable_api(None)
    } else {
        return None;
    })
}

/// The errors that their HTTP status tells apart.
fn by_status(trouble: &Trouble<'_>) -> Option<Failure> {
    Some(match trouble.status? {
        401 | 403 => rejected(trouble),
        429 => match trouble.limit {
            Some(limit) => limited(limit),
            None => failure(
                "The model API asks to slow down: too many requests",
                "Wait a minute, then send the message again.",
            ),
        },
        529 => failure(
            "Anthropic's servers are overloaded",
            "Send the message again in a few minutes. https://status.anthropic.com tells more.",
        ),
        status @ 502..=504 => unreachable_api(Some(status)),
        status @ 500..=599 => failure(
            format!("Anthropic's servers failed (HTTP {status})"),
            "Send the message again in a few minutes. https://status.anthropic.com tells more.",
        ),
        status @ 400..=499 => failure(
            format!("The model API refused the request (HTTP {status}): {}", short(trouble.words)),
            "Send it in other words; if it fails again, send /new to begin a fresh conversation.",
        ),
        _ => return None,
    })
}

fn rejected(trouble: &Trouble<'_>) -> Failure {
    match trouble.credential {
        CredentialKind::ApiKey => failure(
            "The model API rejected the API key",
            "Store a valid key as the credential `anthropic-api-key`, run `sudo systemctl reload skep`, \
             then send the message again.",
        ),
        CredentialKind::OauthToken => failure(
            "The model API rejected the subscription token",
            "Run `claude setup-token` on your computer, store the new token as the credential \
             `claude-oauth-token`, run `sudo systemctl reload skep`, then send the message again.",
        ),
    }
}

fn limited(limit: &RateLimit) -> Failure {
    let window = match limit.kind.as_str() {
        "five_hour" => "five-hour",
        "seven_day" => "weekly",
        "seven_day_opus" => "weekly Opus",
        "seven_day_sonnet" => "weekly Sonnet",
        _ => "usage",
    };
    let until = limit.resets_at.and_then(|at| jiff::Timestamp::from_second(at).ok());
    let fix = match until {
        Some(at) => {
            format!("It opens again on {}; send the message again then.", at.strftime("%-d %B at %H:%M UTC"))
        }
        None => "Send the message again later.".to_owned(),
    };
    failure(format!("The {window} limit of the subscription is reached"), fix)
}

fn unreachable_api(status: Option<u16>) -> Failure {
    let status = status.map(|status| format!(" (HTTP {status})")).unwrap_or_default();
    failure(
        format!("The model API could not be reached{status}"),
        "Check the machine's internet connection, then send the message again.",
    )
}

/// Says why a process ended while it was needed.
pub(super) fn explain_exit(exited: &Exited) -> Failure {
    let last = exited.stderr.lines().rev().find(|line| !line.trim().is_empty()).map(short);
    let words = last.map(|line| format!(": {line}")).unwrap_or_default();
    match exited.how {
        Exit::OutOfMemory => failure(
            "Claude used up the memory of its cell",
            "Raise `memory` for this agent in /etc/skep/skep.toml, or ask for less at once. The conversation is kept.",
        ),
        Exit::Signal(signal) => failure(
            format!("Claude was ended by signal {signal}{words}"),
            "Send the message again: the conversation is kept. If memory is short, raise `memory` in /etc/skep/skep.toml.",
        ),
        Exit::Code(code) => failure(
            format!("Claude ended unexpectedly (exit code {code}){words}"),
            "Send the message again: the conversation is kept. `journalctl -u skep` on the machine shows more.",
        ),
        Exit::Unknown => failure(
            format!("Claude ended unexpectedly{words}"),
            "Send the message again: the conversation is kept. `journalctl -u skep` on the machine shows more.",
        ),
    }
}

/// The line about one more try of a failed request. `delay` is in milliseconds.
pub(super) fn retrying(status: Option<u16>, attempt: u32, of: u32, delay: f64) -> String {
    let what = match status {
        None => "The model API cannot be reached".to_owned(),
        Some(401 | 403) => "The model API rejects the credential".to_owned(),
        Some(429) => "The model API asks to slow down".to_owned(),
        Some(529) => "Anthropic's servers are overloaded".to_owned(),
        Some(status @ 502..=504) => format!("The model API cannot be reached (HTTP {status})"),
        Some(status) => format!("The model API failed (HTTP {status})"),
    };
    let seconds = (delay / 1000.0).ceil().max(1.0);
    format!("{what}. Trying again in {seconds:.0} s ({attempt} of {of}).")
}

fn failure(what: impl Into<String>, fix: impl Into<String>) -> Failure {
    Failure { what: what.into(), fix: fix.into() }
}

/// The first line, without what could disturb a terminal, at most 160 characters.
pub(super) fn short(words: &str) -> String {
    let line = words.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason was given");
    let line: String = line.trim().chars().filter(|c| !tool::is_unsafe(*c)).collect();
    match line.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Trouble<'_> = Trouble {
        subtype: "success",
        reason: Some("api_error"),
        status: None,
        words: "",
        limit: None,
        model: "sonnet",
        credential: CredentialKind::ApiKey,
    };

    fn said(trouble: &Trouble<'_>) -> String {
        let Failure { what, fix } = explain(trouble);
        format!("{what}. {fix}")
    }

    #[test]
    fn every_error_names_itself_and_a_way_out() {
        let limit = RateLimit { kind: "five_hour".to_owned(), resets_at: Some(1_900_000_000) };
        let cases = [
            (
                Trouble { status: Some(401), words: "Invalid API key · Fix external API key", ..NOTHING },
                "systemctl reload skep",
            ),
            (Trouble { status: Some(401), words: "Failed to authenticate.", ..NOTHING }, "anthropic-api-key"),
            (
                Trouble { status: Some(401), credential: CredentialKind::OauthToken, ..NOTHING },
                "claude-oauth-token",
            ),
            (Trouble { words: "Not logged in · Please run /login", ..NOTHING }, "anthropic-api-key"),
            (
                Trouble { status: Some(429), words: "API Error: Request rejected (429)", ..NOTHING },
                "a minute",
            ),
            (
                Trouble { status: Some(429), words: "You've hit your limit", limit: Some(&limit), ..NOTHING },
                "five-hour limit of the subscription is reached. It opens again on 17 March at 17:46 UTC",
            ),
            (Trouble { status: Some(529), words: "API Error: Repeated 529", ..NOTHING }, "overloaded"),
            (Trouble { status: Some(500), words: "API Error: 500", ..NOTHING }, "HTTP 500"),
            (Trouble { status: Some(502), words: "API Error: 502", ..NOTHING }, "internet connection"),
            (
                Trouble { words: "API Error: Connection refused — a firewall", ..NOTHING },
                "internet connection",
            ),
            (Trouble { status: Some(400), words: "Credit balance is too low", ..NOTHING }, "Billing"),
            (
                Trouble {
                    status: Some(404),
                    words: "There's an issue with the selected model (x)",
                    ..NOTHING
                },
                "\"sonnet\"",
            ),
            (Trouble { status: Some(400), reason: Some("prompt_too_long"), ..NOTHING }, "/new"),
            (Trouble { words: "Prompt is too long", ..NOTHING }, "/new"),
            (Trouble { status: Some(413), words: "API Error: 413", ..NOTHING }, "too large"),
            (Trouble { words: "API Error: exceeded the 128000 output token maximum", ..NOTHING }, "in parts"),
            (Trouble { words: "API Error: safeguards flagged this message", ..NOTHING }, "other words"),
            (
                Trouble { status: Some(400), words: "API Error: 400 bad", ..NOTHING },
                "(HTTP 400): API Error: 400 bad",
            ),
            (Trouble { subtype: "error_max_turns", ..NOTHING }, "go on"),
            (Trouble { subtype: "error_max_budget_usd", ..NOTHING }, "/new"),
            (Trouble { words: "odd\u{1b}[2J\nmore", ..NOTHING }, "with an error: odd[2J. Send"),
            (Trouble { status: Some(302), ..NOTHING }, "no reason was given"),
        ];
        for (trouble, expected) in cases {
            let said = said(&trouble);
            assert!(said.contains(expected), "{said:?} lacks {expected:?}");
        }
    }

    #[test]
    fn long_words_of_the_vendor_are_cut() {
        let words = "é".repeat(1000);
        let said = explain(&Trouble { status: Some(400), words: &words, ..NOTHING }).what;
        assert!(said.chars().count() < 230, "{said}");
    }

    #[test]
    fn an_unexpected_end_names_memory_or_the_last_words() {
        let ended = |how, stderr: &str| explain_exit(&Exited { how, stderr: stderr.to_owned() });
        assert!(ended(Exit::OutOfMemory, "").fix.contains("`memory`"));
        assert_eq!(
            ended(Exit::Code(1), "a\nerror: unknown option\n\n").what,
            "Claude ended unexpectedly (exit code 1): error: unknown option"
        );
        assert_eq!(ended(Exit::Signal(9), "").what, "Claude was ended by signal 9");
    }

    #[test]
    fn a_retry_says_what_failed_and_when_it_is_tried_again() {
        assert_eq!(
            retrying(Some(529), 2, 10, 1195.0),
            "Anthropic's servers are overloaded. Trying again in 2 s (2 of 10)."
        );
        assert_eq!(
            retrying(None, 1, 10, 0.0),
            "The model API cannot be reached. Trying again in 1 s (1 of 10)."
        );
    }
}
