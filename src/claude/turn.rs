//! From lines to events: what belongs to which turn, and what the owner sees of it. Pure.
//!
//! Called by `pump`, with every line in order. Invariants:
//! - Between [`ClaudeEvent::TurnStarted`] and [`ClaudeEvent::TurnEnded`] lies exactly one turn; text and tools come only
//!   there.
//! - The pieces of text of a turn, joined, are the text of its end (up to a limit of 1 MiB).
//! - Lines that the CLI makes up (`<synthetic>` errors, the request to continue a cut-off answer) are never shown.

use super::wire::{self, Line, Spoken, StreamEvent, TurnResult};
use super::{Ask, ClaudeEvent, CredentialKind, MessageState, Outcome, Trouble, TurnEnd, explain, tool};
use crate::model::{RateLimit, SessionId, ToolActivity, Usage};

/// The longest text of a turn that is kept, in bytes.
const LONGEST_TEXT: usize = 1024 * 1024;
/// Tool uses of a turn that may run at once; of more, the end is not told.
const OPEN_TOOLS: usize = 256;
/// Types of unknown lines that are told apart; after so many nothing more is reported.
const UNKNOWN_KINDS: usize = 32;
/// What stands in the CLI's own requests to go on, after a broken stream or at the limit of one answer.
const GO_ON: &str = "Resume directly";

/// What a process has said so far.
#[derive(Debug)]
pub(super) struct Turns {
    model: String,
    credential: CredentialKind,
    session: SessionId,
    seen_session: Option<SessionId>,
    turn: Option<Turn>,
    /// The cumulated cost at the last result; `None` when a session is resumed and no result has come yet.
    spent: Option<f64>,
    limit: Option<RateLimit>,
    /// The credential was rejected in this turn.
    rejected: bool,
    unknown: Vec<String>,
}

#[derive(Debug, Default)]
struct Turn {
    text: String,
    /// A block of text was streamed whose whole line has not come yet.
    streamed: bool,
    /// Where the next text goes.
    next: Joint,
    tools: Vec<ToolActivity>,
}

/// What comes before the next piece of text.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Joint {
    /// Nothing: the same block goes on.
    #[default]
    None,
    /// A blank line: another block begins.
    BlankLine,
    /// Nothing, although another block begins: it goes on where the last one was cut off.
    Seamless,
}

impl Turns {
    /// `spent` is 0 for a new session, `None` for a resumed one: its cumulated cost goes on from an unknown number.
    pub(super) fn new(
        session: SessionId,
        model: String,
        credential: CredentialKind,
        spent: Option<f64>,
    ) -> Self {
        Self {
            model,
            credential,
            session,
            seen_session: None,
            turn: None,
            spent,
            limit: None,
            rejected: false,
            unknown: Vec::new(),
        }
    }

    /// What a line means. Control frames other than a permission question are the pump's.
    pub(super) fn read(&mut self, line: Line) -> Vec<ClaudeEvent> {
        let mut events = Vec::new();
        match line {
            Line::Init(init) => {
                self.see_session(init.session_id, &mut events);
                self.open(init.user_message_uuids, &mut events);
            }
            Line::Stream(line) if line.parent_tool_use_id.is_none() => self.stream(line.event, &mut events),
            Line::Assistant(spoken) => self.assistant(spoken, &mut events),
            Line::User(spoken) => self.user(spoken, &mut events),
            Line::Result(result) => self.end(*result, &mut events),
            Line::Status(status) if status.status.as_deref() == Some("compacting") => {
                notice("The conversation is getting long: it is being summarised to make room.", &mut events);
            }
            Line::CompactBoundary(boundary) => notice(&compacted(&boundary.compact_metadata), &mut events),
            Line::ModelFallback(fallback) => {
                let other = fallback.fallback_model.unwrap_or_else(|| "another model".to_owned());
                notice(&format!("{} is overloaded: {other} answers instead.", self.model), &mut events);
            }
            Line::ApiRetry(retry) => {
                // The first may be a hiccup.
                self.rejected |= retry.error_status == Some(401) && retry.attempt > 1;
                let text = explain::retrying(
                    retry.error_status,
                    retry.attempt,
                    retry.max_retries,
                    retry.retry_delay_ms,
                );
                notice(&text, &mut events);
            }
            Line::RateLimit(line) => self.rate_limit(line.rate_limit_info, &mut events),
            Line::BackgroundTasks(set) => {
                let count = set.tasks.iter().filter(|task| !task.ambient).count();
                events.push(ClaudeEvent::BackgroundTasks { count });
            }
            Line::Lifecycle(line) => {
                if let Some(state) = message_state(&line.state) {
                    events.push(ClaudeEvent::Message { uuid: line.command_uuid, state });
                }
            }
            Line::Request(request) => events.push(ClaudeEvent::Ask(Ask {
                request_id: request.request_id,
                tool_name: request.request.tool_name,
                input: request.request.input,
            })),
            Line::CancelRequest { request_id } => events.push(ClaudeEvent::AskCancelled { request_id }),
            Line::Unknown { kind } => self.unknown(kind, &mut events),
            Line::Stream(_) | Line::Status(_) | Line::Response(_) | Line::Nothing => {}
        }
        events
    }

    /// Whether the running turn cannot succeed: the API rejects the credential, and the CLI would try for minutes.
    pub(super) fn is_hopeless(&self) -> bool {
        self.rejected
    }

    fn see_session(&mut self, id: Option<String>, events: &mut Vec<ClaudeEvent>) {
        let Some(id) = id.map(SessionId) else { return };
        if self.seen_session.as_ref() != Some(&id) {
            self.session = id.clone();
            self.seen_session = Some(id.clone());
            events.push(ClaudeEvent::SessionSeen(id));
        }
    }

    fn open(&mut self, prompts: Vec<String>, events: &mut Vec<ClaudeEvent>) -> &mut Turn {
        self.turn.get_or_insert_with(|| {
            events.push(ClaudeEvent::TurnStarted { prompts });
            Turn::default()
        })
    }

    fn stream(&mut self, event: StreamEvent, events: &mut Vec<ClaudeEvent>) {
        match event {
            StreamEvent::MessageStart {} => self.open(Vec::new(), events).begin_block(),
            StreamEvent::ContentBlockStart { content_block: Some(block) } if block.kind == "text" => {
                self.open(Vec::new(), events).begin_block();
            }
            StreamEvent::ContentBlockDelta { delta: wire::Delta::TextDelta { text } } => {
                let turn = self.open(Vec::new(), events);
                turn.streamed = true;
                turn.say(&text, events);
            }
            StreamEvent::ContentBlockStart { .. }
            | StreamEvent::ContentBlockDelta { .. }
            | StreamEvent::Other => {}
        }
    }

    fn assistant(&mut self, spoken: Spoken, events: &mut Vec<ClaudeEvent>) {
        let synthetic = spoken.message.model.as_deref() == Some("<synthetic>");
        let nested = spoken.parent_tool_use_id.is_some();
        // What a background subagent does between turns belongs to none.
        let Some(turn) = &mut self.turn else { return };
        for block in spoken.message.content {
            match (block.kind.as_str(), block.text, block.id, block.name) {
                ("text", Some(text), _, _) if !synthetic && !nested => turn.whole_block(&text, events),
                ("tool_use", _, Some(id), Some(name)) => {
                    let detail = tool::detail(&name, &block.input.unwrap_or_default());
                    let started = ToolActivity { id, name, detail, ok: None };
                    if turn.tools.len() < OPEN_TOOLS {
                        turn.tools.push(started.clone());
                    }
                    events.push(ClaudeEvent::Tool(started));
                }
                _ => {}
            }
        }
    }

    fn user(&mut self, spoken: Spoken, events: &mut Vec<ClaudeEvent>) {
        let Some(turn) = &mut self.turn else { return };
        for block in spoken.message.content {
            if let Some(id) = block.tool_use_id {
                turn.finish_tool(&id, block.is_error != Some(true), events);
            } else if spoken.synthetic && block.text.is_some_and(|text| text.contains(GO_ON)) {
                turn.next = Joint::Seamless;
            }
        }
    }

    fn rate_limit(&mut self, info: wire::RateLimitInfo, events: &mut Vec<ClaudeEvent>) {
        if info.status != "rejected" {
            return;
        }
        let resets_at = info.resets_at.map(|at| at as i64);
        let limit = RateLimit { kind: info.rate_limit_type.unwrap_or_default(), resets_at };
        self.limit = Some(limit.clone());
        events.push(ClaudeEvent::RateLimit(limit));
    }

    fn unknown(&mut self, kind: String, events: &mut Vec<ClaudeEvent>) {
        let kind: String = kind.chars().filter(|c| !tool::is_unsafe(*c)).take(64).collect();
        if self.unknown.len() < UNKNOWN_KINDS && !self.unknown.contains(&kind) {
            self.unknown.push(kind.clone());
            events.push(ClaudeEvent::Unknown { kind });
        }
    }

    fn end(&mut self, result: TurnResult, events: &mut Vec<ClaudeEvent>) {
        let mut turn = self.turn.take().unwrap_or_default();
        for tool in std::mem::take(&mut turn.tools) {
            events.push(ClaudeEvent::Tool(ToolActivity { ok: Some(false), ..tool }));
        }
        self.see_session(result.session_id.clone(), events);
        let usage = self.usage(&result);
        let outcome = self.outcome(&result);
        self.limit = None;
        self.rejected = false;
        let failed = result.is_error;
        let text =
            if turn.text.is_empty() && !failed { result.result.unwrap_or_default() } else { turn.text };
        events.push(ClaudeEvent::TurnEnded(Box::new(TurnEnd {
            text,
            outcome,
            usage,
            prompts: result.user_message_uuids,
            unasked: result.origin.is_some(),
            session: self.session.clone(),
            subtype: result.subtype,
            terminal_reason: result.terminal_reason,
            api_error_status: result.api_error_status,
        })));
    }

    fn outcome(&self, result: &TurnResult) -> Outcome {
        let aborted = result.terminal_reason.as_deref().is_some_and(|reason| reason.starts_with("aborted"));
        if !result.is_error && !aborted {
            return Outcome::Completed;
        }
        if aborted && !self.rejected {
            return Outcome::Interrupted;
        }
        let errors = result.errors.join("; ");
        Outcome::Failed(explain::explain(&Trouble {
            subtype: &result.subtype,
            reason: result.terminal_reason.as_deref(),
            status: if aborted { Some(401) } else { result.api_error_status },
            words: result.result.as_deref().unwrap_or(&errors),
            limit: self.limit.as_ref(),
            model: &self.model,
            credential: self.credential,
        }))
    }

    /// What this turn used. The cost of older CLIs, which do not say it, is the growth of their total.
    fn usage(&mut self, result: &TurnResult) -> Usage {
        let before = self.spent.replace(result.total_cost_usd);
        let Some(models) = &result.model_usage_since_last_result else {
            let tokens = &result.usage;
            return Usage {
                input: tokens.input_tokens,
                output: tokens.output_tokens,
                cache_read: tokens.cache_read_input_tokens,
                cache_write: tokens.cache_creation_input_tokens,
                cost_micros: before.map_or(0, |before| micros(result.total_cost_usd - before)),
            };
        };
        models.values().fold(Usage::default(), |sum, model| {
            sum.plus(Usage {
                input: model.input_tokens,
                output: model.output_tokens,
                cache_read: model.cache_read_input_tokens,
                cache_write: model.cache_creation_input_tokens,
                cost_micros: micros(model.cost_usd),
            })
        })
    }
}

impl Turn {
    fn begin_block(&mut self) {
        self.streamed = false;
        if self.next == Joint::None {
            self.next = Joint::BlankLine;
        }
    }

    fn say(&mut self, text: &str, events: &mut Vec<ClaudeEvent>) {
        if text.is_empty() || self.text.len() >= LONGEST_TEXT {
            return;
        }
        let mut delta = match std::mem::take(&mut self.next) {
            Joint::BlankLine if !self.text.is_empty() => blank_line_after(&self.text).to_owned(),
            _ => String::new(),
        };
        delta.push_str(text);
        self.text.push_str(&delta);
        if self.text.len() >= LONGEST_TEXT {
            const CUT: &str = "\n\n(The rest of this answer is too long to be shown.)";
            self.text.push_str(CUT);
            delta.push_str(CUT);
        }
        events.push(ClaudeEvent::Text { delta });
    }

    /// A block whose line is complete: new only where the CLI fell back to a request without streaming.
    fn whole_block(&mut self, text: &str, events: &mut Vec<ClaudeEvent>) {
        if !std::mem::take(&mut self.streamed) {
            self.begin_block();
            self.say(text, events);
        }
    }

    fn finish_tool(&mut self, id: &str, ok: bool, events: &mut Vec<ClaudeEvent>) {
        if let Some(at) = self.tools.iter().position(|tool| tool.id == id) {
            let tool = self.tools.swap_remove(at);
            events.push(ClaudeEvent::Tool(ToolActivity { ok: Some(ok), ..tool }));
        }
    }
}

/// What must follow `text` so that a blank line divides it from what comes.
fn blank_line_after(text: &str) -> &'static str {
    if text.ends_with("\n\n") {
        ""
    } else if text.ends_with('\n') {
        "\n"
    } else {
        "\n\n"
    }
}

fn notice(text: &str, events: &mut Vec<ClaudeEvent>) {
    events.push(ClaudeEvent::Notice { text: text.to_owned() });
}

fn compacted(sizes: &wire::CompactMetadata) -> String {
    match (sizes.pre_tokens, sizes.post_tokens) {
        (Some(before), Some(after)) if after < before => {
            format!(
                "The conversation was summarised: {} → {} thousand tokens.",
                before.div_ceil(1000),
                after.div_ceil(1000)
            )
        }
        _ => "The conversation was summarised.".to_owned(),
    }
}

fn message_state(word: &str) -> Option<MessageState> {
    Some(match word {
        "queued" => MessageState::Queued,
        "started" => MessageState::Started,
        "completed" => MessageState::Completed,
        "cancelled" => MessageState::Cancelled,
        _ => return None,
    })
}

fn micros(usd: f64) -> u64 {
    (usd * 1e6).round() as u64
}

#[cfg(test)]
mod tests;
