//! Numbers, times and foreign text as a person reads them. Pure.

use std::fmt;

/// Text from outside, safe inside HTML elements and quoted attributes: what would be markup is escaped, and what would
/// be invisible or reorder the line is shown as a symbol.
pub(super) struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' => f.write_char('↵')?,
                _ if is_hidden(character) => write!(f, "‹U+{:04X}›", u32::from(character))?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// Characters that show nothing or turn the text around them. Joiners stay: words and emoji need them.
fn is_hidden(character: char) -> bool {
    matches!(character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// A span of time in its largest unit: `40 s`, `5 min`, `3 h`, `2 d`.
pub(super) fn span(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min", s / 60),
        s @ 3600..86_400 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// How long ago; the clock may have been set back meanwhile.
pub(super) fn ago(at: i64, now: i64) -> String {
    if now.saturating_sub(at) < 5 {
        "just now".to_owned()
    } else {
        format!("{} ago", span(now.saturating_sub(at)))
    }
}

/// An exact time for `datetime` and tooltips.
pub(super) fn exact(at: i64) -> String {
    jiff::Timestamp::from_second(at).map_or_else(|_| at.to_string(), |time| time.to_string())
}

/// Tokens: `812`, `48.2k`, `1.9M`.
pub(super) fn tokens(count: u64) -> String {
    scaled(count, 1000, ["", "k", "M", "G"])
}

/// Bytes: `180 MiB`, `1.5 GiB`.
pub(super) fn bytes(count: u64) -> String {
    scaled(count, 1024, [" B", " KiB", " MiB", " GiB"])
}

/// Three digits at most, in the largest unit that fits.
fn scaled(count: u64, step: u64, units: [&str; 4]) -> String {
    let mut unit = 1;
    let mut name = units[0];
    for next in &units[1..] {
        if count / unit < step {
            break;
        }
        unit *= step;
        name = next;
    }
    let tenths = count / unit * 10 + count % unit * 10 / unit;
    if unit == 1 || tenths >= 1000 {
        format!("{}{name}", count / unit)
    } else {
        format!("{}.{}{name}", tenths / 10, tenths % 10)
    }
}

/// Money: `$1.23`, `under $0.01`.
pub(super) fn dollars(micros: u64) -> String {
    match micros {
        0 => "$0".to_owned(),
        1..10_000 => "under $0.01".to_owned(),
        _ => format!("${}.{:02}", micros / 1_000_000, micros % 1_000_000 / 10_000),
    }
}

/// `1 run`, `2 runs`.
pub(super) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_can_neither_mark_up_nor_hide_nor_turn() {
        let cases = [
            ("<script>'\"&", "&lt;script&gt;&#39;&quot;&amp;"),
            ("a\u{202e}b\u{2066}c", "a‹U+202E›b‹U+2066›c"),
            ("\u{1b}[31m\r\n\0\u{7f}", "‹U+001B›[31m‹U+000D›↵‹U+0000›‹U+007F›"),
            ("\u{200b}\u{feff}\u{9b}\u{e0041}", "‹U+200B›‹U+FEFF›‹U+009B›‹U+E0041›"),
            ("مرحبا 👩‍💻 ñ", "مرحبا 👩‍💻 ñ"),
        ];
        for (given, expected) in cases {
            assert_eq!(Plain(given).to_string(), expected);
        }
    }

    #[test]
    fn numbers_are_short() {
        for (count, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (48_210, "48.2k"),
            (412_000, "412k"),
            (1_920_431, "1.9M"),
        ] {
            assert_eq!(tokens(count), expected);
        }
        for (count, expected) in
            [(512, "512 B"), (188_743_680, "180 MiB"), (1 << 30, "1.0 GiB"), (u64::MAX, "17179869183 GiB")]
        {
            assert_eq!(bytes(count), expected);
        }
        for (micros, expected) in
            [(0, "$0"), (9_999, "under $0.01"), (1_234_567, "$1.23"), (41_870_000, "$41.87")]
        {
            assert_eq!(dollars(micros), expected);
        }
        for (seconds, expected) in
            [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (7300, "2 h"), (i64::MAX, "106751991167300 d")]
        {
            assert_eq!(span(seconds), expected);
        }
        assert_eq!(ago(100, 102), "just now");
        assert_eq!(ago(100, 50), "just now", "a clock set back");
    }
}
