//! The helper and bad requests: refused, alive, nothing started.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod harness;

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use harness::HELPER;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use skep_sandbox::{recv_with_fds, send_with_fds};

struct Raw {
    socket: OwnedFd,
    child: Child,
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "speaks to the helper without the launcher between")]
fn helper(kind: SockType) -> Raw {
    let (socket, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).expect("pair");
    let child =
        Command::new(HELPER).stdin(Stdio::from(theirs)).stderr(Stdio::null()).spawn().expect("helper");
    Raw { socket, child }
}

impl Raw {
    /// The first byte of the answer: 5 is a refusal, 1 the report.
    fn ask(&self, bytes: &[u8], fds: usize) -> u8 {
        let null = std::fs::File::open("/dev/null").expect("null");
        let fds = vec![null.as_fd(); fds];
        send_with_fds(self.socket.as_fd(), bytes, &fds).expect("sent");
        let mut answer = [0; 65536];
        let (length, _) = recv_with_fds(self.socket.as_fd(), &mut answer, 4).expect("an answer");
        assert!(length > 0, "the helper has ended");
        answer[0]
    }

    fn children(&self) -> String {
        let pid = self.child.id();
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children")
    }
}

/// The first message, by hand: an independent reading of the protocol.
fn hello(uid_base: u32) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend(0x736b_6570_0000_0002_u64.to_le_bytes());
    bytes.extend(uid_base.to_le_bytes());
    bytes.extend(64_u32.to_le_bytes());
    bytes.extend([0, 0, 0, 0, 0]); // no cgroup
    bytes.extend([0, 0, 0, 0, 0]); // no canary
    bytes.extend([0, 0, 0, 0, 0, 0]); // no step to fail
    bytes.push(0); // Landlock as found
    bytes
}

#[test]
fn malformed_truncated_and_replayed_requests_are_refused_and_the_helper_lives() {
    let raw = helper(SockType::SeqPacket);
    let good = hello(1_900_000_000);
    for cut in 1..good.len() {
        assert_eq!(raw.ask(&good[..cut], 0), 5, "cut at {cut}");
    }
    assert_eq!(raw.ask(&[2; 100], 0), 5);
    assert_eq!(
        raw.ask(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0),
        5,
        "prepare before the first message"
    );
    assert_eq!(raw.ask(&hello(0), 0), 5, "a range that holds root");
    assert_eq!(raw.ask(&hello(1000), 0), 5, "a range that holds people");
    assert_eq!(raw.ask(&hello(u32::MAX - 10), 0), 5, "a range past the end");
    assert_eq!(raw.ask(&good, 0), 1);
    assert_eq!(raw.ask(&good, 0), 5, "replayed");
    assert_eq!(raw.ask(&[0xff; 4096], 12), 5, "noise with descriptors");
    assert_eq!(raw.ask(&vec![0; 159 * 1024], 0), 5, "a large packet");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..2000_usize {
        let mut noise: Vec<u8> = (0..round % 200)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_le_bytes()[5]
            })
            .collect();
        noise.insert(0, 2 + (round % 2) as u8);
        assert_eq!(raw.ask(&noise, round % 4), 5);
    }
    assert_eq!(raw.children(), "", "nothing was started");
    let fds = std::fs::read_dir(format!("/proc/{}/fd", raw.child.id())).expect("descriptors").count();
    assert!(fds < 10, "{fds} descriptors are open: received ones were kept");
}

#[test]
fn an_oversized_packet_is_refused() {
    let raw = helper(SockType::SeqPacket);
    assert_eq!(raw.ask(&vec![1; 170 * 1024], 0), 5);
    assert_eq!(raw.ask(&hello(1_900_000_000), 0), 1);
}

#[test]
fn it_ends_when_the_daemon_does_and_serves_nobody_else() {
    let Raw { socket, child } = &mut helper(SockType::SeqPacket);
    let closed = std::mem::replace(socket, std::fs::File::open("/dev/null").expect("null").into());
    drop(closed);
    assert!(child.wait().expect("ends").success());
    let mut stream = helper(SockType::Stream);
    assert_eq!(stream.child.wait().expect("ends").code(), Some(77), "a stream is not the daemon's socket");
}

#[test]
fn it_keeps_three_capabilities_at_most_and_no_new_privileges() {
    let raw = helper(SockType::SeqPacket);
    assert_eq!(raw.ask(&hello(1_900_000_000), 0), 1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", raw.child.id())).expect("status");
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("field");
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("hex")
    };
    let kept = 1 << 0 | 1 << 6 | 1 << 7; // CHOWN, SETGID, SETUID
    for set in ["CapPrm", "CapEff"] {
        assert_eq!(field(set) & !kept, 0, "{status}");
    }
    if harness::is_root() {
        assert_eq!((field("CapPrm"), field("CapBnd")), (kept, kept), "{status}");
    }
    assert_eq!((field("CapInh"), field("CapAmb")), (0, 0), "{status}");
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), (1, 2), "{status}");
}
