//! Launch integrity: it was really applied, or it did not start; and nothing is left behind.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod harness;

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;

use harness::{Env, HELPER, is_root, native_sh, skip};
use skep_sandbox::{CellSpec, End, LaunchError, Launcher, LauncherConfig, NAMESPACES, Step, Tier};

fn failing(step: Step) -> Env {
    Env::with(|config| config.testing.fail = Some((step, libc::EIO)))
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count()
}

fn children(pid: u32) -> BTreeSet<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_report_says_what_the_kernel_says() {
    let env = Env::new();
    let (cell, _reader) = env.start(env.parts(&["/bin/sleep", "60"]));
    let report = cell.report();
    assert_eq!(report.first_missing(), None);
    assert_eq!(report.namespaces, NAMESPACES);
    assert_eq!(report.canary_hidden, Some(true));
    assert_eq!(report.own_uid, env.slot.is_some());
    assert!(report.seccomp_filters.is_none_or(|count| count >= 2));
    assert_eq!(report.landlock, env.launcher.capabilities().landlock);
    let host = std::fs::read_to_string(format!("/proc/{}/status", cell.command_pid())).expect("status");
    assert!(
        host.lines().any(|line| line.starts_with("Uid:") && line.contains(&report.uid.to_string())),
        "{host}"
    );
    let text = report.to_string();
    assert!(text.contains("canary hidden: yes") && !text.contains("NO"), "{text}");
}

#[test]
fn a_step_that_fails_is_named_and_nothing_is_executed_or_left() {
    for step in Step::ALL {
        let env = failing(*step);
        let helper = env.launcher.helper_pid();
        let before = descriptors(helper);
        for _ in 0..3 {
            match env.try_start(env.parts(&["/bin/sh", "-c", "echo ran > /workspace/ran"])) {
                Err(LaunchError::Step { step: named, errno, .. }) => {
                    assert_eq!((named, errno), (*step, libc::EIO))
                }
                other => panic!("{step}: {other:?}"),
            }
        }
        assert!(!env.workspace().join("ran").exists(), "{step}: something was executed");
        assert_eq!(descriptors(helper), before, "{step}: descriptors were left");
        assert_eq!(children(helper), BTreeSet::new(), "{step}: a process was left");
    }
}

#[test]
fn two_hundred_launches_leave_nothing() {
    let env = Env::new();
    let helper = env.launcher.helper_pid();
    env.sh_ok("true");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let (ours, theirs) = (descriptors(std::process::id()), descriptors(helper));
    for _ in 0..200 {
        assert_eq!(env.run(&["/bin/true"]).status.end, End::Exited(0));
    }
    // One more answer: by then the helper has reaped the last cell.
    env.launcher.prepare_dir(&env.workspace(), env.slot).expect("prepared");
    assert_eq!(descriptors(helper), theirs);
    // Other tests of this process run meanwhile: a few descriptors of theirs may be open, hundreds may not.
    assert!(descriptors(std::process::id()) < ours + 60);
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").expect("mounts"), mounts);
    assert_eq!(children(helper), BTreeSet::new());
}

#[test]
fn a_cell_inherits_three_descriptors_and_exactly_its_environment() {
    let env = Env::new();
    let text = env.sh_ok("ls /proc/self/fd | tr '\\n' ' '; echo; cat /proc/self/environ | tr '\\0' '\\n' | sort; cat /proc/self/cmdline | tr '\\0' ' '");
    let mut lines = text.lines();
    // The fourth belongs to ls itself.
    assert_eq!(lines.next(), Some("0 1 2 3 "));
    let rest: Vec<&str> = lines.collect();
    let path = "PATH=/usr/local/bin:/usr/bin:/bin";
    assert_eq!(rest[..4], ["HOME=/home/agent", path, "PWD=/workspace", "TMPDIR=/tmp"]);
    assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "{text}");
    let mounts = env.sh_ok("cat /proc/self/mountinfo");
    assert!(!mounts.contains("canary"));
}

#[test]
fn a_readable_canary_stops_the_launch() {
    let env = Env::unchecked(|config| config.canary = Some("/usr/bin/env".into()));
    let refused = env.try_start(env.parts(&["/bin/true"]));
    assert!(matches!(refused, Err(LaunchError::Step { step: Step::Canary, .. })), "{refused:?}");
    assert_eq!(env.launcher.tier(), Tier::T4, "the trial launch found it too");
}

#[test]
fn a_swapped_or_linked_workspace_is_never_followed() {
    let env = Env::new();
    let (real, link) = (env.root.path().join("elsewhere"), env.root.path().join("link"));
    std::fs::create_dir(&real).expect("directory");
    symlink(&real, &link).expect("link");
    symlink("/nonexistent/dangling", env.root.path().join("dangling")).expect("link");
    for name in ["link", "dangling"] {
        let mut parts = env.parts(&["/bin/true"]);
        parts.workspace = env.root.path().join(name);
        assert!(matches!(env.try_start(parts), Err(LaunchError::Open { .. })));
        let refused = env.launcher.prepare_dir(&env.root.path().join(name), env.slot);
        assert!(matches!(refused, Err(LaunchError::Open { .. })));
    }
    assert!(!std::path::Path::new("/nonexistent").exists());
    // A link on the way is the owner's own choice and is resolved once, by the daemon.
    std::fs::create_dir(real.join("w")).expect("directory");
    env.launcher.prepare_dir(&real.join("w"), env.slot).expect("prepared");
    let mut parts = env.parts(&["/bin/sh", "-c", "touch here"]);
    parts.workspace = link.join("w");
    assert_eq!(env.run_parts(parts).status.end, End::Exited(0));
    assert!(real.join("w/here").exists());
}

#[test]
fn a_workspace_swapped_while_cells_start_is_bound_truly_or_not_at_all() {
    let env = Env::new();
    let dirs = ["a", "b"].map(|name| env.root.path().join(name));
    for dir in &dirs {
        std::fs::create_dir(dir).expect("directory");
        env.launcher.prepare_dir(dir, env.slot).expect("prepared");
    }
    std::fs::write(dirs[1].join("secret"), "x").expect("secret");
    let (stop, swapped) = (std::sync::atomic::AtomicBool::new(false), env.root.path().join("swap"));
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(relaxed) {
                let _ = std::fs::rename(&dirs[0], &swapped);
                let _ = symlink(&dirs[1], &dirs[0]);
                let _ = std::fs::remove_file(&dirs[0]);
                let _ = std::fs::rename(&swapped, &dirs[0]);
            }
        });
        for _ in 0..40 {
            let mut parts = env.parts(&["/bin/sh", "-c", "ls"]);
            parts.workspace.clone_from(&dirs[0]);
            if let Ok((_cell, mut reader)) = env.try_start(parts) {
                let mut text = String::new();
                std::io::Read::read_to_string(&mut reader, &mut text).expect("output");
                assert_eq!(text, "", "the link's target was bound");
            }
        }
        stop.store(true, relaxed);
    });
}

#[test]
fn slots_out_of_range_and_the_root_user_are_refused() {
    let env = Env::new();
    let mut parts = env.parts(&["/bin/true"]);
    parts.uid_slot = Some(64);
    assert!(matches!(env.try_start(parts.clone()), Err(LaunchError::Refused(_))));
    parts.uid_slot = None;
    match env.try_start(parts) {
        Err(LaunchError::Refused(why)) => assert!(is_root() && why.contains("root"), "{why}"),
        other => assert!(!is_root() && other.is_ok()),
    }
    let mut config = LauncherConfig::new(HELPER.into());
    config.uid_base = 0;
    assert!(matches!(Launcher::start(config), Err(LaunchError::Refused(_))));
}

#[test]
fn two_agents_cannot_read_each_other() {
    let env = Env::new();
    if env.slot.is_none() {
        return skip("agents share one uid here");
    }
    let other = env.root.path().join("other");
    std::fs::create_dir(&other).expect("directory");
    env.launcher.prepare_dir(&other, Some(2)).expect("prepared");
    let mut parts = env.parts(&["/bin/sh", "-c", "echo secret > file"]);
    (parts.workspace, parts.home, parts.uid_slot) = (other.clone(), other.clone(), Some(2));
    assert_eq!(env.run_parts(parts).status.end, End::Exited(0));
    // Even bound by mistake into the first agent's cell, the files stay closed to its uid.
    let mut parts = env.parts(&["/bin/sh", "-c", "cat file"]);
    parts.home.clone_from(&other);
    parts.argv[2] = "cat /home/agent/file".into();
    assert_ne!(env.run_parts(parts.clone()).status.end, End::Exited(0));
    parts.workspace = other;
    let refused = env.try_start(parts);
    assert!(
        matches!(refused, Err(LaunchError::Step { step: Step::Exec, errno: libc::EACCES, .. })),
        "{refused:?}"
    );
}

#[test]
fn only_the_daemons_and_the_agents_files_change_hands() {
    let env = Env::new();
    let file = env.root.path().join("seed");
    std::fs::write(&file, "x").expect("file");
    env.launcher.prepare_file(&file, env.slot).expect("prepared");
    env.launcher.prepare_file(&file, env.slot).expect("again");
    std::fs::hard_link(&file, env.root.path().join("second")).expect("link");
    assert!(matches!(env.launcher.prepare_file(&file, None), Err(LaunchError::Refused(_))));
    if is_root() {
        assert!(native_sh("mkdir foreign && chown 4242 foreign", env.root.path()));
        let refused = env.launcher.prepare_dir(&env.root.path().join("foreign"), env.slot);
        assert!(matches!(refused, Err(LaunchError::Refused(_))), "{refused:?}");
        let metadata = std::fs::metadata(env.root.path().join("foreign")).expect("metadata");
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), 4242);
    } else {
        assert!(matches!(env.launcher.prepare_dir("/usr".as_ref(), None), Err(LaunchError::Refused(_))));
    }
}

#[test]
fn a_missing_layer_lowers_the_tier_and_is_never_silent() {
    let env = Env::with(|config| config.testing.without_landlock = true);
    let report = env.launcher.capabilities();
    assert!(env.launcher.tier() >= Tier::T1);
    assert!(report.missing().iter().any(|line| line.contains("Landlock")), "{:?}", report.missing());
    let (cell, _reader) = env.start(env.parts(&["/bin/sleep", "60"]));
    assert_eq!(cell.report().landlock, None);
    assert!(cell.report().to_string().contains("landlock: none"));
}

#[test]
fn a_cgroup_that_cannot_be_used_stops_every_launch() {
    let env = Env::with(|config| config.cgroup = Some("/nonexistent/cgroup".into()));
    let problem = env.launcher.capabilities().cgroup_problem.clone().expect("a problem");
    assert!(problem.contains("/nonexistent/cgroup"), "{problem}");
    assert!(env.launcher.capabilities().missing().iter().any(|line| line.contains("Delegate")));
    let refused = env.try_start(env.parts(&["/bin/true"])).map(drop);
    assert!(matches!(refused, Err(LaunchError::Step { step: Step::Cgroup, .. })), "{refused:?}");
}

#[test]
fn a_helper_that_is_missing_or_dead_is_an_error() {
    let config = LauncherConfig::new("/nonexistent/skep-sandbox".into());
    assert!(matches!(Launcher::start(config), Err(LaunchError::Start { .. })));
    let config = LauncherConfig::new("/bin/true".into());
    assert!(matches!(Launcher::start(config), Err(LaunchError::HelperGone)));
    let env = Env::new();
    let helper = nix::unistd::Pid::from_raw(env.launcher.helper_pid().cast_signed());
    nix::sys::signal::kill(helper, skep_sandbox::Signal::SIGKILL).expect("kill");
    let spec = CellSpec::new(env.parts(&["/bin/true"])).expect("valid");
    let null = || std::os::fd::OwnedFd::from(std::fs::File::open("/dev/null").expect("null"));
    let gone = env.launcher.launch(&spec, [null(), null(), null()]);
    assert!(matches!(gone, Err(LaunchError::HelperGone)), "{gone:?}");
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    let env = Env::new();
    match env.try_start(env.parts(&["/opt/skep/missing"])) {
        Err(error @ LaunchError::Step { step: Step::Exec, errno: libc::ENOENT, .. }) => {
            assert!(error.to_string().contains("/opt/skep/missing"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}
