//! The overview, agents and runs as text. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use super::terminal::{Style, one_line, table};
use crate::model::{AgentOverview, Overview, RunOverview, RunState, TelegramState, Usage};

/// Seconds since the epoch.
pub(super) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// A length of time in its two largest units: `3 d 4 h`.
pub(super) fn span(seconds: i64) -> String {
    let s = seconds.max(0);
    match s {
        0..60 => format!("{s} s"),
        60..3600 if s % 60 == 0 => format!("{} min", s / 60),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// The page of `skep status`.
pub(super) fn page(overview: &Overview, now: i64, style: Style) -> String {
    let line = |name: &str, text: String| vec![name.to_owned(), text];
    let (queue, machine, usage) = (&overview.queue, &overview.machine, &overview.usage);
    let mut rows = vec![
        line("skep", format!("{}, up {}", one_line(&overview.version, 40), span(now - overview.started_at))),
        line("telegram", telegram(&overview.telegram, now)),
        line("claude", machine.claude_version.as_deref().map_or("not found".to_owned(), |v| one_line(v, 40))),
        line(
            "cells",
            format!("{}: {}", one_line(&machine.tier, 10), one_line(&machine.layers.join(", "), 400)),
        ),
        line(
            "queue",
            format!(
                "{} waiting, {} running, {} not sent yet",
                queue.inbox.saturating_add(queue.queued),
                queue.running,
                queue.outbox
            ),
        ),
    ];
    if let Some(bytes) = machine.memory_available {
        rows.push(line("memory", format!("{} MiB free for more", bytes >> 20)));
    }
    let calls = format!(" in {} calls, {} failed", usage.calls_today, usage.errors_today);
    rows.push(line("today", tokens(&usage.today) + &calls));
    rows.push(line("month", tokens(&usage.month)));
    let mut text = table(&rows);
    for missing in &machine.missing {
        text.push_str(&format!("! {}\n", one_line(missing, 400)));
    }
    text.push_str(&format!("\n{}\n", style.bold("Agents")));
    text.push_str(&table(&overview.agents.iter().map(agent_row).collect::<Vec<_>>()));
    if !overview.runs.is_empty() {
        text.push_str(&format!("\n{}\n", style.bold("Latest runs")));
        text.push_str(&table(&overview.runs.iter().take(5).map(|run| run_row(run, now)).collect::<Vec<_>>()));
    }
    text
}

/// One agent: name, model, what it does, its description.
pub(super) fn agent_row(agent: &AgentOverview) -> Vec<String> {
    let busy = agent.cells.iter().filter(|cell| cell.busy).count();
    let idle = agent.cells.len() - busy;
    let mut doing: Vec<String> = Vec::new();
    for (count, word) in [(busy, "busy"), (idle, "idle"), (agent.queued, "waiting")] {
        if count > 0 {
            doing.push(format!("{count} {word}"));
        }
    }
    let doing = if doing.is_empty() { "asleep".to_owned() } else { doing.join(", ") };
    vec![agent.name.to_string(), one_line(&agent.model, 40), doing, one_line(&agent.description, 80)]
}

/// One run: number, state, age, agent, place, cost, the first words or the error.
pub(super) fn run_row(run: &RunOverview, now: i64) -> Vec<String> {
    let words = match (&run.error, run.state) {
        (Some(error), RunState::Failed) => format!("{}: {}", one_line(&run.prompt, 30), one_line(error, 80)),
        _ => one_line(&run.prompt, 60),
    };
    vec![
        run.id.to_string(),
        run.state.as_str().to_owned(),
        format!("{} ago", span(now - run.created_at)),
        run.agent.to_string(),
        one_line(&run.place.to_string(), 40),
        dollars(run.usage.cost_micros),
        words,
    ]
}

fn telegram(state: &TelegramState, now: i64) -> String {
    match state {
        TelegramState::Off => "off: no bot token is stored (man skep.toml, CREDENTIALS)".to_owned(),
        TelegramState::Connecting => "connecting".to_owned(),
        TelegramState::Online { bot, last_poll } => {
            format!("@{}, last heard {} ago", one_line(bot, 40), span(now - last_poll))
        }
        TelegramState::Failing { error, since } => {
            format!("failing for {}: {}", span(now - since), one_line(error, 200))
        }
        TelegramState::Rejected => "the token was rejected: store the one @BotFather shows now".to_owned(),
    }
}

fn tokens(usage: &Usage) -> String {
    let read = usage.input.saturating_add(usage.cache_read).saturating_add(usage.cache_write);
    format!("{}, {} tokens read, {} written", dollars(usage.cost_micros), read, usage.output)
}

fn dollars(micros: u64) -> String {
    let cents = micros.saturating_add(5_000) / 10_000;
    format!("${}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        AgentName, CellOverview, MachineOverview, Place, QueueOverview, RunId, UsageOverview,
    };

    #[test]
    fn spans_are_told_in_two_units() {
        let cases = [
            (-5, "0 s"),
            (59, "59 s"),
            (600, "10 min"),
            (61, "1 min 1 s"),
            (3660, "1 h 1 min"),
            (90_000, "1 d 1 h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn the_status_page_is_readable_and_clean() {
        let general = AgentName::new("general").unwrap();
        let place = Place::Terminal("chat".to_owned());
        let cell = CellOverview {
            place: place.clone(),
            pid: 1,
            layers: vec![],
            memory: None,
            started_at: 0,
            busy: true,
        };
        let overview = Overview {
            version: "0.1.0".to_owned(),
            started_at: 1000,
            agents: vec![AgentOverview {
                name: general.clone(),
                description: "Chores".to_owned(),
                model: "sonnet".to_owned(),
                cells: vec![cell],
                queued: 2,
            }],
            queue: QueueOverview { inbox: 1, queued: 2, running: 1, outbox: 0 },
            runs: vec![RunOverview {
                id: RunId(7),
                agent: general,
                place,
                state: RunState::Failed,
                prompt: "hello \u{1b}[2J\nworld".to_owned(),
                created_at: 4000,
                ended_at: None,
                usage: Usage { cost_micros: 1_234_567, ..Usage::default() },
                error: Some("no\nnetwork".to_owned()),
            }],
            usage: UsageOverview { calls_today: 3, errors_today: 1, ..UsageOverview::default() },
            machine: MachineOverview {
                tier: "T1".to_owned(),
                layers: vec!["namespaces".to_owned(), "seccomp".to_owned()],
                missing: vec!["no memory cgroup: add cgroup_enable=memory".to_owned()],
                claude_version: None,
                memory_available: Some(512 << 20),
            },
            telegram: TelegramState::Online { bot: "my_bot".to_owned(), last_poll: 4598 },
        };
        let expected = "\
skep      0.1.0, up 1 h 0 min
telegram  @my_bot, last heard 2 s ago
claude    not found
cells     T1: namespaces, seccomp
queue     3 waiting, 1 running, 0 not sent yet
memory    512 MiB free for more
today     $0.00, 0 tokens read, 0 written in 3 calls, 1 failed
month     $0.00, 0 tokens read, 0 written
! no memory cgroup: add cgroup_enable=memory

Agents
general  sonnet  1 busy, 2 waiting  Chores

Latest runs
7  failed  10 min ago  general  terminal:chat  $1.23  hello ␛[2J world: no network
";
        assert_eq!(page(&overview, 4600, Style::Bare), expected);
    }
}
