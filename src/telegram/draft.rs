//! What a chat sees of a run while it goes on (pure): which text to show next, and when.
//!
//! One message per run holds the newest part of the answer and at most one quiet line about tools. Best effort: the final
//! text comes from the store and needs nothing of this. A run that ends before the first text is due is never shown.

use std::time::Duration;

use tokio::time::Instant;

use super::markup::{Rendered, render};
use crate::model::ToolActivity;

/// Text is shown this long after its first piece, if a sentence or a line is there…
const FIRST: Duration = Duration::from_millis(800);
/// …and after this at the latest: an answer that is complete by then costs one call.
const FIRST_LATEST: Duration = Duration::from_millis(1500);
/// A run that only works and says nothing is shown after this.
const FIRST_TOOL: Duration = Duration::from_secs(4);
/// An edit that only moves the seconds of a tool on.
const TICK: Duration = Duration::from_secs(15);
/// Units of text shown, with room for the status line in Telegram's 4096.
const ROOM: usize = 3600;
/// Beyond this the front of the text is forgotten: only the newest part is shown.
const KEPT: usize = 64 * 1024;

/// What to do next for a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Send the first message.
    SendFirst(Rendered),
    /// Edit the message.
    Edit(Rendered),
    /// Ask again then.
    Wait(Instant),
    /// Nothing until something happens.
    Idle,
}

#[derive(Debug)]
struct Tool {
    id: String,
    label: String,
    since: Instant,
    ended: Option<bool>,
}

/// The visible state of one run.
#[derive(Debug)]
pub(super) struct Draft {
    started: Instant,
    slow: bool,
    text: String,
    first_text: Option<Instant>,
    tools: Vec<Tool>,
    used: usize,
    notice: Option<String>,
    /// A tool was used since the last piece of text: the next piece is a new paragraph.
    interrupted: bool,
    changed: bool,
    stopped: bool,
    /// After a failed call: nothing before this.
    hold: Option<Instant>,
    shown: Option<Shown>,
}

#[derive(Debug)]
struct Shown {
    at: Instant,
    body: Rendered,
    /// No later edit's fate is unknown.
    certain: bool,
}

impl Draft {
    /// A run that starts now. In a group, where more people read and limits are tighter, edits are slower.
    pub(super) fn new(now: Instant, group: bool) -> Self {
        Self {
            started: now,
            slow: group,
            text: String::new(),
            first_text: None,
            tools: Vec::new(),
            used: 0,
            notice: None,
            interrupted: false,
            changed: false,
            stopped: false,
            hold: None,
            shown: None,
        }
    }

    /// The answer goes on.
    pub(super) fn text(&mut self, delta: &str, now: Instant) {
        if std::mem::take(&mut self.interrupted) && !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push_str("\n\n");
        }
        self.text.push_str(delta);
        if self.text.len() > KEPT {
            let mut at = self.text.len() - KEPT / 2;
            while !self.text.is_char_boundary(at) {
                at += 1;
            }
            at = self.text[at..].find('\n').map_or(at, |line| at + line + 1);
            self.text.drain(..at);
        }
        self.first_text.get_or_insert(now);
        // A tool that has ended is old news once words follow.
        self.tools.retain(|tool| tool.ended.is_none());
        self.notice = None;
        self.changed = true;
    }

    /// A tool begins or ends.
    pub(super) fn tool(&mut self, activity: &ToolActivity, now: Instant) {
        self.interrupted = true;
        self.changed = true;
        self.notice = None;
        if let Some(tool) = self.tools.iter_mut().find(|tool| tool.id == activity.id) {
            tool.ended = activity.ok;
            return;
        }
        self.used += 1;
        self.tools.retain(|tool| tool.ended.is_none());
        // More than a few at once are never named; the bound is for memory.
        if self.tools.len() >= 16 {
            self.tools.remove(0);
        }
        let detail: String = activity.detail.chars().take(60).collect();
        let cut = if detail.len() < activity.detail.len() { "…" } else { "" };
        let label = match detail.trim() {
            "" => activity.name.clone(),
            detail => format!("{}: {detail}{cut}", activity.name),
        };
        self.tools.push(Tool { id: activity.id.clone(), label, since: now, ended: activity.ok });
    }

    /// Something worth a line.
    pub(super) fn notice(&mut self, text: &str) {
        self.notice = Some(text.chars().take(200).collect());
        self.changed = true;
    }

    /// What to do now.
    pub(super) fn next(&self, now: Instant) -> Action {
        if self.stopped {
            return Action::Idle;
        }
        if let Some(hold) = self.hold.filter(|hold| now < *hold) {
            return Action::Wait(hold);
        }
        match &self.shown {
            None => self.first(now),
            Some(shown) => self.following(shown, now),
        }
    }

    fn first(&self, now: Instant) -> Action {
        let by_text = self.first_text.map(|at| {
            let ripe = self.text.len() >= 40
                && self.text.trim_end().ends_with(['.', '!', '?', ':', '。', '`'])
                || self.text.trim_end().contains('\n');
            at + if ripe { FIRST } else { FIRST_LATEST }
        });
        let by_tool = self.tools.iter().map(|tool| tool.since + FIRST_TOOL).min();
        let by_notice = self.notice.as_ref().map(|_| now);
        let Some(due) = [by_text, by_tool, by_notice].into_iter().flatten().min() else {
            return Action::Idle;
        };
        if now < due {
            return Action::Wait(due);
        }
        let body = self.body(now);
        if body.text.is_empty() { Action::Idle } else { Action::SendFirst(body) }
    }

    fn following(&self, shown: &Shown, now: Instant) -> Action {
        let running = self.tools.iter().any(|tool| tool.ended.is_none());
        let due = match (self.changed, running) {
            (true, _) => shown.at + self.pause(now),
            (false, true) => shown.at + TICK,
            (false, false) => return Action::Idle,
        };
        if now < due {
            return Action::Wait(due);
        }
        let body = self.body(now);
        if body == shown.body || body.text.is_empty() { Action::Idle } else { Action::Edit(body) }
    }

    /// The distance between two edits: it grows with the age of the run.
    fn pause(&self, now: Instant) -> Duration {
        let age = now.saturating_duration_since(self.started).as_secs();
        Duration::from_secs(match age {
            120.. => 5,
            30.. => 3,
            _ if self.slow => 3,
            _ => 2,
        })
    }

    /// The message has been brought to `body`. Call [`Draft::taken`] before the call that does it.
    pub(super) fn shown(&mut self, body: Rendered, now: Instant) {
        self.hold = None;
        self.shown = Some(Shown { at: now, body, certain: true });
    }

    /// What [`Draft::next`] gave is on its way: changes from here on are new.
    pub(super) fn taken(&mut self) {
        self.changed = false;
    }

    /// What was on its way did not arrive, as far as is known; nothing is tried before `again`.
    pub(super) fn missed(&mut self, again: Instant) {
        self.changed = true;
        self.hold = Some(again);
        if let Some(shown) = &mut self.shown {
            shown.certain = false;
        }
    }

    /// Nothing further is to be shown.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// What the message holds, if that is certain.
    pub(super) fn last_shown(&self) -> Option<&Rendered> {
        self.shown.as_ref().filter(|shown| shown.certain).map(|shown| &shown.body)
    }

    fn body(&self, now: Instant) -> Rendered {
        let body = render(&self.text).tail(ROOM);
        match self.status(now) {
            Some(line) => body.with_line_after(&line),
            None => body,
        }
    }

    /// One quiet line: a notice, else the newest tool that runs, else the one that ran last.
    fn status(&self, now: Instant) -> Option<String> {
        if let Some(notice) = &self.notice {
            return Some(format!("ℹ️ {notice}"));
        }
        let tool = self.tools.iter().rev().find(|tool| tool.ended.is_none()).or(self.tools.last())?;
        let count = if self.used > 1 { format!("{} tools · ", self.used) } else { String::new() };
        Some(match tool.ended {
            None => {
                let seconds = now.saturating_duration_since(tool.since).as_secs();
                let time = match seconds {
                    0..2 => String::new(),
                    2..60 => format!(" · {seconds} s"),
                    _ => format!(" · {} min", seconds / 60),
                };
                format!("🔧 {count}{}{time}", tool.label)
            }
            Some(true) => format!("✓ {count}{}", tool.label),
            Some(false) => format!("✗ {count}{}", tool.label),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    fn tool(id: &str, detail: &str, ok: Option<bool>) -> ToolActivity {
        ToolActivity { id: id.to_owned(), name: "Bash".to_owned(), detail: detail.to_owned(), ok }
    }

    fn show(draft: &mut Draft, now: Instant) -> String {
        match draft.next(now) {
            Action::SendFirst(body) | Action::Edit(body) => {
                draft.taken();
                draft.shown(body.clone(), now);
                body.text
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_text_waits_for_a_sentence_and_not_for_ever() {
        let start = Instant::now();
        let mut draft = Draft::new(start, false);
        assert_eq!(draft.next(start), Action::Idle);
        draft.text("Well", at(start, 100));
        assert_eq!(draft.next(at(start, 200)), Action::Wait(at(start, 1600)));
        draft.text(", this is a whole sentence, long enough to show.", at(start, 300));
        assert_eq!(draft.next(at(start, 400)), Action::Wait(at(start, 900)));
        assert_eq!(show(&mut draft, at(start, 900)), "Well, this is a whole sentence, long enough to show.");
        assert_eq!(draft.next(at(start, 9000)), Action::Idle, "the same text is never shown twice");
    }

    #[test]
    fn edits_slow_down_with_age_and_in_groups() {
        for (age, group, pause) in
            [(1, false, 2), (1, true, 3), (40, false, 3), (200, false, 5), (200, true, 5)]
        {
            let start = Instant::now();
            let mut draft = Draft::new(start, group);
            draft.text("one\ntwo", start);
            let shown = at(start, age * 1000);
            show(&mut draft, shown);
            draft.text(" three", shown);
            assert_eq!(draft.next(shown), Action::Wait(at(shown, pause * 1000)), "{age} {group}");
            assert_eq!(show(&mut draft, at(shown, pause * 1000)), "one\ntwo three");
        }
    }

    #[test]
    fn tools_are_one_quiet_line_behind_the_text() {
        let start = Instant::now();
        let mut draft = Draft::new(start, false);
        draft.tool(&tool("a", "ls", None), start);
        assert_eq!(draft.next(start), Action::Wait(at(start, 4000)));
        assert_eq!(show(&mut draft, at(start, 4000)), "🔧 Bash: ls · 4 s");
        assert_eq!(draft.next(at(start, 5000)), Action::Wait(at(start, 19_000)), "seconds alone move slowly");
        draft.tool(&tool("a", "ls", Some(true)), at(start, 5000));
        assert_eq!(show(&mut draft, at(start, 6000)), "✓ Bash: ls");
        draft.text("Found it.", at(start, 6500));
        draft.tool(&tool("b", "cargo test", None), at(start, 7000));
        draft.tool(&tool("c", "cargo doc", None), at(start, 7000));
        assert_eq!(show(&mut draft, at(start, 8000)), "Found it.\n\n🔧 3 tools · Bash: cargo doc");
        draft.tool(&tool("c", "", Some(false)), at(start, 8100));
        assert_eq!(show(&mut draft, at(start, 80_000)), "Found it.\n\n🔧 3 tools · Bash: cargo test · 1 min");
        draft.tool(&tool("b", "", Some(true)), at(start, 80_000));
        draft.text("All done.", at(start, 80_100));
        assert_eq!(show(&mut draft, at(start, 90_000)), "Found it.\n\nAll done.");
    }

    #[test]
    fn a_long_text_shows_its_end_and_stays_within_memory() {
        let start = Instant::now();
        let mut draft = Draft::new(start, false);
        for n in 0..20_000 {
            draft.text(&format!("line {n}\n"), start);
        }
        let text = show(&mut draft, at(start, 5000));
        assert!(text.starts_with("…\n\nline "), "{}", &text[..40]);
        assert!(text.ends_with("line 19999"));
        assert!(text.len() <= ROOM + 10 && text.len() > ROOM / 3, "{}", text.len());
        assert!(draft.text.len() <= KEPT);
    }

    #[test]
    fn after_a_failed_call_it_waits_and_what_is_shown_is_not_certain() {
        let start = Instant::now();
        let mut draft = Draft::new(start, false);
        draft.text("one\ntwo", start);
        show(&mut draft, at(start, 1000));
        assert_eq!(draft.last_shown(), Some(&Rendered::plain("one\ntwo")));
        draft.text(" three", at(start, 1000));
        draft.taken();
        draft.missed(at(start, 5000));
        assert_eq!(draft.last_shown(), None);
        assert_eq!(draft.next(at(start, 4000)), Action::Wait(at(start, 5000)));
        assert_eq!(show(&mut draft, at(start, 5000)), "one\ntwo three");
    }

    #[test]
    fn a_notice_is_shown_until_words_follow() {
        let start = Instant::now();
        let mut draft = Draft::new(start, false);
        draft.notice("The model is busy; trying again");
        assert_eq!(show(&mut draft, start), "ℹ️ The model is busy; trying again");
        draft.text("Here.", at(start, 100));
        assert_eq!(show(&mut draft, at(start, 3000)), "Here.");
    }
}
