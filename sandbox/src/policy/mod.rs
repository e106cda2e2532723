//! System calls as data, and the small compiler that turns the data into kernel programs.
//!
//! One answer per call: allowed, an error, or a look at one or two arguments. What no table names is `ENOSYS`, so that
//! a call which future kernels add is absent from a cell instead of open. `seccompiler` installs the programs; it does
//! not compile them because its programs are a chain with one default and one other answer, and a chain over some
//! three hundred calls costs a fifth of a whole launch when the kernel walks it for its action cache.

mod bpf;
pub(crate) mod cell;
mod helper;
mod reaper;

pub(crate) use bpf::Program;

/// The three programs of the crate.
pub(crate) struct Policies {
    /// For the command and everything it starts.
    pub(crate) cell: Program,
    /// For the cell's first process.
    pub(crate) reaper: Program,
    /// For the helper, and so underneath every cell's own.
    pub(crate) helper: Program,
}

impl Policies {
    pub(crate) fn compile() -> Policies {
        Policies {
            cell: bpf::compile(&cell::table(), Answer::Error(libc::ENOSYS)),
            reaper: bpf::compile(&reaper::table(), Answer::Error(libc::EPERM)),
            helper: bpf::compile(&helper::table(), Answer::Allow),
        }
    }
}

/// What the kernel does with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Allow,
    Error(i32),
    /// Ends the process; for numbers of the x32 convention.
    Kill,
    /// The first rule whose conditions all hold gives the answer; if none does, the second field.
    Look(Vec<Rule>, Box<Answer>),
}

/// Conditions on arguments, and the answer when all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) answer: Answer,
}

/// A condition on the low or high half of one argument. Flags and families are `int`s: the kernel looks at 32 bits,
/// so a filter that compared 64 could be passed with garbage above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// `argument & mask == value` on the low half.
    Low { argument: u8, mask: u32, value: u32 },
    /// The argument is not zero, in either half.
    NotNull { argument: u8 },
    /// Some of these bits of the low half are set.
    AnyOf { argument: u8, bits: u32 },
}

/// A table: number and answer of each call named.
pub(crate) type Table = Vec<(i64, Answer)>;
