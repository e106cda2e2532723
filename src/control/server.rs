//! The socket and its connections.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::protocol::{LINE_LIMIT, Reply, Request};
use super::{descriptors, peer};

/// Connections served at once; one more is told to come back.
const CONNECTIONS: usize = 16;
/// Replies of one call that may wait for a slow reader before the daemon's side waits too.
const REPLIES: usize = 32;
/// How long a client may take over its request line.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long a client may take to read one reply.
const REPLY_TIME: Duration = Duration::from_secs(30);
/// The kernel's `sun_path`, without the NUL at its end.
const PATH_LIMIT: usize = 107;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Their user.
    pub uid: u32,
    /// Their process, where the kernel tells.
    pub pid: Option<i32>,
}

/// A request that was read and checked, with the way back.
#[derive(Debug)]
pub struct Call {
    /// What is wanted.
    pub request: Request,
    /// Who wants it.
    pub caller: Caller,
    /// Standard input, output and error for [`Request::Exec`]; otherwise empty.
    pub descriptors: Vec<OwnedFd>,
    /// Takes the replies; dropping it ends the connection. Closed when the client has hung up.
    pub reply: mpsc::Sender<Reply>,
}

/// Why there is no door.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another daemon has this directory.
    #[error("another skep daemon is running on {}; stop it first", .0.display())]
    Running(PathBuf),
    /// The path does not fit into a socket address.
    #[error("the socket path {} has more than {PATH_LIMIT} bytes; choose a shorter --state directory", .0.display())]
    TooLong(PathBuf),
    /// Others could replace the socket.
    #[error("others can write to {path}; close it: chmod go-w {path}", path = .0.display())]
    OpenDirectory(PathBuf),
    /// The directory or the socket cannot be made.
    #[error("cannot open the control socket {}", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// The open door. Dropping it removes the socket and lets another daemon in.
#[derive(Debug)]
pub struct ControlServer {
    listener: StdListener,
    path: PathBuf,
    /// Held, never read: the kernel gives it up when this process ends, however it ends.
    _only_one: File,
}

impl ControlServer {
    /// Opens the door at `path` (mode 0660, in a directory of mode 0750 made where it is missing). Needs no runtime
    /// and starts no thread. It is also the lock that keeps two daemons off one state.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        if path.as_os_str().len() > PATH_LIMIT {
            return Err(ControlError::TooLong(path.to_owned()));
        }
        let failed = |source| ControlError::Bind { path: path.to_owned(), source };
        let directory = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o750).create(directory).map_err(failed)?;
        if fs::metadata(directory).map_err(failed)?.mode() & 0o022 != 0 {
            return Err(ControlError::OpenDirectory(directory.to_owned()));
        }
        let lock = File::options().create(true).truncate(false).write(true).open(path.with_extension("lock"));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ControlError::Running(directory.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // We hold the lock: a socket that is there was left by a daemon that is gone.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = StdListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), _only_one: lock })
    }

    /// Serves until the future is dropped or nobody takes calls any more.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub async fn run(self, calls: mpsc::Sender<Call>) -> Result<(), ControlError> {
        let failed = |source| ControlError::Bind { path: self.path.clone(), source };
        let listener = self.listener.try_clone().and_then(UnixListener::from_std).map_err(failed)?;
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = calls.closed() => return Ok(()),
            };
            match accepted {
                Ok((stream, _)) if connections.len() >= CONNECTIONS => turn_away(&stream),
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, calls.clone()));
                }
                Err(error) => {
                    // Out of descriptors, most likely: the ones in use come back.
                    tracing::warn!(%error, "cannot accept a control connection");
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        // A socket that stays is harmless: the next daemon removes it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Says that all places are taken; a client that cannot even take this line gets nothing.
fn turn_away(stream: &UnixStream) {
    let busy =
        Reply::error(format!("{CONNECTIONS} commands are being served"), "wait for one of them to end");
    if let Ok(line) = encode(&busy) {
        let _ = stream.try_write(&line);
    }
}

/// One connection from request to last reply.
async fn serve(mut stream: UnixStream, calls: mpsc::Sender<Call>) {
    let (reply, mut replies) = mpsc::channel(REPLIES);
    match take_request(&stream).await {
        Ok((request, caller, descriptors)) => {
            if calls.send(Call { request, caller, descriptors, reply }).await.is_err() {
                let _ = write(&mut stream, &Reply::error("the daemon is stopping", "try again later")).await;
                return;
            }
        }
        Err(Refused::Gone) => return,
        Err(Refused::Told(message, fix)) => {
            tracing::debug!(message, "refused a control request");
            let _ = write(&mut stream, &Reply::error(message, fix)).await;
            return;
        }
    }
    loop {
        let next = tokio::select! {
            next = replies.recv() => next,
            () = hung_up(&stream) => return,
        };
        let Some(reply) = next else { return };
        let last = reply.is_last();
        if write(&mut stream, &reply).await.is_err() || last {
            return;
        }
    }
}

/// Why there is no request.
enum Refused {
    /// The client has left without a word.
    Gone,
    /// What it is told: the message and the remedy.
    Told(String, &'static str),
}

async fn take_request(stream: &UnixStream) -> Result<(Request, Caller, Vec<OwnedFd>), Refused> {
    let told = |message: &str, fix| Refused::Told(message.to_owned(), fix);
    let Some(caller) = peer::admit(stream).await.map_err(|_| Refused::Gone)? else {
        return Err(told(
            "you may not control this daemon",
            "use sudo, or join the group skep and log in again",
        ));
    };
    let (line, descriptors) = match timeout(REQUEST_TIME, read_line(stream)).await {
        Ok(read) => read?,
        Err(_) => return Err(told("no request came within 10 seconds", "send one line of JSON")),
    };
    let request: Request = serde_json::from_slice(&line).map_err(|error| {
        Refused::Told(format!("this is not a request: {error}"), "use the skep command of the same version")
    })?;
    match &request {
        Request::Exec { argv, .. } if argv.is_empty() => {
            Err(told("there is no command", "name one after --"))
        }
        Request::Exec { .. } if descriptors.len() != descriptors::MOST => {
            Err(told("the request came without its input, output and error", "use skep exec"))
        }
        Request::Exec { .. } => Ok((request, caller, descriptors)),
        // Descriptors nobody asked for are closed here.
        _ => Ok((request, caller, Vec::new())),
    }
}

/// The request line without its newline, and the descriptors that came with any part of it.
async fn read_line(stream: &UnixStream) -> Result<(Vec<u8>, Vec<OwnedFd>), Refused> {
    let (mut line, mut kept) = (Vec::new(), Vec::new());
    let mut buffer = [0; 4096];
    loop {
        let read = stream.async_io(Interest::READABLE, || descriptors::receive(stream, &mut buffer)).await;
        let (count, descriptors) = read.map_err(|_| Refused::Gone)?;
        kept.extend(descriptors);
        kept.truncate(descriptors::MOST);
        if count == 0 {
            return Err(Refused::Gone);
        }
        let part = &buffer[..count];
        match part.iter().position(|byte| *byte == b'\n') {
            Some(end) => line.extend_from_slice(&part[..end]),
            None => line.extend_from_slice(part),
        }
        if line.len() >= LINE_LIMIT {
            return Err(Refused::Told("a request has at most 1 MiB".to_owned(), "send less at once"));
        }
        if part.contains(&b'\n') {
            return Ok((line, kept));
        }
    }
}

/// Returns when the client has closed its side, or has begun to talk out of turn.
async fn hung_up(stream: &UnixStream) {
    let _ = stream.async_io(Interest::READABLE, || descriptors::receive(stream, &mut [0; 1])).await;
}

async fn write(stream: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    let line = encode(reply)?;
    timeout(REPLY_TIME, stream.write_all(&line)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

fn encode(reply: &Reply) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    Ok(line)
}
