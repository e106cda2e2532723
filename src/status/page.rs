//! The overview as a page. Pure.
//!
//! Invariant: every text that came from outside goes through [`Plain`]; numbers and our own words are all that does not.

use std::fmt::Write;

use super::words::{Plain, ago, bytes, count, dollars, exact, span, tokens};
use crate::model::{AgentOverview, CellOverview, Overview, Place, RunOverview, RunState, TelegramState};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");
const ICON: &str = "<svg viewBox=\"0 0 24 24\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"1.8\" \
    stroke-linecap=\"round\" aria-hidden=\"true\"><path d=\"M4 20c0-9 2.6-16 8-16s8 7 8 16z\"/>\
    <path d=\"M6.2 10.5h11.6M4.7 15.2h14.6\"/><path d=\"M10 20v-1.6a2 2 0 0 1 4 0V20\"/></svg>";

/// The whole page. `nonce` is what lets its style and script in; `now` is seconds since the epoch.
pub(super) fn document(overview: &Overview, nonce: &str, now: i64) -> String {
    let favicon = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'%3E%3Cpath \
                   fill='%23d9962b' d='M4 20c0-9 2.6-16 8-16s8 7 8 16z'/%3E%3C/svg%3E";
    let main = fragment(overview, now);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Skep</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"theme-color\" media=\"(prefers-color-scheme: light)\" content=\"#faf7f0\">\n\
         <meta name=\"theme-color\" media=\"(prefers-color-scheme: dark)\" content=\"#16130f\">\n\
         <link rel=\"icon\" href=\"{favicon}\">\n<noscript><meta http-equiv=\"refresh\" content=\"15\"></noscript>\n\
         <style nonce=\"{nonce}\">{STYLE}</style>\n</head>\n<body>\n<header>{ICON}<span>Skep</span></header>\n\
         <main>{main}</main>\n<footer><span id=\"live\">As of now</span>\
         <span>Skep {version}</span></footer>\n\
         <script nonce=\"{nonce}\">{SCRIPT}</script>\n</body>\n</html>\n",
        version = Plain(&overview.version),
    )
}

/// What is inside `<main>`: the part that changes.
pub(super) fn fragment(overview: &Overview, now: i64) -> String {
    let mut out = String::with_capacity(8192);
    lead(&mut out, overview, now);
    attention(&mut out, overview);
    section(&mut out, "Agents", |out| agents(out, &overview.agents, now));
    section(&mut out, "Latest runs", |out| runs(out, &overview.runs, now));
    out.push_str("<div class=\"pair\">");
    section(&mut out, "Usage", |out| usage(out, overview));
    section(&mut out, "This machine", |out| machine(out, overview, now));
    out.push_str("</div>");
    out
}

/// Writing to a String cannot fail: the result is dropped here and nowhere else.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{ let _ = write!($out, $($arg)*); }};
}

fn section(out: &mut String, title: &str, inside: impl FnOnce(&mut String)) {
    put!(out, "<section><h2>{title}</h2>");
    inside(out);
    out.push_str("</section>");
}

/// One sentence that says how things are, and the four figures.
fn lead(out: &mut String, overview: &Overview, now: i64) {
    let queue = &overview.queue;
    let headline = match &overview.telegram {
        TelegramState::Rejected => "Telegram refused the token".to_owned(),
        TelegramState::Failing { .. } => "Telegram cannot be reached".to_owned(),
        _ if queue.running > 0 => format!("Working on {}", count(queue.running, "run")),
        _ if queue.queued > 0 => format!("{} waiting", count(queue.queued, "run")),
        TelegramState::Connecting => "Connecting to Telegram".to_owned(),
        TelegramState::Off | TelegramState::Online { .. } => "All quiet".to_owned(),
    };
    put!(out, "<h1>{headline}</h1><p class=\"lead\">{}</p>", telegram(&overview.telegram, now));
    let cells: usize = overview.agents.iter().map(|agent| agent.cells.len()).sum();
    let today = &overview.usage.today;
    let figures = [
        ("Running", queue.running.to_string()),
        ("Waiting", queue.queued.saturating_add(queue.inbox).to_string()),
        ("Live cells", cells.to_string()),
        ("Today", dollars(today.cost_micros)),
    ];
    out.push_str("<dl class=\"figures\">");
    for (name, figure) in figures {
        put!(out, "<div><dt>{name}</dt><dd>{figure}</dd></div>");
    }
    out.push_str("</dl>");
    if queue.outbox > 0 {
        let replies =
            if queue.outbox == 1 { "1 reply".to_owned() } else { format!("{} replies", queue.outbox) };
        put!(out, "<p class=\"note small soft\">{replies} on the way to Telegram</p>");
    }
}

fn telegram(state: &TelegramState, now: i64) -> String {
    match state {
        TelegramState::Off => "No Telegram token is set: store one as the credential <code>telegram-token</code> and restart the service".to_owned(),
        TelegramState::Connecting => "Telegram: connecting".to_owned(),
        TelegramState::Online { bot, last_poll } => {
            format!("Listening as <bdi>@{}</bdi>, heard from Telegram {}", Plain(bot), ago(*last_poll, now))
        }
        TelegramState::Failing { since, .. } => {
            format!("Trying again since {}", span(now.saturating_sub(*since)))
        }
        TelegramState::Rejected => "Store a new one as the credential <code>telegram-token</code> and restart the service".to_owned(),
    }
}

/// What the owner should do something about. Absent when there is nothing.
fn attention(out: &mut String, overview: &Overview) {
    let failing = match &overview.telegram {
        TelegramState::Failing { error, .. } => Some(error.as_str()),
        _ => None,
    };
    if failing.is_none() && overview.machine.missing.is_empty() {
        return;
    }
    section(out, "Needs attention", |out| {
        let tone = if failing.is_some() { " bad" } else { "" };
        put!(out, "<ul class=\"card attention{tone}\">");
        for line in failing.into_iter().chain(overview.machine.missing.iter().map(String::as_str)) {
            put!(out, "<li class=\"foreign\">{}</li>", Plain(line));
        }
        out.push_str("</ul>");
    });
}

fn agents(out: &mut String, agents: &[AgentOverview], now: i64) {
    if agents.is_empty() {
        out.push_str("<p class=\"card soft\">No agent is configured.</p>");
        return;
    }
    out.push_str("<ul class=\"agents\">");
    for agent in agents {
        let name = Plain(agent.name.as_str());
        put!(
            out,
            "<li class=\"card\"><div class=\"title\"><h3>{name}</h3>{}<span class=\"model soft small\"><bdi>{}</bdi></span></div>\
             <p class=\"soft small foreign\">{}</p>",
            if agent.queued > 0 {
                format!("<span class=\"badge warn\">{} waiting</span>", agent.queued)
            } else {
                String::new()
            },
            Plain(&agent.model),
            Plain(&agent.description),
        );
        if !agent.cells.is_empty() {
            out.push_str("<ul class=\"cells\">");
            for cell in &agent.cells {
                live_cell(out, cell, now);
            }
            out.push_str("</ul>");
        }
        out.push_str("</li>");
    }
    out.push_str("</ul>");
}

fn live_cell(out: &mut String, cell: &CellOverview, now: i64) {
    let badge = if cell.busy {
        "<span class=\"badge good work\">working</span>"
    } else {
        "<span class=\"badge\">idle</span>"
    };
    let memory = cell.memory.map_or_else(|| "memory not measured".to_owned(), bytes);
    put!(
        out,
        "<li><div class=\"line\">{badge}<bdi class=\"foreign\">{}</bdi></div><div class=\"line small soft\"><span>{memory}</span>\
         <span>up {}</span><span>process {}</span></div><details class=\"small\" id=\"cell-{}\"><summary>{} enforced</summary>\
         <ul class=\"chips\">",
        place(&cell.place),
        span(now.saturating_sub(cell.started_at)),
        cell.pid,
        cell.pid,
        count(cell.layers.len() as u64, "layer"),
    );
    for layer in &cell.layers {
        put!(out, "<li>{}</li>", Plain(layer));
    }
    out.push_str("</ul></details></li>");
}

fn place(place: &Place) -> String {
    match place {
        Place::Telegram { chat, thread: None } if chat.0 < 0 => format!("group {chat}"),
        Place::Telegram { chat, thread: None } => format!("chat {chat}"),
        Place::Telegram { chat, thread: Some(thread) } => format!("chat {chat}, topic {thread}"),
        Place::Terminal(name) => format!("terminal {}", Plain(name)),
    }
}

fn runs(out: &mut String, runs: &[RunOverview], now: i64) {
    if runs.is_empty() {
        out.push_str("<p class=\"card soft\">Nothing has been asked yet.</p>");
        return;
    }
    out.push_str("<ol class=\"card runs\">");
    for run in runs {
        let tone = match run.state {
            RunState::Queued => " warn",
            RunState::Running => " good work",
            RunState::Failed => " bad",
            RunState::Finished | RunState::Cancelled => "",
        };
        put!(
            out,
            "<li><div class=\"line\"><span class=\"badge{tone}\">{}</span><strong>{}</strong>\
             <span class=\"small soft\">#{}</span><time class=\"small soft\" datetime=\"{at}\" title=\"{at}\">{}</time></div>\
             <p class=\"foreign\">{}{more}</p>",
            run.state.as_str(),
            Plain(run.agent.as_str()),
            run.id,
            ago(run.created_at, now),
            Plain(&run.prompt),
            at = exact(run.created_at),
            more = if run.prompt.chars().count() >= 80 { "…" } else { "" },
        );
        if let Some(error) = &run.error {
            put!(out, "<p class=\"small error foreign\">{}</p>", Plain(error));
        }
        put!(out, "<div class=\"line small soft\"><bdi class=\"foreign\">{}</bdi>", place(&run.place));
        match (run.state, run.ended_at) {
            (RunState::Queued, _) => {}
            (_, Some(end)) => put!(out, "<span>took {}</span>", span(end.saturating_sub(run.created_at))),
            (_, None) => put!(out, "<span>for {}</span>", span(now.saturating_sub(run.created_at))),
        }
        if run.usage.output > 0 {
            put!(out, "<span>{} tokens written</span>", tokens(run.usage.output));
        }
        if run.usage.cost_micros > 0 {
            put!(out, "<span>{}</span>", dollars(run.usage.cost_micros));
        }
        out.push_str("</div></li>");
    }
    out.push_str("</ol>");
}

fn usage(out: &mut String, overview: &Overview) {
    let (today, month) = (&overview.usage.today, &overview.usage.month);
    let rows = [
        ("Input", tokens(today.input), tokens(month.input)),
        ("Read from cache", tokens(today.cache_read), tokens(month.cache_read)),
        ("Written to cache", tokens(today.cache_write), tokens(month.cache_write)),
        ("Output", tokens(today.output), tokens(month.output)),
        ("Estimated cost", dollars(today.cost_micros), dollars(month.cost_micros)),
    ];
    let (calls, errors) = (overview.usage.calls_today, overview.usage.errors_today);
    let failed = if errors == 0 { String::new() } else { format!(", {errors} of them failed") };
    put!(
        out,
        "<div class=\"card\"><table><caption class=\"small soft\">Tokens and cost, days in UTC. {} today{failed}.</caption>\
         <thead><tr><th scope=\"col\"><span class=\"soft\">Tokens</span></th><th scope=\"col\">Today</th>\
         <th scope=\"col\">This month</th></tr></thead><tbody>",
        count(calls, "model call"),
    );
    for (name, today, month) in rows {
        put!(out, "<tr><th scope=\"row\">{name}</th><td>{today}</td><td>{month}</td></tr>");
    }
    out.push_str("</tbody></table></div>");
}

fn machine(out: &mut String, overview: &Overview, now: i64) {
    let machine = &overview.machine;
    let claude = machine.claude_version.as_deref().unwrap_or("not found");
    let memory = machine.memory_available.map_or_else(|| "unknown".to_owned(), bytes);
    put!(
        out,
        "<div class=\"card\"><dl class=\"facts\"><dt>Protection</dt><dd class=\"foreign\">{}</dd><dt>Memory free</dt><dd>{memory}</dd>\
         <dt>Claude Code</dt><dd class=\"foreign\">{}</dd><dt>Skep is up</dt><dd>{}</dd></dl>\
         <ul class=\"chips\">",
        Plain(&machine.tier),
        Plain(claude),
        span(now.saturating_sub(overview.started_at)),
    );
    for layer in &machine.layers {
        put!(out, "<li>{}</li>", Plain(layer));
    }
    out.push_str("</ul></div>");
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::model::{MachineOverview, QueueOverview};

    const NOW: i64 = 1_790_000_000;

    #[test]
    fn hostile_text_stays_text() {
        let page = document(&sample::overview(NOW), "abc", NOW);
        assert!(page.contains(
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; reads ‹U+202E›txt.exe‹U+202C› and ‹U+0007›bells"
        ));
        assert!(page.contains("&lt;img src=x onerror=alert(1)&gt; مرحبا ‹U+001B›[31mred↵second line"));
        assert_eq!(page.matches("<script").count(), 1);
        assert_eq!(page.matches("<img").count(), 0);
        let shown = |c: char| c == '\n' || !c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c);
        assert!(page.chars().all(shown));
    }

    #[test]
    fn no_field_of_the_overview_can_bring_markup_in() {
        let text = serde_json::to_string(&sample::overview(NOW)).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        poison(&mut value);
        let page = fragment(&serde_json::from_value(value).unwrap(), NOW);
        assert!(page.contains("&quot;&gt;&lt;b&gt;&amp;&#39;"));
        assert!(!page.contains("<b>"), "{page}");
    }

    /// Puts markup into every text that is not one of a few known words.
    fn poison(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) => *text = "\"><b>&'".to_owned(),
            serde_json::Value::Array(items) => items.iter_mut().for_each(poison),
            serde_json::Value::Object(fields) => {
                for (key, field) in fields {
                    if !matches!(key.as_str(), "name" | "agent" | "state") {
                        poison(field);
                    }
                }
            }
            _ => {}
        }
    }

    #[test]
    fn the_headline_says_the_most_important_thing() {
        let overview = |running, queued, telegram| Overview {
            queue: QueueOverview { running, queued, ..QueueOverview::default() },
            telegram,
            ..Overview::default()
        };
        let online = || TelegramState::Online { bot: "b".to_owned(), last_poll: NOW };
        let failing = || TelegramState::Failing { error: "no route".to_owned(), since: NOW - 70 };
        let cases = [
            (overview(0, 0, online()), "All quiet"),
            (overview(1, 3, online()), "Working on 1 run"),
            (overview(2, 0, TelegramState::Off), "Working on 2 runs"),
            (overview(0, 3, online()), "3 runs waiting"),
            (overview(2, 0, failing()), "Telegram cannot be reached"),
            (overview(0, 0, TelegramState::Connecting), "Connecting to Telegram"),
            (overview(1, 0, TelegramState::Rejected), "Telegram refused the token"),
        ];
        for (overview, expected) in cases {
            let page = fragment(&overview, NOW);
            assert!(page.starts_with(&format!("<h1>{expected}</h1>")), "{page}");
        }
    }

    #[test]
    fn what_the_machine_lacks_is_shown_only_when_it_lacks_something() {
        let mut overview = Overview::default();
        assert!(!fragment(&overview, NOW).contains("Needs attention"));
        overview.machine =
            MachineOverview { missing: vec!["do this".to_owned()], ..MachineOverview::default() };
        assert!(fragment(&overview, NOW).contains("<li class=\"foreign\">do this</li>"));
    }

    #[test]
    fn every_element_that_is_opened_is_closed() {
        let page = document(&sample::overview(NOW), "abc", NOW);
        let body = &page[page.find("<body>").unwrap()..page.find("<script").unwrap()];
        for name in [
            "main", "section", "div", "ul", "ol", "li", "dl", "dt", "dd", "p", "span", "bdi", "table", "tr",
            "th", "td", "details",
        ] {
            let opened =
                body.matches(&format!("<{name}>")).count() + body.matches(&format!("<{name} ")).count();
            assert_eq!(opened, body.matches(&format!("</{name}>")).count(), "{name}");
        }
    }
}
