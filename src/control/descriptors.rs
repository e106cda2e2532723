//! Descriptors that travel with a request: the terminal of `skep exec`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use skep_sandbox::recv_with_fds;
pub use skep_sandbox::send_with_fds as send;

/// Descriptors a request may bring: standard input, output and error.
pub(super) const MOST: usize = 3;

/// Receives what is there, with the descriptors that came along. The socket does not block: `WouldBlock` when nothing
/// is there. More than [`MOST`] descriptors at once are closed and an error comes back.
pub(super) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    recv_with_fds(socket.as_fd(), buffer, MOST)
}
