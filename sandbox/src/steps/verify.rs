//! Steps "canary" and "verify": was it really applied?
//!
//! From inside, just before exec and under every lock, the command's process tries what must fail. From outside, the
//! helper reads in `/proc` what the kernel says about that same process, and only then lets it execute.

use std::path::Path;

use super::{At, Done, Plan};
use crate::report::{Enforced, NAMESPACES, Step, StepError};
use crate::sys;

/// What the trial from inside found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inside {
    pub(crate) nested_refused: bool,
    pub(crate) canary_hidden: Option<bool>,
}

pub(crate) fn from_inside(plan: &Plan<'_>) -> Done<Inside> {
    let nested_refused = sys::unshare_user().is_err();
    let canary_hidden = plan.canary.map(|path| std::fs::File::open(path).is_err());
    if canary_hidden == Some(false) {
        return Err(StepError::check(Step::Canary, "the canary outside the cell could be read"));
    }
    // So that the helper may look at this process; exec would do the same. The reaper stays untraceable.
    sys::prctl(libc::PR_SET_DUMPABLE, 1).at(Step::Verify, "show this process to the helper")?;
    Ok(Inside { nested_refused, canary_hidden })
}

/// What the helper is held by itself, read once after it has restricted itself: a cell must differ.
pub(crate) struct Baseline {
    namespaces: [std::path::PathBuf; 7],
    filters: u32,
}

impl Baseline {
    pub(crate) fn read() -> Done<Baseline> {
        let mut namespaces = <[std::path::PathBuf; 7]>::default();
        for (slot, name) in namespaces.iter_mut().zip(NAMESPACES) {
            let link = Path::new("/proc/self/ns").join(name);
            *slot = std::fs::read_link(link).at(Step::Verify, "read its own namespaces")?;
        }
        let status = read_once("/proc/self/status").at(Step::Verify, "read its own status")?;
        let mut found = Enforced::default();
        read_status(&status, &mut found)?;
        let filters = found.seccomp_filters.ok_or_else(|| {
            StepError::check(Step::Verify, "the kernel does not count seccomp filters: it is older than 5.9")
        })?;
        Ok(Baseline { namespaces, filters })
    }
}

/// Reads back what holds process `pid`. `landlock` is what the launch enforced: the kernel does not show it.
pub(crate) fn from_outside(pid: i32, host: &Baseline, plan: &Plan<'_>, inside: Inside) -> Done<Enforced> {
    let status = read_once(&format!("/proc/{pid}/status")).at(Step::Verify, "read the status")?;
    let mut found = Enforced {
        own_uid: plan.ids.own,
        landlock: plan.landlock,
        nested_namespaces_refused: inside.nested_refused,
        canary_hidden: inside.canary_hidden,
        data_limit: (!plan.memory_cgroup).then_some(plan.parts.limits.data_bytes),
        ..Enforced::default()
    };
    read_status(&status, &mut found)?;
    for (name, ours) in NAMESPACES.iter().zip(&host.namespaces) {
        let theirs = std::fs::read_link(format!("/proc/{pid}/ns/{name}"))
            .at(Step::Verify, format_args!("read the {name} namespace"))?;
        if theirs != *ours {
            found.namespaces.push((*name).to_owned());
        }
    }
    if (found.uid, found.gid) != (plan.ids.host_uid, plan.ids.host_gid) {
        let what = format!("the cell runs as {}:{} on the host", found.uid, found.gid);
        return Err(StepError::check(Step::Verify, what));
    }
    // The helper's own filters are inherited and would pass for the cell's.
    if found.seccomp_filters != Some(host.filters + 1) {
        return Err(StepError::check(Step::Verify, "the cell's own seccomp filter is not in force"));
    }
    match found.first_missing() {
        Some(what) => Err(StepError::check(Step::Verify, what)),
        None => Ok(found),
    }
}

/// One read is enough for the status, and one system call is cheaper than the growing buffer of `read_to_string`.
fn read_once(path: &str) -> std::io::Result<String> {
    let mut buffer = vec![0; 8192];
    let length = std::io::Read::read(&mut std::fs::File::open(path)?, &mut buffer)?;
    buffer.truncate(length);
    String::from_utf8(buffer).map_err(|_| std::io::ErrorKind::InvalidData.into())
}

fn read_status(status: &str, found: &mut Enforced) -> Done {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .ok_or_else(|| StepError::check(Step::Verify, format!("no field {name} in the status")))
    };
    let number = |text: &str| {
        text.parse::<u32>().map_err(|_| StepError::check(Step::Verify, format!("{text:?} in the status")))
    };
    // Real, effective, saved and file system id must all agree.
    let id = |name: &str| {
        let mut ids = field(name)?.split_whitespace().map(number);
        let first = ids.next().unwrap_or_else(|| number(""))?;
        if ids.all(|other| other.as_ref() == Ok(&first)) {
            Ok(first)
        } else {
            Err(StepError::check(Step::Verify, format!("the four ids of {name} differ")))
        }
    };
    found.uid = id("Uid")?;
    found.gid = id("Gid")?;
    found.groups = u32::try_from(field("Groups")?.split_whitespace().count()).unwrap_or(u32::MAX);
    found.no_new_privs = field("NoNewPrivs")? == "1";
    found.seccomp_mode = number(field("Seccomp")?)?;
    found.seccomp_filters = field("Seccomp_filters").ok().and_then(|text| text.parse().ok());
    let mut zero = true;
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        zero &= field(name)?.bytes().all(|digit| digit == b'0');
    }
    found.capabilities_zero = zero;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t5 6 \nNoNewPrivs:\t1\nSeccomp:\t2\n\
                          Seccomp_filters:\t2\nCapInh:\t0000\nCapPrm:\t0000\nCapEff:\t0000\nCapBnd:\t0000\nCapAmb:\t0000\n";

    #[test]
    fn the_kernels_status_is_read_as_it_is() {
        let mut found = Enforced::default();
        read_status(STATUS, &mut found).expect("reads");
        assert_eq!((found.uid, found.gid, found.groups, found.seccomp_filters), (7, 8, 2, Some(2)));
        assert!(found.no_new_privs && found.capabilities_zero);
        let mut found = Enforced::default();
        read_status(&STATUS.replace("CapBnd:\t0000", "CapBnd:\t0100"), &mut found).expect("reads");
        assert!(!found.capabilities_zero);
        assert!(read_status(&STATUS.replace("7\t7\t7\t7", "7\t7\t7\t0"), &mut found).is_err());
        assert!(read_status("", &mut found).is_err());
    }
}
