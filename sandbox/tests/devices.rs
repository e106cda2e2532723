//! Devices: five harmless ones; no terminal; none can be made.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod harness;

use std::os::fd::OwnedFd;

use harness::{Control, Env};
use libc::{ENOENT, ENOTTY, ENXIO, EPERM};
use skep_sandbox::{CellSpec, End, LaunchError};

#[test]
fn the_device_directory_holds_what_programs_need_and_nothing_else() {
    let env = Env::new();
    let names: Vec<String> = env.sh_ok("ls /dev").lines().map(str::to_owned).collect();
    let expected = ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"];
    assert_eq!(names, expected);
    let text = env.sh_ok("echo x > /dev/null; head -c4 /dev/zero | wc -c; head -c4 /dev/urandom | wc -c; echo via > /dev/stdout");
    assert_eq!(text, "4\n4\nvia\n");
    assert_ne!(env.sh("echo x > /dev/full").status.end, End::Exited(0));
}

#[test]
fn no_device_can_be_made_or_found() {
    let env = Env::new();
    let make = ["mknod-block:./disk", "mknod-char:./mem"];
    env.denied(Control::WorksForRoot, &[EPERM], &make);
    let absent = [
        "read:/dev/mem",
        "read:/dev/kmsg",
        "read:/dev/sda",
        "read:/dev/vda",
        "read:/dev/ptmx",
        "read:/dev/kvm",
    ];
    env.denied(Control::NotTried, &[ENOENT], &absent);
    env.denied(Control::NotTried, &[ENOENT, ENXIO], &["read:/dev/tty"]);
    assert_ne!(env.sh("chmod 600 /dev/null").status.end, End::Exited(0));
}

#[test]
fn typing_into_a_terminal_is_refused_before_the_terminal_is_asked() {
    let env = Env::new();
    env.denied(Control::NotTried, &[EPERM], &["type-into-terminal"]);
    assert_eq!(harness::native(&["type-into-terminal"])["type-into-terminal"], ENOTTY);
    assert_eq!(env.sh_ok("ps -o tty= -p $$ | tr -d ' '"), "?\n");
}

#[test]
fn a_terminal_a_file_or_a_directory_is_no_standard_stream() {
    let env = Env::new();
    let spec = CellSpec::new(env.parts(&["/bin/true"])).expect("valid");
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").expect("null"));
    let bad: [OwnedFd; 3] = [
        std::fs::File::open("/").expect("directory").into(),
        std::fs::File::open("/etc/hostname").expect("file").into(),
        std::fs::File::open("/dev/ptmx").map_or_else(|_| null_like_terminal(), OwnedFd::from),
    ];
    for stream in bad {
        let refused = env.launcher.launch(&spec, [null(), stream, null()]);
        assert!(matches!(refused, Err(LaunchError::Stream(1))), "{refused:?}");
    }
}

/// A machine without terminals: any other character device stands in.
fn null_like_terminal() -> OwnedFd {
    std::fs::File::open("/dev/zero").expect("zero").into()
}
