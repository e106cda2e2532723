//! What the helper denies itself. Cells inherit it, so it holds only what no cell's start needs.
//!
//! `CAP_SETUID` could make a taken-over helper any user of the host. Writing uid maps needs the capability but none
//! of the calls that change the caller's own ids; a starting cell needs exactly one: to become 1000 of its namespace.

use libc::*;

use super::{Answer, Condition, Rule, Table};
use crate::steps::INSIDE_ID;

/// Never needed by the helper or by a cell's start.
#[rustfmt::skip]
const REFUSED: &[i64] = &[
    SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setfsuid, SYS_setfsgid, SYS_setgroups,
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_pidfd_getfd, SYS_bpf, SYS_perf_event_open,
    SYS_init_module, SYS_finit_module, SYS_kexec_load, SYS_reboot, SYS_swapon, SYS_open_by_handle_at, SYS_setns,
];

pub(super) fn table() -> Table {
    let mut table: Table = REFUSED.iter().map(|number| (*number, Answer::Error(EPERM))).collect();
    let is_inside = |argument| Condition::Low { argument, mask: u32::MAX, value: INSIDE_ID };
    for number in [SYS_setresuid, SYS_setresgid] {
        let conditions = (0..3).map(is_inside).collect();
        let allowed = Rule { conditions, answer: Answer::Allow };
        table.push((number, Answer::Look(vec![allowed], Box::new(Answer::Error(EPERM)))));
    }
    table
}
