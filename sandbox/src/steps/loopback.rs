//! Steps "loopback" and "listener": the cell's only interface goes up, and the broker's socket is bound to it.
//!
//! The descriptor is served from outside the cell. The port exists in this network namespace and nowhere else.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{At, Done, Plan};
use crate::report::Step;
use crate::sys;

pub(crate) fn up() -> Done {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .at(Step::Loopback, "open a socket")?;
    sys::loopback_up(any.as_fd()).at(Step::Loopback, "raise the interface lo")
}

pub(crate) fn listen(plan: &Plan<'_>) -> Done<Option<OwnedFd>> {
    let Some(port) = plan.parts.listener_port else { return Ok(None) };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .at(Step::Listener, format_args!("listen on 127.0.0.1:{port}"))?;
    Ok(Some(OwnedFd::from(listener)))
}
