//! What this machine offers, as the helper found it by trying, and the tier that follows from it.
//!
//! Invariant: a layer is reported as present only if the helper used it in a complete trial launch.

use std::fmt;

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::report::{Enforced, Step, StepError};

/// How much of the wall stands. A higher number is a weaker wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Everything: namespaces, a uid per agent, cgroup limits, seccomp, Landlock with scopes.
    T0,
    /// Landlock is absent or too old for scopes: namespaces give the same properties, but alone.
    T1,
    /// Also no memory cgroup: a limit per process instead of one for the cell.
    T2,
    /// Also one host uid for all agents.
    T3,
    /// No usable user namespaces: no agent may start.
    T4,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Tier::T0 => "T0 (all layers)",
            Tier::T1 => "T1 (Landlock missing or old)",
            Tier::T2 => "T2 (no memory limit per cell)",
            Tier::T3 => "T3 (agents share one host user)",
            Tier::T4 => "T4 (no sandbox possible)",
        };
        f.write_str(text)
    }
}

/// The Landlock version that brings scopes for signals and abstract sockets.
pub const LANDLOCK_WITH_SCOPES: u32 = 6;

/// What the helper found when it started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HelperReport {
    /// The helper's own (and so the daemon's) host uid.
    pub helper_uid: u32,
    /// `CAP_SETUID`, `CAP_SETGID` and `CAP_CHOWN` are held: every agent can have its own host uid.
    pub per_agent_uids: bool,
    /// Landlock ABI of the running kernel; `None`: not built in or not switched on.
    pub landlock: Option<u32>,
    /// Controllers that a cell's cgroup really gets.
    pub controllers: Vec<String>,
    /// Why the configured cgroup cannot be used; `None`: usable, or none configured.
    pub cgroup_problem: Option<String>,
    /// A cgroup subtree was configured.
    pub cgroup_configured: bool,
    /// `cgroup.kill` is there.
    pub cgroup_kill: bool,
    /// A trial launch of a cell, with everything but a workspace: what held it, or where it stopped.
    pub trial: Option<Result<Enforced, StepError>>,
}

impl HelperReport {
    /// A user namespace with all the others could be made and used.
    #[must_use]
    pub fn user_namespaces(&self) -> bool {
        matches!(self.trial, Some(Ok(_)))
    }

    /// The named cgroup controller holds cells.
    #[must_use]
    pub fn has_controller(&self, name: &str) -> bool {
        self.controllers.iter().any(|held| held == name)
    }

    /// The tier of this machine.
    #[must_use]
    pub fn tier(&self) -> Tier {
        if !self.user_namespaces() {
            Tier::T4
        } else if !self.per_agent_uids {
            Tier::T3
        } else if !self.has_controller("memory") || !self.has_controller("pids") {
            Tier::T2
        } else if self.landlock.is_none_or(|abi| abi < LANDLOCK_WITH_SCOPES) {
            Tier::T1
        } else {
            Tier::T0
        }
    }

    /// Every missing layer in plain words, each with its fix.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut list = Vec::new();
        if let Some(Err(failed)) = &self.trial {
            list.push(format!("a trial launch failed at {failed}. {}", trial_fix(failed)));
        }
        if !self.per_agent_uids {
            list.push(
                "agents share one host user: start the service with AmbientCapabilities=CAP_SETUID CAP_SETGID \
                 CAP_CHOWN to give each its own"
                    .to_owned(),
            );
        }
        if let Some(problem) = &self.cgroup_problem {
            list.push(format!("the cgroup subtree cannot be used: {problem}. The unit needs Delegate=yes"));
        } else if !self.cgroup_configured {
            list.push(
                "no cgroup subtree: run under systemd with Delegate=yes for limits per cell".to_owned(),
            );
        } else {
            if !self.has_controller("memory") {
                list.push(
                    "no memory limit per cell: the kernel has the memory cgroup switched off (on a Raspberry Pi add \
                     cgroup_enable=memory to cmdline.txt and reboot). Each process is limited instead"
                        .to_owned(),
                );
            }
            for name in ["pids", "cpu"] {
                if !self.has_controller(name) {
                    list.push(format!("no {name} limit per cell: the controller is not delegated"));
                }
            }
            if !self.cgroup_kill {
                list.push(
                    "no cgroup.kill (kernel before 5.14): cells end by killing their first process".into(),
                );
            }
        }
        match self.landlock {
            None => list.push("no Landlock: the kernel lacks it or it is not in the lsm= list".to_owned()),
            Some(abi) if abi < LANDLOCK_WITH_SCOPES => list.push(format!(
                "Landlock ABI {abi}: scopes for signals and abstract sockets need {LANDLOCK_WITH_SCOPES} (kernel 6.12)"
            )),
            Some(_) => {}
        }
        list
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.u32(self.helper_uid).flag(self.per_agent_uids).option_u64(self.landlock.map(u64::from));
        out.length(self.controllers.len());
        for name in &self.controllers {
            out.text(name);
        }
        out.flag(self.cgroup_problem.is_some()).text(self.cgroup_problem.as_deref().unwrap_or(""));
        out.flag(self.cgroup_configured).flag(self.cgroup_kill);
        match &self.trial {
            None => out.u8(0),
            Some(Ok(_)) => out.u8(1),
            Some(Err(_)) => out.u8(2),
        };
        match &self.trial {
            None => {}
            Some(Ok(found)) => found.encode(out),
            Some(Err(failed)) => failed.encode(out),
        }
    }

    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<HelperReport, DecodeError> {
        let mut found = HelperReport { helper_uid: input.u32()?, ..HelperReport::default() };
        found.per_agent_uids = input.flag()?;
        found.landlock = input.option_u64()?.and_then(|abi| u32::try_from(abi).ok());
        for _ in 0..input.count(16)? {
            found.controllers.push(input.text()?.to_owned());
        }
        let (problem, text) = (input.flag()?, input.text()?.to_owned());
        found.cgroup_problem = problem.then_some(text);
        found.cgroup_configured = input.flag()?;
        found.cgroup_kill = input.flag()?;
        found.trial = match input.u8()? {
            0 => None,
            1 => Some(Ok(Enforced::decode(input)?)),
            2 => Some(Err(StepError::decode(input)?)),
            _ => return Err(DecodeError::BadValue),
        };
        Ok(found)
    }
}

/// The fix for the usual reasons why a machine refuses user namespaces.
fn trial_fix(failed: &StepError) -> String {
    let sysctl = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    if sysctl("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return "Ubuntu's AppArmor forbids it to programs without a profile: install the shipped profile for \
                skep-sandbox (it holds the rule `userns,`), or set kernel.apparmor_restrict_unprivileged_userns=0"
            .to_owned();
    }
    if sysctl("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return "Set user.max_user_namespaces to a number above 0 with sysctl".to_owned();
    }
    if sysctl("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return "Set kernel.unprivileged_userns_clone=1 with sysctl".to_owned();
    }
    match failed.step {
        Step::Proc => {
            "Mounts over parts of /proc are in the way: the unit must not hide them, and a container \
                       must allow nested /proc mounts"
                .to_owned()
        }
        Step::Namespaces | Step::UidMap => {
            "Inside a container the host must allow nested user namespaces".to_owned()
        }
        _ => "Agents cannot be started on this machine until this works".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> HelperReport {
        HelperReport {
            per_agent_uids: true,
            landlock: Some(7),
            controllers: ["cpu", "memory", "pids"].map(str::to_owned).to_vec(),
            cgroup_configured: true,
            cgroup_kill: true,
            trial: Some(Ok(Enforced::default())),
            ..HelperReport::default()
        }
    }

    #[test]
    fn each_missing_layer_lowers_the_tier_and_is_named() {
        assert_eq!((full().tier(), full().missing()), (Tier::T0, Vec::new()));
        type Change = fn(&mut HelperReport);
        let table: [(Tier, Change, &str); 6] = [
            (Tier::T1, |r| r.landlock = None, "no Landlock"),
            (Tier::T1, |r| r.landlock = Some(2), "Landlock ABI 2"),
            (Tier::T2, |r| r.controllers.retain(|c| c != "memory"), "cgroup_enable=memory"),
            (Tier::T2, |r| r.controllers.retain(|c| c != "pids"), "pids"),
            (Tier::T3, |r| r.per_agent_uids = false, "AmbientCapabilities"),
            (
                Tier::T4,
                |r| r.trial = Some(Err(StepError::check(Step::Namespaces, "clone"))),
                "a trial launch failed",
            ),
        ];
        for (tier, change, words) in table {
            let mut report = full();
            change(&mut report);
            assert_eq!(report.tier(), tier, "{words}");
            assert!(report.missing().iter().any(|line| line.contains(words)), "{words}");
            let mut encoder = Encoder::default();
            report.encode(&mut encoder);
            assert_eq!(HelperReport::decode(&mut Decoder::new(&encoder.finish())), Ok(report));
        }
    }
}
