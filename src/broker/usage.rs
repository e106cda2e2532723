//! Tokens of one answer, counted from its bytes as they pass. Pure.
//!
//! A stream of server-sent events says them in `message_start` (what the prompt took) and `message_delta` (what was
//! written so far); a whole answer says them in its `usage`. Bytes may be cut anywhere.
//!
//! Invariant: memory stays under [`EVENT_LIMIT`] or [`WHOLE_LIMIT`] whatever comes; larger things are not counted.

use serde::Deserialize;

use crate::model::Usage;

/// Bytes of one event that are looked at. The counted ones have a few hundred.
const EVENT_LIMIT: usize = 64 * 1024;
/// Bytes of an answer that does not stream. The longest answers of today's models have half of it.
const WHOLE_LIMIT: usize = 1024 * 1024;

/// Counts one answer.
#[derive(Debug)]
pub(super) struct Counter {
    shape: Shape,
    counted: Counted,
}

/// What an answer said about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// The model that answered; empty when none was named.
    pub model: String,
    /// Its tokens; no cost.
    pub usage: Usage,
}

#[derive(Debug)]
enum Shape {
    Events(Events),
    Whole { text: Vec<u8>, overflown: bool },
    Uncounted,
}

impl Counter {
    /// A counter for an answer with this status and `content-type`.
    pub(super) fn new(status: u16, content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let shape = if !(200..300).contains(&status) {
            Shape::Uncounted
        } else if kind.eq_ignore_ascii_case("text/event-stream") {
            Shape::Events(Events::default())
        } else if kind.eq_ignore_ascii_case("application/json") {
            Shape::Whole { text: Vec::new(), overflown: false }
        } else {
            Shape::Uncounted
        };
        Self { shape, counted: Counted::default() }
    }

    /// Takes the next bytes. Returns whether the answer has said its last word about tokens.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> bool {
        match &mut self.shape {
            Shape::Events(events) => events.feed(bytes, &mut self.counted),
            Shape::Whole { text, overflown } => {
                if *overflown || text.len() + bytes.len() > WHOLE_LIMIT {
                    *overflown = true;
                    *text = Vec::new();
                } else {
                    text.extend_from_slice(bytes);
                }
                false
            }
            Shape::Uncounted => false,
        }
    }

    /// The answer has ended, whole or not.
    pub(super) fn finish(&mut self) -> Counted {
        match &mut self.shape {
            Shape::Events(events) => {
                events.end_line(&mut self.counted);
                events.dispatch(&mut self.counted);
            }
            Shape::Whole { text, .. } => {
                if let Ok(message) = serde_json::from_slice::<Message>(text) {
                    self.counted.message(message);
                }
            }
            Shape::Uncounted => {}
        }
        self.shape = Shape::Uncounted;
        std::mem::take(&mut self.counted)
    }
}

/// Server-sent events, cut anywhere; lines end with CR, LF or both.
#[derive(Debug, Default)]
struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    /// The line or event is over the limit: skipped to its end.
    line_overflown: bool,
    data_overflown: bool,
    after_cr: bool,
    stopped: bool,
}

impl Events {
    fn feed(&mut self, mut bytes: &[u8], counted: &mut Counted) -> bool {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            if self.line_overflown || self.line.len() + piece.len() > EVENT_LIMIT {
                self.line_overflown = true;
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(piece);
            }
            let Some(end) = end else { break };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end_line(counted);
        }
        self.stopped
    }

    fn end_line(&mut self, counted: &mut Counted) {
        if std::mem::take(&mut self.line_overflown) {
            self.data_overflown = true;
        } else if self.line.is_empty() {
            self.dispatch(counted);
        } else if let Some(value) = self.line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            if self.data.len() + value.len() > EVENT_LIMIT {
                self.data_overflown = true;
            } else {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
        }
        self.line.clear();
    }

    fn dispatch(&mut self, counted: &mut Counted) {
        // Nearly every event is a piece of text: those are told apart without reading them as JSON.
        let overflown = std::mem::take(&mut self.data_overflown);
        if !overflown && self.data.windows(8).any(|w| w == b"message_") {
            match serde_json::from_slice::<Event>(&self.data) {
                Ok(Event::MessageStart { message }) => counted.message(message),
                Ok(Event::MessageDelta { usage }) => counted.tokens(usage),
                Ok(Event::MessageStop) => self.stopped = true,
                Ok(Event::Other) | Err(_) => {}
            }
        }
        self.data.clear();
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    MessageStart {
        message: Message,
    },
    MessageDelta {
        #[serde(default)]
        usage: Tokens,
    },
    MessageStop,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    model: String,
    #[serde(default)]
    usage: Tokens,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tokens {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

impl Counted {
    fn message(&mut self, message: Message) {
        self.model = message.model;
        self.model.truncate(floor_boundary(&self.model, 100));
        self.tokens(message.usage);
    }

    /// Every number is cumulative: the largest is the latest.
    fn tokens(&mut self, tokens: Tokens) {
        let raise = |so_far: &mut u64, said: Option<u64>| *so_far = (*so_far).max(said.unwrap_or(0));
        raise(&mut self.usage.input, tokens.input_tokens);
        raise(&mut self.usage.output, tokens.output_tokens);
        raise(&mut self.usage.cache_read, tokens.cache_read_input_tokens);
        raise(&mut self.usage.cache_write, tokens.cache_creation_input_tokens);
    }
}

/// The longest beginning of at most `limit` bytes that is whole characters.
fn floor_boundary(text: &str, limit: usize) -> usize {
    (0..=limit.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = concat!(
        "event: message_start\r\n",
        r#"data: {"type":"message_start","message":{"id":"m","model":"claude-x","content":[],"usage":"#,
        r#"{"input_tokens":12,"cache_creation_input_tokens":3,"cache_read_input_tokens":4000,"output_tokens":1}}}"#,
        "\r\n\r\nevent: ping\ndata: {\"type\": \"ping\"}\n\n: a comment\n\n",
        r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"say message_stop, "}}"#,
        "\n\nevent: message_delta\rdata: {\"type\":\"message_delta\",\rdata: \"delta\":{},\"usage\":{\"output_tokens\":77}}\r\r",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );

    fn whole_stream() -> Counted {
        Counted {
            model: "claude-x".to_owned(),
            usage: Usage { input: 12, output: 77, cache_read: 4000, cache_write: 3, cost_micros: 0 },
        }
    }

    fn count(status: u16, kind: &str, pieces: &[&[u8]]) -> Counted {
        let mut counter = Counter::new(status, kind);
        for piece in pieces {
            counter.feed(piece);
        }
        counter.finish()
    }

    #[test]
    fn a_stream_is_counted_and_says_when_it_is_complete() {
        let mut counter = Counter::new(200, "text/event-stream; charset=utf-8");
        let (most, last) = STREAM.split_at(STREAM.len() - 1);
        assert!(!counter.feed(most.as_bytes()));
        assert!(counter.feed(last.as_bytes()));
        assert_eq!(counter.finish(), whole_stream());
    }

    #[test]
    fn a_stream_cut_off_midway_keeps_what_it_said() {
        let cut = STREAM.find("event: message_delta").unwrap();
        let expected = Usage { output: 1, ..whole_stream().usage };
        let counted = count(200, "text/event-stream", &[&STREAM.as_bytes()[..cut + 40]]);
        assert_eq!(counted, Counted { usage: expected, ..whole_stream() });
    }

    #[test]
    fn whole_answers_failures_and_strange_answers_have_their_counts() {
        let json = br#"{"type":"message","model":"m","content":[{"type":"text","text":"x"}],"usage":{"input_tokens":5,
            "output_tokens":6,"cache_read_input_tokens":null,"server_tool_use":{"web_search_requests":1}}}"#;
        let counted =
            Counted { model: "m".to_owned(), usage: Usage { input: 5, output: 6, ..Usage::default() } };
        let cases: [(u16, &str, &[u8], Counted); 6] = [
            (200, "application/json", json, counted),
            (529, "application/json", json, Counted::default()),
            (200, "application/json", b"{\"usage\":", Counted::default()),
            (200, "text/html", b"<html>", Counted::default()),
            (200, "text/event-stream", b"data: nonsense message_start\n\n", Counted::default()),
            (
                200,
                "text/event-stream",
                b"data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":-1}}\n\n",
                Counted::default(),
            ),
        ];
        for (status, kind, body, expected) in cases {
            assert_eq!(count(status, kind, &[body]), expected, "{status} {kind}");
        }
    }

    #[test]
    fn giant_events_and_answers_are_skipped_in_bounded_memory() {
        let mut counter = Counter::new(200, "text/event-stream");
        counter.feed(b"data: {\"type\":\"message_start\",");
        for _ in 0..100 {
            counter.feed(&[b'x'; 10_000]);
            let Shape::Events(events) = &counter.shape else { unreachable!() };
            assert!(events.line.capacity() + events.data.capacity() <= 4 * EVENT_LIMIT);
        }
        counter.feed(b"\n\n");
        counter.feed(STREAM.as_bytes());
        assert_eq!(counter.finish(), whole_stream(), "what follows is counted");

        let mut counter = Counter::new(200, "application/json");
        for _ in 0..200 {
            counter.feed(&[b' '; 10_000]);
        }
        let Shape::Whole { text, .. } = &counter.shape else { unreachable!() };
        assert_eq!(text.capacity(), 0);
        assert_eq!(counter.finish(), Counted::default());
    }

    proptest! {
        #[test]
        fn the_count_does_not_depend_on_where_the_stream_is_cut(
            cuts in proptest::collection::vec(0..STREAM.len(), 0..20)
        ) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&STREAM.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&STREAM.as_bytes()[from..]);
            prop_assert_eq!(count(200, "text/event-stream", &pieces), whole_stream());
        }

        #[test]
        fn no_bytes_upset_the_counter(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
            count(200, "text/event-stream", &pieces);
            count(200, "application/json", &pieces);
        }
    }
}
