use super::*;
use crate::policy::Policies;

/// Runs a program as the kernel would.
fn run(program: &[sock_filter], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend_from_slice(&number.to_le_bytes());
    data.extend_from_slice(&arch.to_le_bytes());
    data.extend_from_slice(&0_u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend_from_slice(&arg.to_le_bytes()));
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let now = &program[at];
        at += 1;
        let mut decide = |yes: bool| at += usize::from(if yes { now.jt } else { now.jf });
        match u32::from(now.code) {
            c if c == BPF_LD | BPF_W | BPF_ABS => {
                let k = now.k as usize;
                accumulator = u32::from_le_bytes(data[k..k + 4].try_into().expect("four bytes"));
            }
            c if c == BPF_ALU | BPF_AND | BPF_K => accumulator &= now.k,
            c if c == BPF_JMP | BPF_JA => at += now.k as usize,
            c if c == BPF_JMP | BPF_JEQ | BPF_K => decide(accumulator == now.k),
            c if c == BPF_JMP | BPF_JGE | BPF_K => decide(accumulator >= now.k),
            c if c == BPF_JMP | BPF_JSET | BPF_K => decide(accumulator & now.k != 0),
            c if c == BPF_RET | BPF_K => return now.k,
            c => panic!("unknown instruction {c:#x}"),
        }
    }
}

fn cell(number: i64, args: [u64; 6]) -> u32 {
    run(&Policies::compile().cell, ARCHITECTURE, number as u32, args)
}

const fn error(errno: i32) -> u32 {
    SECCOMP_RET_ERRNO | errno as u32
}

#[test]
fn another_architecture_and_x32_are_killed() {
    let program = Policies::compile().cell;
    assert_eq!(run(&program, 0x4000_0003, 1, [0; 6]), SECCOMP_RET_KILL_PROCESS);
    #[cfg(target_arch = "x86_64")]
    assert_eq!(run(&program, ARCHITECTURE, 0x4000_0000 + 1, [0; 6]), SECCOMP_RET_KILL_PROCESS);
    assert_eq!(run(&program, ARCHITECTURE, u32::MAX, [0; 6]), error(libc::ENOSYS));
}

#[test]
fn every_table_entry_gets_its_own_answer_and_the_rest_enosys() {
    let table = crate::policy::cell::table();
    let program = Policies::compile().cell;
    for number in 0..1000_u32 {
        let named = table.iter().rev().find(|(named, _)| *named == i64::from(number));
        let expected = match named {
            Some((_, Answer::Allow)) => SECCOMP_RET_ALLOW,
            Some((_, Answer::Error(errno))) => error(*errno),
            Some((_, Answer::Kill | Answer::Look(..))) => continue,
            None => error(libc::ENOSYS),
        };
        assert_eq!(run(&program, ARCHITECTURE, number, [0; 6]), expected, "call {number}");
    }
}

#[test]
fn no_call_is_named_twice() {
    let mut numbers: Vec<i64> = crate::policy::cell::table().iter().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    let twice: Vec<i64> = numbers.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    assert_eq!(twice, Vec::<i64>::new());
}

#[test]
fn new_namespaces_are_refused_even_with_garbage_above_bit_31() {
    let garbage = 0xdead_beef_0000_0000;
    let one = |value: u64| [value, 0, 0, 0, 0, 0];
    for flag in [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ] {
        let flag = flag as u64;
        assert_eq!(cell(libc::SYS_clone, one(garbage | flag | 17)), error(libc::EPERM));
        assert_eq!(cell(libc::SYS_unshare, one(garbage | flag)), error(libc::EPERM));
    }
    assert_eq!(cell(libc::SYS_clone, one(17)), SECCOMP_RET_ALLOW);
    assert_eq!(cell(libc::SYS_clone3, [0; 6]), error(libc::ENOSYS));
    assert_eq!(cell(libc::SYS_setns, [0; 6]), error(libc::EPERM));
}

#[test]
fn socket_families_and_types() {
    let socket = |family: i32, kind: i32, protocol: i32| {
        cell(libc::SYS_socket, [family as u64, kind as u64, protocol as u64, 0, 0, 0])
    };
    let stream = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    assert_eq!(socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0), SECCOMP_RET_ALLOW);
    assert_eq!(socket(libc::AF_INET, stream, 0), SECCOMP_RET_ALLOW);
    assert_eq!(socket(libc::AF_INET6, stream, libc::IPPROTO_TCP), SECCOMP_RET_ALLOW);
    assert_eq!(socket(libc::AF_INET, stream, libc::IPPROTO_MPTCP), error(libc::EPERM));
    assert_eq!(socket(libc::AF_INET, libc::SOCK_DGRAM, 0), error(libc::EPERM));
    assert_eq!(socket(libc::AF_INET6, libc::SOCK_RAW, 58), error(libc::EPERM));
    for family in [libc::AF_NETLINK, libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, 44] {
        assert_eq!(socket(family, libc::SOCK_RAW, 0), error(libc::EAFNOSUPPORT));
    }
}

#[test]
fn single_arguments() {
    let ioctl = |request: u64| cell(libc::SYS_ioctl, [0, request, 0, 0, 0, 0]);
    assert_eq!(ioctl(0x5412 | 0xffff_ffff_0000_0000), error(libc::EPERM));
    assert_eq!(ioctl(0x5401), SECCOMP_RET_ALLOW);
    let prlimit = |new: u64| cell(libc::SYS_prlimit64, [0, 4, new, 0, 0, 0]);
    assert_eq!((prlimit(0), prlimit(1 << 40)), (SECCOMP_RET_ALLOW, error(libc::EINVAL)));
    let seccomp = |flags: u64| cell(libc::SYS_seccomp, [1, flags, 0, 0, 0, 0]);
    assert_eq!((seccomp(0), seccomp(8)), (SECCOMP_RET_ALLOW, error(libc::EPERM)));
}

#[test]
fn the_helper_may_become_only_the_inside_id() {
    let program = Policies::compile().helper;
    let set = |ids: [u64; 3]| {
        run(&program, ARCHITECTURE, libc::SYS_setresuid as u32, [ids[0], ids[1], ids[2], 0, 0, 0])
    };
    assert_eq!(set([1000, 1000, 1000]), SECCOMP_RET_ALLOW);
    for ids in [[0, 0, 0], [1000, 0, 1000], [1000, 1000, 0], [0xffff_ffff, 0, 0xffff_ffff]] {
        assert_eq!(set(ids), error(libc::EPERM));
    }
    assert_eq!(run(&program, ARCHITECTURE, libc::SYS_setuid as u32, [0; 6]), error(libc::EPERM));
}
