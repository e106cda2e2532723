//! Step "nested namespace ban": the new user namespace may have no children, ever.
//!
//! A child user namespace would give back full capabilities over itself, and with them the mount calls that undo
//! read-only binds. One write bans it in the kernel, besides the seccomp rule. It must go through the old `/proc`,
//! which the next step detaches: the cell's own has no `sys`. The limit belongs to this namespace, not to the host.

use super::{At, Done};
use crate::report::Step;

pub(crate) fn ban() -> Done {
    std::fs::write("/proc/sys/user/max_user_namespaces", "0")
        .at(Step::NestedBan, "write 0 to user.max_user_namespaces")
}
