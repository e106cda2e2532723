//! The daemon's side: starts the helper, asks for cells, holds them.
//!
//! Synchronous; the daemon calls it from its blocking pool. One request is under way at a time (a launch takes a
//! few milliseconds). Invariant: a [`Cell`] that is dropped is killed; a launch that fails leaves nothing behind.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::cell::Cell;
use crate::codec::{DecodeError, MAX_MESSAGE};
use crate::passing::{recv_with_fds, send_with_fds};
use crate::report::{Step, StepError};
use crate::spec::CellSpec;
use crate::sys;
use crate::tier::{HelperReport, Tier};
use crate::wire::{self, Hello, Reply};

/// Longer than the helper's own limit on one launch.
const REPLY_LIMIT: Duration = Duration::from_secs(20);

/// How to start the helper.
#[derive(Debug, Clone)]
pub struct LauncherConfig {
    /// The `skep-sandbox` program.
    pub helper: PathBuf,
    /// Root of the delegated cgroup subtree for cells; `None`: no cgroups, and the tier says so.
    pub cgroup: Option<PathBuf>,
    /// Host uid (and gid) of slot 0.
    pub uid_base: u32,
    /// Number of slots.
    pub uid_count: u16,
    /// A file outside every cell which others may read (mode 0644): a cell that can open it does not start.
    pub canary: Option<PathBuf>,
    /// Test switches; leave at the default.
    pub testing: Testing,
}

impl LauncherConfig {
    /// The usual configuration: no cgroup, no canary, 64 slots from uid 1900000000.
    #[must_use]
    pub fn new(helper: PathBuf) -> LauncherConfig {
        LauncherConfig {
            helper,
            cgroup: None,
            uid_base: 1_900_000_000,
            uid_count: 64,
            canary: None,
            testing: Testing::default(),
        }
    }
}

/// Switches that only tests use. Each can make launches fail or a *second* layer go missing, never the first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Testing {
    /// This step fails with this error number.
    pub fail: Option<(Step, i32)>,
    /// Behave as on a kernel without Landlock.
    pub without_landlock: bool,
}

/// Why a helper or a cell could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The helper program could not be started.
    #[error("cannot start the sandbox helper {path}")]
    Start {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket to the helper could not be made or used.
    #[error("cannot {what}")]
    Socket {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The helper is gone; the daemon should end and be restarted.
    #[error("the sandbox helper has ended")]
    HelperGone,
    /// The helper did not answer in time.
    #[error("the sandbox helper did not answer within {} seconds", REPLY_LIMIT.as_secs())]
    HelperSilent,
    /// The helper's answer makes no sense: it comes from another version.
    #[error("the sandbox helper answered in another protocol: both programs must come from one release")]
    Protocol,
    /// The helper refused the request before starting anything.
    #[error("the sandbox helper refused: {0}")]
    Refused(String),
    /// A directory or file of the host could not be opened.
    #[error("cannot open {path}")]
    Open {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Standard streams must be pipes, sockets or `/dev/null`.
    #[error("standard stream {0} must be a pipe, a socket or /dev/null: never a terminal, file or directory")]
    Stream(usize),
    /// A launch step failed; nothing was executed and nothing of the cell is left.
    #[error("{}", describe(.step, .errno, .detail))]
    Step {
        /// The step.
        step: Step,
        /// The error number, 0 where a check failed.
        errno: i32,
        /// What exactly was being done.
        detail: String,
    },
}

fn describe(step: &Step, errno: &i32, detail: &str) -> String {
    StepError { step: *step, errno: *errno, detail: detail.to_owned() }.to_string()
}

impl From<DecodeError> for LaunchError {
    fn from(_: DecodeError) -> Self {
        LaunchError::Protocol
    }
}

/// The daemon's handle on the helper.
#[derive(Debug)]
pub struct Launcher {
    socket: Mutex<Option<OwnedFd>>,
    child: Mutex<Child>,
    pid: u32,
    death: OwnedFd,
    report: HelperReport,
}

impl Launcher {
    /// Starts the helper and waits for its report on this machine. Call it before the process has a second thread
    /// and before it drops its capabilities: the helper keeps three of them for itself.
    ///
    /// # Errors
    /// [`LaunchError::Start`] when the program cannot be executed, otherwise what went wrong with its first answer.
    /// A machine that cannot run cells is not an error here: see [`HelperReport::tier`].
    pub fn start(config: LauncherConfig) -> Result<Launcher, LaunchError> {
        let fail = |what| move |errno: nix::Error| LaunchError::Socket { what, source: errno.into() };
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(fail("make a socket pair"))?;
        let child = spawn_helper(&config.helper, theirs)?;
        let pid = child.id();
        let mut child = Reaped(Some(child));
        let death = sys::pidfd_open(pid.cast_signed()).map_err(fail("watch the helper"))?;
        let hello = Hello {
            uid_base: config.uid_base,
            uid_count: config.uid_count,
            cgroup: config.cgroup,
            canary: config.canary,
            fail: config.testing.fail,
            without_landlock: config.testing.without_landlock,
        };
        let report = match call(&ours, &wire::encode_hello(&hello), &[], 0)? {
            (Reply::Ready(report), _) => *report,
            (Reply::Refused(why), _) => return Err(LaunchError::Refused(why)),
            _ => return Err(LaunchError::Protocol),
        };
        let Some(child) = child.0.take() else { return Err(LaunchError::HelperGone) };
        Ok(Launcher { socket: Mutex::new(Some(ours)), child: Mutex::new(child), pid, death, report })
    }

    /// What this machine offers.
    #[must_use]
    pub fn capabilities(&self) -> &HelperReport {
        &self.report
    }

    /// The tier of this machine.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.report.tier()
    }

    /// The helper's pid.
    #[must_use]
    pub fn helper_pid(&self) -> u32 {
        self.pid
    }

    /// A pidfd that becomes readable when the helper ends. All cells are then dead or dying.
    #[must_use]
    pub fn death_fd(&self) -> BorrowedFd<'_> {
        self.death.as_fd()
    }

    /// Gives a directory to an agent: its uid, the daemon's group, mode 2770, so that both can work in it. With a
    /// shared uid the directory just becomes private (mode 0700). A symlink as last component is refused, and so is
    /// anything that belongs to neither the daemon nor an agent. Does not descend.
    ///
    /// # Errors
    /// [`LaunchError::Open`] or the helper's refusal.
    pub fn prepare_dir(&self, dir: &Path, uid_slot: Option<u16>) -> Result<(), LaunchError> {
        let fd = open_path(dir, libc::O_DIRECTORY | libc::O_NOFOLLOW)?;
        self.prepare(dir, &fd, uid_slot)
    }

    /// Gives a regular file with one link to an agent: its uid, the daemon's group, mode 0660 (0600 if shared).
    ///
    /// # Errors
    /// [`LaunchError::Open`] or the helper's refusal.
    pub fn prepare_file(&self, file: &Path, uid_slot: Option<u16>) -> Result<(), LaunchError> {
        let fd = open_path(file, libc::O_NOFOLLOW)?;
        self.prepare(file, &fd, uid_slot)
    }

    fn prepare(&self, path: &Path, fd: &OwnedFd, uid_slot: Option<u16>) -> Result<(), LaunchError> {
        let request = wire::encode_prepare(uid_slot, path);
        match self.request(&request, &[fd.as_fd()], 0)? {
            (Reply::Prepared, _) => Ok(()),
            (reply, _) => Err(unexpected(reply)),
        }
    }

    /// Starts a cell. When this returns, every step has succeeded, what holds the cell was read back and the
    /// command has been executed.
    ///
    /// # Errors
    /// [`LaunchError::Step`] names the step that failed; nothing was executed then.
    pub fn launch(&self, spec: &CellSpec, stdio: [OwnedFd; 3]) -> Result<Cell, LaunchError> {
        let parts = spec.parts();
        for (index, stream) in stdio.iter().enumerate() {
            if !stream_allowed(stream.as_fd()) {
                return Err(LaunchError::Stream(index));
            }
        }
        let mut fds: Vec<OwnedFd> = Vec::from(stdio);
        fds.push(open_path(&parts.workspace, libc::O_DIRECTORY | libc::O_NOFOLLOW)?);
        fds.push(open_path(&parts.home, libc::O_DIRECTORY | libc::O_NOFOLLOW)?);
        for (host, _) in &parts.programs {
            fds.push(open_path(host, 0)?);
        }
        let canonical = fds[3..].iter().map(canonical_path).collect::<Result<Vec<_>, _>>()?;
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        match self.request(&wire::encode_launch(spec, &canonical), &borrowed, 3)? {
            (Reply::Launched { pid, command, leaf, enforced }, fds) => {
                Cell::new(pid, command, leaf, *enforced, fds).ok_or(LaunchError::Protocol)
            }
            (reply, _) => Err(unexpected(reply)),
        }
    }

    fn request(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        max_fds: usize,
    ) -> Result<(Reply, Vec<OwnedFd>), LaunchError> {
        let mut guard = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = guard.as_ref().ok_or(LaunchError::HelperGone)?;
        let answer = call(socket, bytes, fds, max_fds);
        if matches!(
            answer,
            Err(LaunchError::HelperSilent | LaunchError::Protocol | LaunchError::Socket { .. })
        ) {
            // Request and reply no longer pair up: give the helper up, which ends every cell.
            *guard = None;
        }
        answer
    }
}

impl Drop for Launcher {
    /// Closing the socket makes the helper kill every cell and end.
    fn drop(&mut self) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watch = [PollFd::new(self.death.as_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut watch, PollTimeout::from(3000_u16)), Ok(1)) {
            let _ = child.kill();
        }
        let _ = child.wait();
    }
}

/// Kills and reaps a helper whose handshake failed.
struct Reaped(Option<Child>);

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this crate is the one that starts programs")]
fn spawn_helper(path: &Path, socket: OwnedFd) -> Result<Child, LaunchError> {
    Command::new(path)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .spawn()
        .map_err(|source| LaunchError::Start { path: path.to_owned(), source })
}

fn unexpected(reply: Reply) -> LaunchError {
    match reply {
        Reply::Step(StepError { step, errno, detail }) => LaunchError::Step { step, errno, detail },
        Reply::Refused(why) => LaunchError::Refused(why),
        _ => LaunchError::Protocol,
    }
}

fn call(
    socket: &OwnedFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    max_fds: usize,
) -> Result<(Reply, Vec<OwnedFd>), LaunchError> {
    send_with_fds(socket.as_fd(), bytes, fds).map_err(|source| match source.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => LaunchError::HelperGone,
        _ => LaunchError::Socket { what: "send to the helper", source },
    })?;
    let deadline = Instant::now() + REPLY_LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut watch = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watch, timeout) {
            Ok(0) => return Err(LaunchError::HelperSilent),
            Ok(_) => break,
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => {
                return Err(LaunchError::Socket { what: "wait for the helper", source: errno.into() });
            }
        }
    }
    let mut buffer = vec![0; MAX_MESSAGE];
    match recv_with_fds(socket.as_fd(), &mut buffer, max_fds) {
        Ok((0, _)) => Err(LaunchError::HelperGone),
        Ok((length, fds)) => Ok((Reply::decode(&buffer[..length])?, fds)),
        Err(source) if source.kind() == io::ErrorKind::ConnectionReset => Err(LaunchError::HelperGone),
        Err(source) => Err(LaunchError::Socket { what: "receive from the helper", source }),
    }
}

/// Opens a path without any right on the object itself; `extra` are further open flags.
fn open_path(path: &Path, extra: i32) -> Result<OwnedFd, LaunchError> {
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | extra)
        .open(path)
        .map(OwnedFd::from)
        .map_err(|source| LaunchError::Open { path: path.to_owned(), source })
}

/// Where the kernel says the descriptor is: a path without symlinks, which the helper opens again and compares.
fn canonical_path(fd: &OwnedFd) -> Result<PathBuf, LaunchError> {
    use std::os::fd::AsRawFd;
    let link = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    std::fs::read_link(&link).map_err(|source| LaunchError::Open { path: link, source })
}

pub(crate) fn stream_allowed(stream: BorrowedFd<'_>) -> bool {
    let Ok(metadata) = stream.try_clone_to_owned().and_then(|fd| File::from(fd).metadata()) else {
        return false;
    };
    let kind = metadata.file_type();
    let null = || {
        let device = std::os::unix::fs::MetadataExt::rdev(&metadata);
        kind.is_char_device() && libc::major(device) == 1 && libc::minor(device) == 3
    };
    kind.is_fifo() || kind.is_socket() || null()
}
