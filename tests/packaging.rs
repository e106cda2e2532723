//! The files for the system are good by the system's own judgement, where its tools are installed.
#![expect(clippy::print_stderr, reason = "a check that was left out is said")]
#![expect(clippy::disallowed_methods, reason = "the judges are programs")]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What the program said, or `None` when it is not installed.
fn judge(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: {command:?} is not installed");
            None
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}

fn assert_silent(output: &Output) {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert_eq!(String::from_utf8_lossy(&said), "");
    assert!(output.status.success(), "{}", output.status);
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(file("systemd/skep.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/bin/skep daemon\n"));
    // Verification looks whether the program is there: one that is stands in for it.
    let copy = dir.path().join("skep.service");
    fs::write(&copy, unit.replace("ExecStart=/usr/bin/skep daemon", "ExecStart=/bin/true")).unwrap();
    let Some(output) = judge(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy)) else {
        return;
    };
    // Complaints about other units of this machine are not ours.
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("skep")).collect();
    assert_eq!(ours, Vec::<&str>::new());
}

#[test]
fn the_account_and_the_directories_are_made_as_meant() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let at_root = format!("--root={}", root.path().display());
    let Some(output) =
        judge(Command::new("systemd-sysusers").arg(&at_root).arg(file("systemd/skep.sysusers")))
    else {
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let accounts = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(accounts.contains(":Skep agents:/var/lib/skep:/usr/sbin/nologin\n"), "{accounts}");
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let tmpfiles = Command::new("systemd-tmpfiles")
        .args(["--create", &at_root])
        .arg(file("systemd/skep.tmpfiles"))
        .output();
    let output = tmpfiles.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!((mode("etc/skep"), mode("etc/credstore"), mode("var/lib/skep")), (0o750, 0o700, 0o750));
}

#[test]
fn the_manual_pages_are_set_without_a_complaint() {
    for page in ["packaging/man/skep.1", "packaging/man/skep.toml.5"] {
        let set =
            judge(Command::new("groff").args(["-man", "-t", "-Tutf8", "-ww", "-z", "-b"]).arg(file(page)));
        let Some(output) = set else { return };
        assert_silent(&output);
    }
}

/// Every subcommand and option of the help text stands in the manual, and every setting in its own.
#[test]
fn the_manual_pages_name_every_command_and_every_setting() {
    let plain = |name: &str| fs::read_to_string(file(name)).unwrap().replace("\\-", "-").replace("\\&", "");
    let (manual, settings) = (plain("packaging/man/skep.1"), plain("packaging/man/skep.toml.5"));
    let help = Command::new(env!("CARGO_BIN_EXE_skep")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut count = 0;
    for command in commands.filter_map(|line| line.split_whitespace().next()) {
        assert!(manual.contains(&format!("\n.B skep {command}")), "skep.1 is silent about {command}");
        count += 1;
    }
    assert!(count >= 13, "{help}");
    // The answer to an unknown setting lists the known ones.
    for (section, text) in [
        ("telegram", "[telegram]\nzzzzzzzz=1"),
        ("claude", "[claude]\nzzzzzzzz=1"),
        ("defaults", "[defaults]\nzzzzzzzz=1"),
        ("agents", "[agents.a]\nzzzzzzzz=1"),
        ("status", "[status]\nzzzzzzzz=1"),
    ] {
        let error = skep::config::parse(text, "t").unwrap_err();
        let known = error.problems()[0].fix.strip_prefix("known here: ").unwrap().to_owned();
        for key in known.split(", ") {
            assert!(
                settings.contains(&format!("\n.B {key}\n")),
                "skep.toml.5 is silent about {section}.{key}"
            );
        }
    }
}
