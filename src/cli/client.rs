//! The command line's end of the control socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::failure::CliError;
use crate::config::Paths;
use crate::control::{LINE_LIMIT, REPLY_LIMIT, Reply, Request, send_with_descriptors};

/// One connection: a request was sent, its replies come.
#[derive(Debug)]
pub(super) struct Connection<'p> {
    stream: BufReader<UnixStream>,
    /// The part of a line that has come: kept between calls, so that [`Connection::next`] may be abandoned halfway.
    line: Vec<u8>,
    paths: &'p Paths,
}

/// Sends `request` and waits for its only reply. [`Reply::Error`] comes back as an error.
pub(super) async fn single(paths: &Paths, request: &Request) -> Result<Reply, CliError> {
    open(paths, request).await?.expect_next().await
}

/// Sends `request`.
pub(super) async fn open<'p>(paths: &'p Paths, request: &Request) -> Result<Connection<'p>, CliError> {
    open_with(paths, request, &[]).await
}

/// Sends `request` with descriptors.
pub(super) async fn open_with<'p>(
    paths: &'p Paths,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> Result<Connection<'p>, CliError> {
    let mut line = serde_json::to_vec(request).map_err(CliError::Protocol)?;
    line.push(b'\n');
    if line.len() > LINE_LIMIT {
        let message =
            "this is more than 1 MiB; put it into a file of the agent's workspace and name the file";
        return Err(CliError::Data(message.to_owned()));
    }
    let mut stream = UnixStream::connect(&paths.control).await.map_err(|error| unreached(paths, error))?;
    let sent = if descriptors.is_empty() {
        0
    } else {
        // A fresh socket has room: it does not answer WouldBlock.
        send_with_descriptors(stream.as_fd(), &line, descriptors)
            .map_err(|_| CliError::WentAway { start: paths.start_command() })?
    };
    // A daemon that refuses early closes before it has read all: its words are still there to be read.
    let _ = stream.write_all(&line[sent..]).await;
    Ok(Connection { stream: BufReader::new(stream), line: Vec::new(), paths })
}

fn unreached(paths: &Paths, error: io::Error) -> CliError {
    let socket = paths.control.clone();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
            CliError::NotRunning { socket, start: paths.start_command() }
        }
        io::ErrorKind::PermissionDenied => CliError::Denied(socket),
        _ => CliError::Io { operation: "connect to the daemon", source: error },
    }
}

impl Connection<'_> {
    /// The next reply; `None` when the daemon has closed. May be abandoned and called again.
    pub(super) async fn next(&mut self) -> Result<Option<Reply>, CliError> {
        let room = REPLY_LIMIT.saturating_sub(self.line.len()) as u64;
        let read = (&mut self.stream).take(room).read_until(b'\n', &mut self.line).await;
        match read {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(source) => return Err(CliError::Io { operation: "read the daemon's answer", source }),
            Ok(_) if !self.line.ends_with(b"\n") => return Ok(None),
            Ok(_) => {}
        }
        let reply = serde_json::from_slice(&self.line).map_err(CliError::Protocol)?;
        self.line.clear();
        match reply {
            Reply::Error { message, fix } => Err(CliError::Refused { message, fix }),
            reply => Ok(Some(reply)),
        }
    }

    /// The next reply; that there is none is an error.
    pub(super) async fn expect_next(&mut self) -> Result<Reply, CliError> {
        self.next().await?.ok_or_else(|| CliError::WentAway { start: self.paths.start_command() })
    }
}

/// A reply that does not belong to the request: the daemon is of another version.
pub(super) fn unexpected() -> CliError {
    CliError::Protocol(serde::de::Error::custom("this reply does not belong to the request"))
}
