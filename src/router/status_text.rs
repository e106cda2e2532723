//! `/status` as a chat message. Pure.

use crate::model::{Overview, RunState, TelegramState};

/// The overview in a few lines of Markdown.
pub(super) fn status(overview: &Overview) -> String {
    let mut lines = vec![format!("**Skep {}** · {}", overview.version, overview.machine.tier)];
    if let Some(claude) = &overview.machine.claude_version {
        lines.push(format!("Claude Code {claude}"));
    }
    if let TelegramState::Failing { error, .. } = &overview.telegram {
        lines.push(format!("⚠️ Telegram: {error}"));
    }
    lines.push(String::new());
    for agent in &overview.agents {
        let doing = match (agent.cells.iter().filter(|cell| cell.busy).count(), agent.cells.len()) {
            (0, 0) => "asleep".to_owned(),
            (0, _) => "ready".to_owned(),
            (busy, _) => format!("working ({busy})"),
        };
        let waiting = if agent.queued > 0 { format!(", {} waiting", agent.queued) } else { String::new() };
        let memory: u64 = agent.cells.iter().filter_map(|cell| cell.memory).sum();
        let memory = if memory > 0 { format!(", {} MB", memory / 1_000_000) } else { String::new() };
        lines.push(format!("• **{}** ({}) {doing}{waiting}{memory}", agent.name, agent.model));
    }
    lines.push(String::new());
    let running: Vec<_> = overview.runs.iter().filter(|run| run.state == RunState::Running).collect();
    for run in &running {
        lines.push(format!("▶ {}: {}", run.agent, run.prompt.lines().next().unwrap_or_default()));
    }
    let queue = &overview.queue;
    lines.push(format!("Waiting: {} to begin, {} to be delivered", queue.queued, queue.outbox));
    let (today, month) = (overview.usage.today, overview.usage.month);
    lines.push(format!(
        "Today: {} tokens in, {} out, ≈ ${:.2}; this month ≈ ${:.2}",
        today.input + today.cache_read + today.cache_write,
        today.output,
        dollars(today.cost_micros),
        dollars(month.cost_micros)
    ));
    lines.push(format!("Cells: {}", overview.machine.layers.join(", ")));
    for missing in &overview.machine.missing {
        lines.push(format!("⚠️ {missing}"));
    }
    lines.join("\n")
}

#[expect(clippy::cast_precision_loss, reason = "an estimate shown with two digits")]
fn dollars(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}
