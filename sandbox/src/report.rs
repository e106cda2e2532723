//! What came of it: the step that failed, what a running cell is really held by, and how its command ended.
//!
//! Everything in [`Enforced`] is read back from the kernel after it was set; nothing is copied from the request.

use std::fmt;

use crate::codec::{DecodeError, Decoder, Encoder};

macro_rules! steps {
    ($($name:ident = $text:literal,)*) => {
        /// One step of a launch, in the order in which they happen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the crate documentation describes each step under the same name")]
        pub enum Step { $($name,)* }

        impl Step {
            /// Every step, in launch order.
            pub const ALL: &'static [Step] = &[$(Step::$name,)*];

            /// The name used in messages.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Step::$name => $text,)* }
            }
        }
    };
}

steps! {
    Cgroup = "cgroup",
    Namespaces = "namespaces",
    UidMap = "uid map",
    Sources = "bind sources",
    Identity = "identity",
    Root = "root",
    Etc = "etc",
    Dev = "dev",
    Proc = "proc",
    NestedBan = "nested namespace ban",
    Binds = "binds",
    Pivot = "pivot",
    Loopback = "loopback",
    Listener = "listener",
    Limits = "limits",
    Capabilities = "capabilities",
    Descriptors = "descriptors",
    Landlock = "landlock",
    Reaper = "reaper",
    Seccomp = "seccomp",
    Canary = "canary",
    Verify = "verify",
    Exec = "exec",
}

impl Step {
    pub(crate) fn code(self) -> u8 {
        Step::ALL
            .iter()
            .position(|step| *step == self)
            .and_then(|at| u8::try_from(at).ok())
            .unwrap_or(u8::MAX)
    }

    pub(crate) fn from_code(code: u8) -> Result<Step, DecodeError> {
        Step::ALL.get(usize::from(code)).copied().ok_or(DecodeError::BadValue)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A step that failed, with the kernel's answer and the object it was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepError {
    /// The step.
    pub step: Step,
    /// The error number; 0 where no system call failed but a check did.
    pub errno: i32,
    /// What exactly was being done.
    pub detail: String,
}

impl StepError {
    pub(crate) fn new(step: Step, errno: nix::errno::Errno, detail: impl Into<String>) -> StepError {
        StepError { step, errno: errno as i32, detail: detail.into() }
    }

    pub(crate) fn check(step: Step, detail: impl Into<String>) -> StepError {
        StepError { step, errno: 0, detail: detail.into() }
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        let mut end = self.detail.len().min(400);
        while !self.detail.is_char_boundary(end) {
            end -= 1;
        }
        out.u8(self.step.code()).u32(self.errno.cast_unsigned()).text(&self.detail[..end]);
    }

    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<StepError, DecodeError> {
        let step = Step::from_code(input.u8()?)?;
        let errno = input.u32()?.cast_signed();
        Ok(StepError { step, errno, detail: input.text()?.to_owned() })
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {:?}: {}", self.step.name(), self.detail)?;
        if self.errno != 0 {
            let errno = nix::errno::Errno::from_raw(self.errno);
            write!(f, ": {} ({errno:?})", errno.desc())?;
        }
        Ok(())
    }
}

impl std::error::Error for StepError {}

/// The limits found in a cell's cgroup after they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// `memory.max`, where the memory controller is there and a limit is set.
    pub memory_max: Option<u64>,
    /// `pids.max`, where the pids controller is there and a limit is set.
    pub pids_max: Option<u64>,
    /// `cpu.weight`, where the cpu controller is there.
    pub cpu_weight: Option<u64>,
    /// `cpu.max` as a percentage of one processor, where set.
    pub cpu_max_percent: Option<u64>,
    /// The whole cell can be killed at once by `cgroup.kill`.
    pub kill: bool,
}

/// What a cell is held by, read back just before its command started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Enforced {
    /// Host uid the cell runs as.
    pub uid: u32,
    /// Host gid the cell runs as.
    pub gid: u32,
    /// The uid belongs to this agent alone; `false`: it is the daemon's own.
    pub own_uid: bool,
    /// Supplementary groups left (the daemon's own, where they could not be cleared).
    pub groups: u32,
    /// `NoNewPrivs` is 1.
    pub no_new_privs: bool,
    /// Seccomp mode; 2 is a filter.
    pub seccomp_mode: u32,
    /// Number of seccomp filters, where the kernel tells.
    pub seccomp_filters: Option<u32>,
    /// All five capability sets are empty.
    pub capabilities_zero: bool,
    /// Names of the namespaces that differ from the helper's.
    pub namespaces: Vec<String>,
    /// Landlock ABI in force, or none.
    pub landlock: Option<u32>,
    /// A new user namespace inside the cell was tried and refused.
    pub nested_namespaces_refused: bool,
    /// The canary outside was tried and could not be read; `None`: no canary was configured.
    pub canary_hidden: Option<bool>,
    /// What the cell's cgroup holds; `None`: no cgroup.
    pub cgroup: Option<CgroupLimits>,
    /// `RLIMIT_DATA`, set where no memory cgroup holds the cell.
    pub data_limit: Option<u64>,
}

/// The seven namespaces every cell must have to itself.
pub const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

impl Enforced {
    /// The first property without which a cell must not run and which was not found; `None` when all hold.
    #[must_use]
    pub fn first_missing(&self) -> Option<&'static str> {
        let checks = [
            (self.no_new_privs, "no_new_privs is not set"),
            (self.seccomp_mode == 2, "no seccomp filter is in force"),
            (self.capabilities_zero, "capabilities are left"),
            (self.namespaces == NAMESPACES, "a namespace is shared with the host"),
            (self.uid != 0 && self.gid != 0, "the host uid or gid is 0"),
            (self.nested_namespaces_refused, "a nested user namespace was allowed"),
            (self.canary_hidden != Some(false), "the canary outside could be read"),
        ];
        checks.iter().find(|(holds, _)| !holds).map(|(_, missing)| *missing)
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.u32(self.uid).u32(self.gid).flag(self.own_uid).u32(self.groups).flag(self.no_new_privs);
        out.u32(self.seccomp_mode)
            .option_u64(self.seccomp_filters.map(u64::from))
            .flag(self.capabilities_zero);
        out.length(self.namespaces.len());
        for name in &self.namespaces {
            out.text(name);
        }
        out.option_u64(self.landlock.map(u64::from)).flag(self.nested_namespaces_refused);
        out.flag(self.canary_hidden.is_some()).flag(self.canary_hidden == Some(true));
        out.option_u64(self.data_limit).flag(self.cgroup.is_some());
        if let Some(cgroup) = &self.cgroup {
            out.option_u64(cgroup.memory_max).option_u64(cgroup.pids_max).option_u64(cgroup.cpu_weight);
            out.option_u64(cgroup.cpu_max_percent).flag(cgroup.kill);
        }
    }

    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<Enforced, DecodeError> {
        let narrow = |value: Option<u64>| -> Option<u32> { value.and_then(|v| u32::try_from(v).ok()) };
        let mut found = Enforced { uid: input.u32()?, gid: input.u32()?, ..Enforced::default() };
        found.own_uid = input.flag()?;
        found.groups = input.u32()?;
        found.no_new_privs = input.flag()?;
        found.seccomp_mode = input.u32()?;
        found.seccomp_filters = narrow(input.option_u64()?);
        found.capabilities_zero = input.flag()?;
        for _ in 0..input.count(NAMESPACES.len())? {
            found.namespaces.push(input.text()?.to_owned());
        }
        found.landlock = narrow(input.option_u64()?);
        found.nested_namespaces_refused = input.flag()?;
        let (configured, hidden) = (input.flag()?, input.flag()?);
        found.canary_hidden = configured.then_some(hidden);
        found.data_limit = input.option_u64()?;
        if input.flag()? {
            found.cgroup = Some(CgroupLimits {
                memory_max: input.option_u64()?,
                pids_max: input.option_u64()?,
                cpu_weight: input.option_u64()?,
                cpu_max_percent: input.option_u64()?,
                kill: input.flag()?,
            });
        }
        Ok(found)
    }
}

impl fmt::Display for Enforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = if self.own_uid { "this agent's own" } else { "shared with the daemon" };
        writeln!(f, "host uid {} ({owner}), {} supplementary groups", self.uid, self.groups)?;
        writeln!(f, "namespaces: {}", self.namespaces.join(" "))?;
        let yes = |value: bool| if value { "yes" } else { "NO" };
        writeln!(
            f,
            "no new privileges: {}; no capabilities: {}; nested namespaces refused: {}",
            yes(self.no_new_privs),
            yes(self.capabilities_zero),
            yes(self.nested_namespaces_refused)
        )?;
        let filters = self.seccomp_filters.map_or_else(|| "?".to_owned(), |n| n.to_string());
        writeln!(f, "seccomp: mode {}, {filters} filters", self.seccomp_mode)?;
        match self.landlock {
            Some(abi) => writeln!(f, "landlock: ABI {abi}")?,
            None => writeln!(f, "landlock: none (the kernel does not offer it)")?,
        }
        match &self.cgroup {
            Some(limits) => writeln!(f, "cgroup: {limits}")?,
            None => writeln!(f, "cgroup: none")?,
        }
        if let Some(bytes) = self.data_limit {
            writeln!(f, "data limit per process: {} MiB", bytes >> 20)?;
        }
        match self.canary_hidden {
            Some(hidden) => write!(f, "canary hidden: {}", yes(hidden)),
            None => write!(f, "canary hidden: not tried"),
        }
    }
}

impl fmt::Display for CgroupLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.memory_max {
            Some(bytes) => write!(f, "memory {} MiB", bytes >> 20)?,
            None => write!(f, "memory unlimited")?,
        }
        match self.pids_max {
            Some(count) => write!(f, ", {count} processes")?,
            None => write!(f, ", processes unlimited")?,
        }
        if let Some(weight) = self.cpu_weight {
            write!(f, ", cpu weight {weight}")?;
        }
        if let Some(percent) = self.cpu_max_percent {
            write!(f, ", cpu {percent} %")?;
        }
        write!(f, ", {}", if self.kill { "killed as a whole" } else { "no cgroup.kill" })
    }
}

/// How a cell ended: the bytes read from the descriptor of [`crate::Cell::take_exit`], until end of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus {
    /// What became of the command.
    pub end: End,
    /// The kernel killed something in the cell for want of memory (known only with a memory cgroup).
    pub out_of_memory: bool,
}

/// The command's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Exited(u8),
    /// A signal ended it.
    Signaled(i32),
    /// The whole cell was killed before its reaper could say anything.
    Killed,
}

pub(crate) const RECORD_EXITED: u8 = b'E';
pub(crate) const RECORD_SIGNALED: u8 = b'S';
pub(crate) const RECORD_OUT_OF_MEMORY: u8 = b'M';

impl ExitStatus {
    /// Reads the two-byte records that the cell's reaper and the helper leave on the exit pipe.
    /// Unknown or cut-off records are ignored; no record at all means that the cell was killed.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> ExitStatus {
        let mut status = ExitStatus { end: End::Killed, out_of_memory: false };
        for record in bytes.as_chunks::<2>().0 {
            match *record {
                [RECORD_EXITED, code] => status.end = End::Exited(code),
                [RECORD_SIGNALED, signal] => status.end = End::Signaled(i32::from(signal)),
                [RECORD_OUT_OF_MEMORY, _] => status.out_of_memory = true,
                _ => {}
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_records_are_read_and_silence_means_killed() {
        let killed = ExitStatus { end: End::Killed, out_of_memory: false };
        assert_eq!(ExitStatus::parse(b""), killed);
        assert_eq!(ExitStatus::parse(b"E"), killed);
        assert_eq!(ExitStatus::parse(b"E\x07").end, End::Exited(7));
        let both = ExitStatus::parse(b"S\x09M\x01");
        assert_eq!(both, ExitStatus { end: End::Signaled(9), out_of_memory: true });
    }

    #[test]
    fn reports_survive_the_wire() {
        let found = Enforced {
            uid: 1_900_000_003,
            gid: 1_900_000_003,
            namespaces: NAMESPACES.map(str::to_owned).to_vec(),
            landlock: Some(7),
            canary_hidden: Some(true),
            cgroup: Some(CgroupLimits { pids_max: Some(5), kill: true, ..CgroupLimits::default() }),
            ..Enforced::default()
        };
        let mut encoder = Encoder::default();
        found.encode(&mut encoder);
        let bytes = encoder.finish();
        assert_eq!(Enforced::decode(&mut Decoder::new(&bytes)), Ok(found));

        let failed = StepError::new(Step::Pivot, nix::errno::Errno::EPERM, "é".repeat(300));
        let mut encoder = Encoder::default();
        failed.encode(&mut encoder);
        let back = StepError::decode(&mut Decoder::new(&encoder.finish())).expect("decodes");
        assert_eq!((back.step, back.errno), (Step::Pivot, 1));
    }

    #[test]
    fn a_cell_without_a_property_is_not_accepted() {
        let mut found = Enforced {
            uid: 1,
            gid: 1,
            no_new_privs: true,
            seccomp_mode: 2,
            capabilities_zero: true,
            namespaces: NAMESPACES.map(str::to_owned).to_vec(),
            nested_namespaces_refused: true,
            ..Enforced::default()
        };
        assert_eq!(found.first_missing(), None);
        found.namespaces.pop();
        assert_eq!(found.first_missing(), Some("a namespace is shared with the host"));
    }
}
