//! Compiles a table into a balanced decision tree over call numbers.

use std::collections::BTreeMap;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS,
};
use seccompiler::sock_filter;

use super::{Answer, Condition, Rule, Table};

/// A program for the kernel.
pub(crate) type Program = Vec<sock_filter>;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// Offsets in the kernel's `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Numbers that x86_64 kernels take for the x32 convention, where they would name the same calls past every rule.
/// No other architecture has calls there.
const X32: std::ops::Range<u32> = 0x4000_0000..0x8000_0000;

fn op(code: u32, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // Every code is built from constants below 256.
    sock_filter { code: (code & 0xffff) as u16, jt, jf, k }
}

fn load(offset: u32) -> sock_filter {
    op(BPF_LD | BPF_W | BPF_ABS, offset)
}

pub(super) fn compile(table: &Table, default: Answer) -> Program {
    let mut program = vec![
        load(ARCH),
        jump(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
        op(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    program.extend(tree(&ranges(table, &default)));
    program
}

/// The whole number space as ascending starts, neighbours with equal answers joined.
fn ranges(table: &Table, default: &Answer) -> Vec<(u32, Answer)> {
    let mut starts = BTreeMap::from([(0_u32, default.clone())]);
    if cfg!(target_arch = "x86_64") {
        starts.insert(X32.start, Answer::Kill);
        starts.insert(X32.end, default.clone());
    }
    for (number, answer) in table {
        let Ok(number) = u32::try_from(*number) else { continue };
        starts.insert(number, answer.clone());
    }
    for (number, _) in table {
        let Ok(number) = u32::try_from(*number) else { continue };
        starts.entry(number + 1).or_insert_with(|| default.clone());
    }
    let mut joined: Vec<(u32, Answer)> = Vec::new();
    for (start, answer) in starts {
        if joined.last().is_none_or(|(_, last)| *last != answer) {
            joined.push((start, answer));
        }
    }
    joined
}

fn tree(ranges: &[(u32, Answer)]) -> Program {
    match ranges {
        [] => Vec::new(),
        [(_, answer)] => block(answer),
        _ => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let (below, above) = (tree(left), tree(right));
            let mut program = branch(right[0].0, below.len());
            program.extend(below);
            program.extend(above);
            program
        }
    }
}

/// Skips `length` instructions when the number is at least `start`.
fn branch(start: u32, length: usize) -> Program {
    match u8::try_from(length) {
        Ok(short) => vec![jump(BPF_JMP | BPF_JGE | BPF_K, start, short, 0)],
        // Conditional jumps reach 255 instructions; the plain one reaches all.
        Err(_) => {
            let far = u32::try_from(length).unwrap_or(u32::MAX);
            vec![jump(BPF_JMP | BPF_JGE | BPF_K, start, 0, 1), op(BPF_JMP | BPF_JA, far)]
        }
    }
}

/// Instructions that end in the answer.
fn block(answer: &Answer) -> Program {
    match answer {
        Answer::Allow => vec![op(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)],
        Answer::Error(errno) => {
            vec![op(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (errno.cast_unsigned() & 0xffff))]
        }
        Answer::Kill => vec![op(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)],
        Answer::Look(rules, otherwise) => {
            let mut program: Program = rules.iter().flat_map(rule).collect();
            program.extend(block(otherwise));
            program
        }
    }
}

/// Falls through to the end when a condition fails.
fn rule(rule: &Rule) -> Program {
    let mut program = block(&rule.answer);
    for condition in rule.conditions.iter().rev() {
        // Answers and conditions are a few instructions each: far below the reach of a conditional jump.
        let over = u8::try_from(program.len()).unwrap_or(u8::MAX);
        let mut test = match *condition {
            Condition::Low { argument, mask, value } => vec![
                load(low(argument)),
                op(BPF_ALU | BPF_AND | BPF_K, mask),
                jump(BPF_JMP | BPF_JEQ | BPF_K, value, 0, over),
            ],
            Condition::AnyOf { argument, bits } => {
                vec![load(low(argument)), jump(BPF_JMP | BPF_JSET | BPF_K, bits, 0, over)]
            }
            Condition::NotNull { argument } => vec![
                load(low(argument)),
                jump(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 2),
                load(low(argument) + 4),
                jump(BPF_JMP | BPF_JEQ | BPF_K, 0, over, 0),
            ],
        };
        test.append(&mut program);
        program = test;
    }
    program
}

/// Both architectures are little-endian: the low half comes first.
fn low(argument: u8) -> u32 {
    ARGUMENTS + 8 * u32::from(argument)
}

#[cfg(test)]
#[path = "bpf_tests.rs"]
mod tests;
