//! The overview as Prometheus text. Pure.

use std::fmt::Write;

use crate::model::{Overview, TelegramState, Usage};

/// All metrics. Those of `today` and `month` begin anew at midnight UTC, so they are gauges.
pub(super) fn render(overview: &Overview) -> String {
    let mut out = Text(String::with_capacity(4096));
    out.family("skep_info", "The daemon's version and what protects its cells.");
    out.sample("skep_info", &[("version", &overview.version), ("tier", &overview.machine.tier)], 1.0);
    out.single("skep_start_time_seconds", "When the daemon started.", overview.started_at as f64);
    out.single("skep_inbox_pending", "Accepted messages not routed yet.", overview.queue.inbox as f64);
    out.single("skep_runs_queued", "Runs that wait for their turn.", overview.queue.queued as f64);
    out.single("skep_runs_running", "Runs that Claude has.", overview.queue.running as f64);
    out.single("skep_outbox_pending", "Replies not confirmed yet.", overview.queue.outbox as f64);
    agents(&mut out, overview);
    usage(&mut out, overview);
    let (up, last_poll) = match &overview.telegram {
        TelegramState::Online { last_poll, .. } => (1.0, Some(*last_poll)),
        TelegramState::Off
        | TelegramState::Connecting
        | TelegramState::Failing { .. }
        | TelegramState::Rejected => (0.0, None),
    };
    out.single("skep_telegram_up", "Whether Telegram is polled.", up);
    if let Some(at) = last_poll {
        out.single("skep_telegram_last_poll_time_seconds", "When the last poll came back.", at as f64);
    }
    out.single(
        "skep_machine_missing",
        "Protections this machine lacks.",
        overview.machine.missing.len() as f64,
    );
    if let Some(bytes) = overview.machine.memory_available {
        out.single("skep_memory_available_bytes", "Memory a new process may still use.", bytes as f64);
    }
    out.0
}

fn agents(out: &mut Text, overview: &Overview) {
    out.family("skep_cells", "Live cells.");
    for agent in &overview.agents {
        for (busy, state) in [(true, "busy"), (false, "idle")] {
            let cells = agent.cells.iter().filter(|cell| cell.busy == busy).count();
            out.sample("skep_cells", &[("agent", agent.name.as_str()), ("state", state)], cells as f64);
        }
    }
    out.family("skep_agent_runs_queued", "Runs of an agent that wait.");
    for agent in &overview.agents {
        out.sample("skep_agent_runs_queued", &[("agent", agent.name.as_str())], agent.queued as f64);
    }
    out.family("skep_cells_memory_bytes", "Memory of an agent's live cells, where it can be measured.");
    for agent in &overview.agents {
        let bytes: u64 = agent.cells.iter().filter_map(|cell| cell.memory).sum();
        out.sample("skep_cells_memory_bytes", &[("agent", agent.name.as_str())], bytes as f64);
    }
}

fn usage(out: &mut Text, overview: &Overview) {
    let periods = [("today", overview.usage.today), ("month", overview.usage.month)];
    out.family("skep_tokens", "Tokens as the model API counted them.");
    for (period, Usage { input, output, cache_read, cache_write, .. }) in periods {
        let kinds =
            [("input", input), ("output", output), ("cache_read", cache_read), ("cache_write", cache_write)];
        for (kind, tokens) in kinds {
            out.sample("skep_tokens", &[("period", period), ("kind", kind)], tokens as f64);
        }
    }
    out.family("skep_cost_dollars", "Estimated cost.");
    for (period, usage) in periods {
        out.sample("skep_cost_dollars", &[("period", period)], usage.cost_micros as f64 / 1e6);
    }
    out.single("skep_model_calls_today", "Model calls today.", overview.usage.calls_today as f64);
    out.single("skep_model_errors_today", "Of these, refused or failed.", overview.usage.errors_today as f64);
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, text)| {
                let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                format!("{key}=\"{text}\"")
            })
            .collect();
        let _ = if labels.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{}}} {value}", labels.join(","))
        };
    }

    fn single(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, help);
        self.sample(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_comment_or_a_sample_and_labels_are_escaped() {
        let mut overview = super::super::sample::overview(1_790_000_000);
        overview.version = "1\"2\\3\n4".to_owned();
        let text = render(&overview);
        assert!(text.contains(r#"skep_info{version="1\"2\\3\n4",tier="T3"} 1"#), "{text}");
        assert!(text.contains("skep_cells{agent=\"coder\",state=\"busy\"} 1\n"), "{text}");
        assert!(text.contains("skep_cost_dollars{period=\"today\"} 1.234567\n"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with("skep_") && value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
