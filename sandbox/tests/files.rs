//! What of the host's files a cell can see and change: nothing but what was bound.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod harness;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use harness::{Control, Env, is_root, native_sh};
use libc::{EACCES, ENOENT, ENOSPC, EPERM, EROFS, EXDEV};
use skep_sandbox::Limits;

#[test]
fn the_root_holds_only_what_the_cell_needs() {
    let env = Env::new();
    let mut names: Vec<String> = env.sh_ok("ls -A /").lines().map(str::to_owned).collect();
    names.retain(|name| !["lib32", "lib64", "libx32"].contains(&name.as_str()));
    assert_eq!(
        names,
        ["bin", "dev", "etc", "home", "lib", "opt", "proc", "sbin", "tmp", "usr", "var", "workspace"]
    );
    assert_eq!(env.sh_ok("ls -A /home /opt /var /tmp /dev/shm").lines().filter(|l| !l.is_empty()).count(), 8);
}

#[test]
fn secrets_of_the_host_are_not_in_the_tree() {
    let env = Env::new();
    let secret = env.root.path().join("secret");
    std::fs::write(&secret, "token").expect("secret");
    let secret = format!("read:{}", secret.display());
    env.denied(Control::Works, &[ENOENT], &[&secret]);
    env.denied(Control::WorksForRoot, &[ENOENT], &["read:/etc/shadow", "list:/root", "read:/proc/kallsyms"]);
    env.denied(
        Control::NotTried,
        &[ENOENT],
        &["list:/run", "list:/sys", "list:/var/lib", "list:/srv", "list:/boot"],
    );
    assert_eq!(env.sh_ok("ls -A /home").trim(), "agent");
}

#[test]
fn system_directories_are_read_only() {
    let env = Env::new();
    env.denied(
        Control::WorksForRoot,
        &[EROFS, EACCES],
        &["create:/usr/bin/skep-evil", "unlink:/usr/bin/skep-evil"],
    );
    env.denied(
        Control::NotTried,
        &[EROFS, EACCES],
        &[
            "create:/etc/evil",
            "create:/evil",
            "create:/bin/evil",
            "create:/opt/evil",
            "create:/home/evil",
            "create:/dev/evil",
            "write:/etc/passwd",
            "truncate:/etc/hosts",
            "truncate:/usr/bin/env",
            "unlink:/etc/passwd",
            "write:/opt/skep/probe",
        ],
    );
}

#[test]
fn generated_files_are_there_and_read_only() {
    let env = Env::new();
    let mut parts = env.parts(&["/bin/sh", "-c", "cat /etc/claude-code/managed-settings.json; id; hostname"]);
    parts.etc_files.push(("claude-code/managed-settings.json".into(), b"{\"x\":1}\n".to_vec()));
    let text = env.run_parts(parts.clone()).text;
    assert!(
        text.contains("{\"x\":1}") && text.contains("uid=1000(agent)") && text.ends_with("bee\n"),
        "{text}"
    );
    parts.argv[2] = "echo x > /etc/claude-code/managed-settings.json || rm -f /etc/claude-code/managed-settings.json || mv /etc/claude-code /etc/x".into();
    assert_ne!(env.run_parts(parts).status.end, skep_sandbox::End::Exited(0));
}

#[test]
fn work_stays_and_belongs_to_the_agent_and_the_daemons_group() {
    let env = Env::new();
    env.sh_ok("mkdir sub && echo hello > sub/file && echo h > /home/agent/.profile");
    let file = env.workspace().join("sub/file");
    let metadata = std::fs::metadata(&file).expect("written");
    assert_eq!(std::fs::read_to_string(&file).expect("readable by the daemon"), "hello\n");
    match env.slot {
        Some(slot) => {
            assert_eq!(metadata.uid(), 1_900_000_000 + u32::from(slot));
            assert_eq!(metadata.gid(), nix::unistd::getegid().as_raw());
            assert_eq!(metadata.mode() & 0o777, 0o660);
        }
        None => assert_eq!(metadata.mode() & 0o777, 0o600),
    }
}

#[test]
fn a_workspace_below_closed_directories_works() {
    let env = Env::new();
    let closed = env.root.path().join("closed");
    std::fs::create_dir_all(closed.join("w")).expect("directories");
    env.launcher.prepare_dir(&closed.join("w"), env.slot).expect("prepared");
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).expect("closed");
    let mut parts = env.parts(&["/bin/sh", "-c", "touch here && pwd"]);
    parts.workspace = closed.join("w");
    assert_eq!(env.run_parts(parts).text, "/workspace\n");
    assert!(closed.join("w/here").exists());
}

#[test]
fn setuid_bits_give_nothing_and_devices_do_not_open() {
    let env = Env::new();
    let text = env.sh_ok("cp /usr/bin/id id && chmod u+s,g+s id && ./id -u; grep -c nosuid /proc/self/mountinfo >/dev/null && echo ok");
    assert_eq!(text, "1000\nok\n");
    if is_root() {
        // Planted by a careless administrator: the mount still refuses to open it.
        assert!(native_sh("mknod zero c 1 5 && chmod 666 zero && head -c1 zero", &env.workspace()));
        env.denied(Control::NotTried, &[EACCES], &["read:/workspace/zero"]);
    }
}

#[test]
fn links_do_not_carry_files_in_or_out() {
    let env = Env::new();
    let secret = env.root.path().join("secret");
    std::fs::write(&secret, "token").expect("secret");
    std::os::unix::fs::symlink(&secret, env.workspace().join("link")).expect("link");
    env.denied(
        Control::NotTried,
        &[ENOENT],
        &["read:/workspace/link", "read:/workspace/link/", "read:/workspace//link"],
    );
    env.denied(
        Control::NotTried,
        &[EXDEV, EPERM, EROFS, EACCES],
        &["hardlink:/usr/bin/env", "hardlink:/etc/passwd"],
    );
    let walk = "read:/proc/self/cwd/../../../../../etc/shadow";
    env.denied(Control::NotTried, &[ENOENT], &[walk, "read:/proc/self/root/etc/shadow"]);
}

#[test]
fn temporary_file_systems_are_private_and_capped() {
    let env = Env::new();
    std::fs::write("/tmp/skep-visible", "x").expect("host file");
    env.denied(Control::Works, &[ENOENT], &["read:/tmp/skep-visible"]);
    std::fs::remove_file("/tmp/skep-visible").expect("removed");
    let mut parts = env.parts(&["/bin/sh", "-c", "head -c 2000000 /dev/zero > /tmp/f; stat -c %s /tmp/f; head -c 2000000 /dev/zero > /dev/shm/f; stat -c %s /dev/shm/f"]);
    parts.limits = Limits { tmpfs_bytes: 1 << 20, tmpfs_inodes: 64, ..Limits::default() };
    let text = env.run_parts(parts.clone()).text;
    assert_eq!(text.lines().filter(|line| *line == "1048576").count(), 2, "{text}");
    parts.argv[2] = "i=0; while true > /tmp/$i; do i=$((i+1)); done; echo $i".into();
    let text = env.run_parts(parts).text;
    let made: u32 = text.lines().last().expect("a count").parse().expect("a number");
    assert!(made < 64 && text.to_lowercase().contains("no space"), "{made}: {text}");
    let _ = ENOSPC;
}
