//! Bytes to lines, with a limit. Pure.
//!
//! Called by `pump`. Invariants: never holds more than the limit plus one chunk; a line over the limit is skipped to its
//! newline and reported once; the memory of a huge line is given back after it.

/// The longest line that is read, in bytes. A tool's result comes as one line, with an image in it perhaps; nothing
/// honest is longer.
pub(super) const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// What the buffer keeps allocated between lines, in bytes.
const KEPT: usize = 64 * 1024;

/// Collects chunks and hands out whole lines.
#[derive(Debug)]
pub(super) struct Lines {
    limit: usize,
    partial: Vec<u8>,
    /// Bytes of the present line that were thrown away; 0 while it is within the limit.
    dropped: usize,
}

/// One line, or the trace of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Its bytes, without the newline. Never empty.
    Whole(&'a [u8]),
    /// It was longer than the limit.
    Oversized {
        /// Its length in bytes, without the newline.
        length: usize,
    },
}

impl Lines {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, partial: Vec::new(), dropped: 0 }
    }

    /// Takes a chunk and gives every line it completes to `each`. Empty lines are passed over.
    pub(super) fn push(&mut self, chunk: &[u8], mut each: impl FnMut(Line<'_>)) {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (piece, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            self.complete(piece, &mut each);
        }
        self.keep(rest);
    }

    /// Gives the last line when the stream ended without a newline.
    pub(super) fn finish(&mut self, mut each: impl FnMut(Line<'_>)) {
        self.complete(&[], &mut each);
    }

    fn complete(&mut self, piece: &[u8], each: &mut impl FnMut(Line<'_>)) {
        if self.partial.is_empty() && self.dropped == 0 && piece.len() <= self.limit {
            // The whole line lies in the chunk: no copy.
            if !piece.is_empty() {
                each(Line::Whole(piece));
            }
            return;
        }
        self.keep(piece);
        if self.dropped > 0 {
            each(Line::Oversized { length: self.dropped });
            self.dropped = 0;
        } else if !self.partial.is_empty() {
            each(Line::Whole(&self.partial));
        }
        self.partial.clear();
        if self.partial.capacity() > KEPT {
            self.partial.shrink_to(KEPT);
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.dropped > 0 || self.partial.len() + piece.len() > self.limit {
            self.dropped += self.partial.len() + piece.len();
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Seen {
        Whole(Vec<u8>),
        Oversized(usize),
    }

    fn own(line: Line<'_>) -> Seen {
        match line {
            Line::Whole(bytes) => Seen::Whole(bytes.to_vec()),
            Line::Oversized { length } => Seen::Oversized(length),
        }
    }

    fn run<'a>(limit: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Seen> {
        let mut lines = Lines::new(limit);
        let mut seen = Vec::new();
        for chunk in chunks {
            lines.push(chunk, |line| seen.push(own(line)));
            assert!(lines.partial.len() <= limit);
        }
        lines.finish(|line| seen.push(own(line)));
        seen
    }

    #[test]
    fn lines_are_found_whatever_the_chunks() {
        let whole = |text: &str| Seen::Whole(text.as_bytes().to_vec());
        let cases: [(&[&str], Vec<Seen>); 7] = [
            (&["a\nb\n"], vec![whole("a"), whole("b")]),
            (&["a", "b\n", "", "c"], vec![whole("ab"), whole("c")]),
            (&["\n\n", "\n"], vec![]),
            (&["12345678\n"], vec![whole("12345678")]),
            (&["123456789\nx\n"], vec![Seen::Oversized(9), whole("x")]),
            (&["12345", "6789", "0\nx"], vec![Seen::Oversized(10), whole("x")]),
            (&["123456789"], vec![Seen::Oversized(9)]),
        ];
        for (chunks, expected) in cases {
            assert_eq!(run(8, chunks.iter().map(|c| c.as_bytes())), expected, "{chunks:?}");
        }
    }

    #[test]
    fn the_memory_of_a_huge_line_is_given_back() {
        let mut lines = Lines::new(LONGEST_LINE);
        let half = vec![b'x'; 4 * 1024 * 1024];
        lines.push(&half, |_| {});
        lines.push(&half, |_| {});
        lines.push(b"\n", |line| assert_eq!(line, Line::Whole(&vec![b'x'; 8 * 1024 * 1024])));
        assert!(lines.partial.capacity() <= KEPT, "{}", lines.partial.capacity());
    }

    proptest! {
        #[test]
        fn chunking_makes_no_difference(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400),
            cuts in proptest::collection::vec(1_usize..40, 1..40),
            limit in 1_usize..60,
        ) {
            let mut chunks = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, after) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            let expected: Vec<Seen> = bytes
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| if line.len() > limit { Seen::Oversized(line.len()) } else { Seen::Whole(line.to_vec()) })
                .collect();
            prop_assert_eq!(run(limit, chunks), expected);
        }
    }
}
