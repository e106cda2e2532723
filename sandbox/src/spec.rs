//! What one cell is: a [`CellSpec`] cannot be built invalid, on either side of the socket.
//!
//! The daemon builds it from [`CellParts`]; the helper decodes the same parts and runs the same validation again,
//! so that a daemon taken over by an attacker can ask for nothing that this file would refuse.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::codec::{DecodeError, Decoder, Encoder, MAX_MESSAGE};

/// Most single-file program binds in one cell.
pub const MAX_PROGRAMS: usize = 16;
/// Most generated files under `/etc` in one cell.
pub const MAX_ETC_FILES: usize = 32;
/// Most arguments, and most environment variables.
pub const MAX_STRINGS: usize = 1024;

/// Resource limits of one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `memory.max` of the cell's cgroup. Without a memory controller [`Limits::data_bytes`] takes its place.
    pub memory_bytes: Option<u64>,
    /// `pids.max`; also `RLIMIT_NPROC`, which counts inside the cell's own user namespace.
    pub pids: u32,
    /// `cpu.weight`, 1 to 10000; the kernel's default is 100.
    pub cpu_weight: u32,
    /// `cpu.max` as a percentage of one processor (150 is one and a half); `None` is no ceiling.
    pub cpu_max_percent: Option<u32>,
    /// `RLIMIT_NOFILE`.
    pub open_files: u32,
    /// `RLIMIT_FSIZE`: the largest file the cell may write.
    pub file_size: Option<u64>,
    /// Size of `/tmp`; `/dev/shm` gets the same size again.
    pub tmpfs_bytes: u64,
    /// Number of files in `/tmp`; `/dev/shm` gets the same number again.
    pub tmpfs_inodes: u64,
    /// `RLIMIT_DATA` per process, used only where no memory cgroup holds the cell. Claude Code needs 1 GiB.
    pub data_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes: Some(1536 << 20),
            pids: 512,
            cpu_weight: 100,
            cpu_max_percent: None,
            open_files: 8192,
            file_size: Some(4 << 30),
            tmpfs_bytes: 256 << 20,
            tmpfs_inodes: 65_536,
            data_bytes: 3 << 30,
        }
    }
}

/// The raw parts of a cell, as the caller has them. [`CellSpec::new`] validates them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellParts {
    /// Host name inside the cell: `[a-z0-9-]`, 1 to 32 characters.
    pub agent: String,
    /// The agent's host uid is `uid_base + uid_slot`; `None` shares the daemon's own uid.
    pub uid_slot: Option<u16>,
    /// Host directory bound read-write at `/workspace`.
    pub workspace: PathBuf,
    /// Host directory bound read-write at `/home/agent`.
    pub home: PathBuf,
    /// Read-only single-file binds: host file, and its absolute path under `/opt` in the cell.
    pub programs: Vec<(PathBuf, PathBuf)>,
    /// Files to generate, relative to `/etc`, with their contents.
    pub etc_files: Vec<(PathBuf, Vec<u8>)>,
    /// The command; the first element is an absolute path inside the cell.
    pub argv: Vec<OsString>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    /// Port on the cell's loopback whose listening descriptor is handed out.
    pub listener_port: Option<u16>,
    /// Resource limits.
    pub limits: Limits,
}

/// A validated cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellSpec {
    parts: CellParts,
}

/// Why a cell was refused before anything was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message is the documentation of its variant")]
pub enum SpecError {
    #[error(
        "agent name {0:?} must be 1 to 32 characters of a-z, 0-9 and '-', not starting or ending with '-'"
    )]
    AgentName(String),
    #[error("{what} must be an absolute path without '.', '..' or a NUL byte: {path:?}")]
    Path { what: &'static str, path: PathBuf },
    #[error("a program must be bound under /opt inside the cell: {0:?}")]
    ProgramOutsideOpt(PathBuf),
    #[error("two programs are bound at {0:?}, or one inside the other")]
    ProgramTwice(PathBuf),
    #[error("a file under /etc must be a plain relative path that the cell does not generate itself: {0:?}")]
    EtcPath(PathBuf),
    #[error("the command is empty")]
    EmptyCommand,
    #[error("the command must start with an absolute path inside the cell: {0:?}")]
    CommandPath(OsString),
    #[error("an argument or environment variable holds a NUL byte")]
    Nul,
    #[error("environment variable name {0:?} is empty, holds '=', or appears twice")]
    EnvironmentName(OsString),
    #[error("{what}: at most {most} are allowed")]
    TooMany { what: &'static str, most: usize },
    #[error("the listener port must not be 0")]
    ListenerPort,
    #[error("limit {what} must be between {least} and {most}")]
    Limit { what: &'static str, least: u64, most: u64 },
    #[error(
        "the request is {size} bytes long; at most {most} fit, so shorten arguments, environment or files"
    )]
    TooLarge { size: usize, most: usize },
}

impl CellSpec {
    /// Validates `parts`.
    ///
    /// # Errors
    /// The first rule that `parts` breaks.
    pub fn new(parts: CellParts) -> Result<CellSpec, SpecError> {
        check_agent(&parts.agent)?;
        check_absolute("the workspace", &parts.workspace)?;
        check_absolute("the home directory", &parts.home)?;
        check_programs(&parts.programs)?;
        check_etc(&parts.etc_files)?;
        check_command(&parts.argv)?;
        check_environment(&parts.env)?;
        if parts.listener_port == Some(0) {
            return Err(SpecError::ListenerPort);
        }
        check_limits(&parts.limits)?;
        let spec = CellSpec { parts };
        let mut encoder = Encoder::default();
        spec.encode(&mut encoder);
        // Leave room for the canonical paths that travel beside the spec.
        let (size, most) = (encoder.finish().len(), MAX_MESSAGE - 32 * 1024);
        if size > most {
            return Err(SpecError::TooLarge { size, most });
        }
        Ok(spec)
    }

    /// The parts this cell was built from.
    #[must_use]
    pub fn parts(&self) -> &CellParts {
        &self.parts
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        let parts = &self.parts;
        out.text(&parts.agent).option_u64(parts.uid_slot.map(u64::from));
        out.path(&parts.workspace).path(&parts.home);
        out.length(parts.programs.len());
        for (host, cell) in &parts.programs {
            out.path(host).path(cell);
        }
        out.length(parts.etc_files.len());
        for (path, contents) in &parts.etc_files {
            out.path(path).bytes(contents);
        }
        out.length(parts.argv.len());
        for argument in &parts.argv {
            out.bytes(argument.as_bytes());
        }
        out.length(parts.env.len());
        for (name, value) in &parts.env {
            out.bytes(name.as_bytes()).bytes(value.as_bytes());
        }
        out.option_u64(parts.listener_port.map(u64::from));
        encode_limits(out, &parts.limits);
    }

    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<CellParts, DecodeError> {
        let agent = input.text()?.to_owned();
        let uid_slot = small(input.option_u64()?)?;
        let (workspace, home) = (input.path()?, input.path()?);
        let mut programs = Vec::new();
        for _ in 0..input.count(MAX_PROGRAMS)? {
            programs.push((input.path()?, input.path()?));
        }
        let mut etc_files = Vec::new();
        for _ in 0..input.count(MAX_ETC_FILES)? {
            etc_files.push((input.path()?, input.bytes()?.to_vec()));
        }
        let mut argv = Vec::new();
        for _ in 0..input.count(MAX_STRINGS)? {
            argv.push(input.os_string()?);
        }
        let mut env = Vec::new();
        for _ in 0..input.count(MAX_STRINGS)? {
            env.push((input.os_string()?, input.os_string()?));
        }
        let listener_port = small(input.option_u64()?)?;
        let limits = decode_limits(input)?;
        let mut parts = CellParts { agent, uid_slot, workspace, home, ..CellParts::default() };
        parts.programs = programs;
        parts.etc_files = etc_files;
        parts.argv = argv;
        parts.env = env;
        parts.listener_port = listener_port;
        parts.limits = limits;
        Ok(parts)
    }
}

fn small<T: TryFrom<u64>>(value: Option<u64>) -> Result<Option<T>, DecodeError> {
    value.map(T::try_from).transpose().map_err(|_| DecodeError::BadValue)
}

fn encode_limits(out: &mut Encoder, limits: &Limits) {
    out.option_u64(limits.memory_bytes).u32(limits.pids).u32(limits.cpu_weight);
    out.option_u64(limits.cpu_max_percent.map(u64::from)).u32(limits.open_files);
    out.option_u64(limits.file_size).u64(limits.tmpfs_bytes).u64(limits.tmpfs_inodes).u64(limits.data_bytes);
}

fn decode_limits(input: &mut Decoder<'_>) -> Result<Limits, DecodeError> {
    Ok(Limits {
        memory_bytes: input.option_u64()?,
        pids: input.u32()?,
        cpu_weight: input.u32()?,
        cpu_max_percent: small(input.option_u64()?)?,
        open_files: input.u32()?,
        file_size: input.option_u64()?,
        tmpfs_bytes: input.u64()?,
        tmpfs_inodes: input.u64()?,
        data_bytes: input.u64()?,
    })
}

fn check_agent(name: &str) -> Result<(), SpecError> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let good = (1..=32).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if good { Ok(()) } else { Err(SpecError::AgentName(name.to_owned())) }
}

fn has_nul(value: &OsStr) -> bool {
    value.as_bytes().contains(&0)
}

/// Absolute, already in normal form, and not the root itself.
fn check_absolute(what: &'static str, path: &Path) -> Result<(), SpecError> {
    let mut components = path.components();
    let good = components.next() == Some(Component::RootDir)
        && path.parent().is_some()
        && components.all(|c| matches!(c, Component::Normal(_)))
        && !path.as_os_str().as_bytes().ends_with(b"/")
        && !path.as_os_str().as_bytes().windows(2).any(|pair| pair == b"//")
        && !path.as_os_str().as_bytes().windows(3).any(|three| three == b"/./")
        && path.as_os_str().len() < 4096
        && !has_nul(path.as_os_str());
    if good { Ok(()) } else { Err(SpecError::Path { what, path: path.to_owned() }) }
}

fn check_programs(programs: &[(PathBuf, PathBuf)]) -> Result<(), SpecError> {
    if programs.len() > MAX_PROGRAMS {
        return Err(SpecError::TooMany { what: "programs", most: MAX_PROGRAMS });
    }
    for (index, (host, cell)) in programs.iter().enumerate() {
        check_absolute("a program's host path", host)?;
        check_absolute("a program's path in the cell", cell)?;
        if !cell.starts_with("/opt") || cell == Path::new("/opt") {
            return Err(SpecError::ProgramOutsideOpt(cell.clone()));
        }
        let nested = |other: &Path| other.starts_with(cell) || cell.starts_with(other);
        if programs[..index].iter().any(|(_, other)| nested(other)) {
            return Err(SpecError::ProgramTwice(cell.clone()));
        }
    }
    Ok(())
}

/// Names in `/etc` that the cell generates or binds itself.
const ETC_TAKEN: [&str; 11] = [
    "passwd",
    "group",
    "nsswitch.conf",
    "hosts",
    "hostname",
    "resolv.conf",
    "ld.so.cache",
    "alternatives",
    "ssl",
    "localtime",
    "timezone",
];

fn check_etc(files: &[(PathBuf, Vec<u8>)]) -> Result<(), SpecError> {
    if files.len() > MAX_ETC_FILES {
        return Err(SpecError::TooMany { what: "files under /etc", most: MAX_ETC_FILES });
    }
    for (index, (path, _)) in files.iter().enumerate() {
        let plain = !path.as_os_str().is_empty()
            && path.components().all(|c| matches!(c, Component::Normal(_)))
            && !path.as_os_str().as_bytes().ends_with(b"/")
            && !has_nul(path.as_os_str());
        let taken = ETC_TAKEN.iter().any(|name| path.starts_with(name));
        let clash =
            files[..index].iter().any(|(other, _)| other.starts_with(path) || path.starts_with(other));
        if !plain || taken || clash {
            return Err(SpecError::EtcPath(path.clone()));
        }
    }
    Ok(())
}

fn check_command(argv: &[OsString]) -> Result<(), SpecError> {
    let program = argv.first().ok_or(SpecError::EmptyCommand)?;
    if argv.len() > MAX_STRINGS {
        return Err(SpecError::TooMany { what: "arguments", most: MAX_STRINGS });
    }
    if !program.as_bytes().starts_with(b"/") {
        return Err(SpecError::CommandPath(program.clone()));
    }
    if argv.iter().any(|argument| has_nul(argument)) {
        return Err(SpecError::Nul);
    }
    Ok(())
}

fn check_environment(env: &[(OsString, OsString)]) -> Result<(), SpecError> {
    if env.len() > MAX_STRINGS {
        return Err(SpecError::TooMany { what: "environment variables", most: MAX_STRINGS });
    }
    for (index, (name, value)) in env.iter().enumerate() {
        if has_nul(name) || has_nul(value) {
            return Err(SpecError::Nul);
        }
        let twice = env[..index].iter().any(|(other, _)| other == name);
        if name.is_empty() || name.as_bytes().contains(&b'=') || twice {
            return Err(SpecError::EnvironmentName(name.clone()));
        }
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), SpecError> {
    const MIB: u64 = 1 << 20;
    const HUGE: u64 = 1 << 50;
    let within = |what: &'static str, value: u64, least: u64, most: u64| {
        if (least..=most).contains(&value) { Ok(()) } else { Err(SpecError::Limit { what, least, most }) }
    };
    within("memory_bytes", limits.memory_bytes.unwrap_or(16 * MIB), 16 * MIB, HUGE)?;
    within("pids", u64::from(limits.pids), 2, 4_000_000)?;
    within("cpu_weight", u64::from(limits.cpu_weight), 1, 10_000)?;
    within("cpu_max_percent", u64::from(limits.cpu_max_percent.unwrap_or(100)), 1, 100_000)?;
    within("open_files", u64::from(limits.open_files), 16, 1 << 20)?;
    within("file_size", limits.file_size.unwrap_or(4096), 4096, HUGE)?;
    within("tmpfs_bytes", limits.tmpfs_bytes, 4096, HUGE)?;
    within("tmpfs_inodes", limits.tmpfs_inodes, 16, HUGE)?;
    within("data_bytes", limits.data_bytes, MIB, HUGE)
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
