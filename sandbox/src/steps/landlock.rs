//! Step "landlock": a second lock on the file system, on signals and on abstract sockets, where the kernel has it.
//!
//! No property of the cell rests on it alone. It grants what the mounts grant, no less and no more; it also makes
//! every later mount call fail. TCP is left to the empty network namespace: a rule for the broker's port alone would
//! only break servers that an agent starts and talks to inside its own cell.

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::{Done, Plan};
use crate::report::{Step, StepError};

/// Places an agent may write to.
const WRITABLE: [&str; 4] = ["/workspace", "/home/agent", "/tmp", "/dev/shm"];

pub(crate) fn restrict(plan: &Plan<'_>) -> Done {
    if plan.landlock.is_none() {
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| StepError::check(Step::Landlock, error.to_string());
    let abi = ABI::V6;
    let read = AccessFs::from_read(abi);
    let file: BitFlags<AccessFs> = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .map_err(|error| failed(&error))?;
    let mut rules = rules;
    let everywhere = [("/", read), ("/dev", read | file), ("/proc", read | file)];
    let writable = WRITABLE.map(|path| (path, AccessFs::from_all(abi)));
    for (path, access) in everywhere.into_iter().chain(writable) {
        let place = PathFd::new(path).map_err(|error| failed(&error))?;
        rules = rules.add_rule(PathBeneath::new(place, access)).map_err(|error| failed(&error))?;
    }
    let status = rules.restrict_self().map_err(|error| failed(&error))?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(failed(&"the kernel offers Landlock but did not enforce it"));
    }
    Ok(())
}
