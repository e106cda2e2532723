//! Messages with descriptors over a unix socket, safe to call from crates that forbid `unsafe`.
//!
//! Invariant: every descriptor received is owned and close-on-exec before anyone else sees it; descriptors beyond
//! the expected number are closed, never leaked.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

use crate::sys;

/// The kernel's own bound on descriptors in one message: with room for all of them none can be lost to truncation.
const KERNEL_MOST: usize = 253;

/// One received message.
pub(crate) struct Received {
    pub(crate) length: usize,
    pub(crate) fds: Vec<OwnedFd>,
    /// Pid of the sender as this process's pid namespace numbers it; only with `SO_PASSCRED` on.
    pub(crate) sender: Option<i32>,
    /// The message or its descriptors did not fit.
    pub(crate) truncated: bool,
}

/// Sends `bytes` with `fds` attached and returns the number of bytes sent.
///
/// # Errors
/// The error of `sendmsg`; a closed peer is `BrokenPipe`, never a signal.
pub fn send_with_fds(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        let flags = MsgFlags::MSG_NOSIGNAL;
        match sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None) {
            Err(nix::errno::Errno::EINTR) => {}
            answer => return answer.map_err(io::Error::from),
        }
    }
}

/// Receives at most `buf.len()` bytes and at most `max_fds` descriptors, all close-on-exec. `(0, [])` is the end.
///
/// # Errors
/// The error of `recvmsg`; `InvalidData` when the message or its descriptors did not fit (all of them are closed).
pub fn recv_with_fds(
    socket: BorrowedFd<'_>,
    buf: &mut [u8],
    max_fds: usize,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let received = receive(socket, buf)?;
    if received.truncated || received.fds.len() > max_fds {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message or its descriptors do not fit"));
    }
    Ok((received.length, received.fds))
}

pub(crate) fn receive(socket: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<Received> {
    let mut space = nix::cmsg_space!([RawFd; KERNEL_MOST], libc::ucred);
    let mut slices = [IoSliceMut::new(buf)];
    let message = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
            Err(nix::errno::Errno::EINTR) => {}
            answer => break answer.map_err(io::Error::from)?,
        }
    };
    let mut received = Received { length: message.bytes, fds: Vec::new(), sender: None, truncated: false };
    received.truncated = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    if let Ok(control) = message.cmsgs() {
        for part in control {
            match part {
                ControlMessageOwned::ScmRights(raw) => received.fds.extend(raw.into_iter().map(sys::own)),
                ControlMessageOwned::ScmCredentials(who) => received.sender = Some(who.pid()),
                _ => {}
            }
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_arrives_usable_and_close_on_exec() {
        let (left, right) = UnixStream::pair().expect("pair");
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        assert_eq!(send_with_fds(left.as_fd(), b"hi", &[writer.as_fd()]).expect("send"), 2);
        drop(writer);
        let mut buf = [0; 8];
        let (length, mut fds) = recv_with_fds(right.as_fd(), &mut buf, 1).expect("receive");
        assert_eq!((&buf[..length], fds.len()), (&b"hi"[..], 1));
        let flags = nix::fcntl::fcntl(&fds[0], nix::fcntl::FcntlArg::F_GETFD).expect("flags");
        assert_eq!(flags, libc::FD_CLOEXEC);
        std::fs::File::from(fds.remove(0)).write_all(b"through").expect("write");
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "through");
    }

    #[test]
    fn unexpected_descriptors_are_refused_and_closed() {
        let (left, right) = UnixStream::pair().expect("pair");
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        send_with_fds(left.as_fd(), b"x", &[writer.as_fd()]).expect("send");
        drop(writer);
        let error = recv_with_fds(right.as_fd(), &mut [0; 8], 0).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(reader.read(&mut [0]).expect("end of file"), 0);
        drop(left);
        assert_eq!(recv_with_fds(right.as_fd(), &mut [0; 8], 0).expect("end").0, 0);
    }
}
