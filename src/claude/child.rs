//! Tests only: a plain child process in the place of a cell.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{Cell, Command, Control, Exit, SpawnError};

type Spawning = Pin<Box<dyn Future<Output = Result<Cell, SpawnError>> + Send>>;

/// A shell script that ignores what it is started with.
pub(super) fn script(text: &str) -> impl FnOnce(Command, [OwnedFd; 3]) -> Spawning {
    let text = text.to_owned();
    move |_, stdio| {
        let mut shell = program(Path::new("/bin/sh"));
        shell.arg("-c").arg(text);
        Box::pin(async move { start(shell, stdio) })
    }
}

/// A real program under a directory of its own: `home`, `work` and `tmp` in it stand for those of a cell.
pub(super) fn plain(path: PathBuf, root: PathBuf) -> impl FnOnce(Command, [OwnedFd; 3]) -> Spawning {
    move |command, stdio| {
        let mut child = program(&path);
        child.args(command.arguments).current_dir(root.join("work"));
        child.envs(command.environment);
        child.env("HOME", root.join("home")).env("TMPDIR", root.join("tmp"));
        child.env("CLAUDE_CONFIG_DIR", root.join("home/.claude"));
        Box::pin(async move { start(child, stdio) })
    }
}

#[expect(clippy::disallowed_methods, reason = "tests start stub programs without a cell")]
fn program(path: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(path);
    command.env_clear().process_group(0);
    command
}

fn start(
    mut command: std::process::Command,
    [stdin, stdout, stderr]: [OwnedFd; 3],
) -> Result<Cell, SpawnError> {
    let mut child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn()?;
    // The command holds our copies of the descriptors: with them the output would never end.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let group = Pid::from_raw(i32::try_from(child.id())?);
    let (ended, exit) = tokio::sync::oneshot::channel();
    // Not the blocking pool: paused time would stand still while it waits.
    std::thread::spawn(move || {
        let how = match child.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            },
            Err(_) => Exit::Unknown,
        };
        let _ = ended.send(how);
    });
    let exit = Box::pin(async move { exit.await.unwrap_or(Exit::Unknown) });
    Ok(Cell { control: Arc::new(Group(group)), exit })
}

struct Group(Pid);

impl Control for Group {
    fn pid(&self) -> i32 {
        self.0.as_raw()
    }
    fn kill(&self) {
        let _ = killpg(self.0, Signal::SIGKILL);
    }
    fn memory(&self) -> Option<u64> {
        None
    }
    fn layers(&self) -> Vec<String> {
        Vec::new()
    }
}
