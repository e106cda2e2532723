//! Step "etc": a generated `/etc` with no secret in it, and the few host files that programs need to run.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::root::{attach, directory};
use super::sources::Trees;
use super::{At, Done, Plan};
use crate::report::Step;

/// Bound read-only from the host where they exist: the dynamic linker's cache, Debian's alternatives, TLS roots.
pub(crate) const HOST_ETC: [&str; 3] = ["ld.so.cache", "alternatives", "ssl/certs"];

const PASSWD: &str = "agent:x:1000:1000:agent:/home/agent:/bin/bash\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "agent:x:1000:\nnogroup:x:65534:\n";
/// No `dns`: there is no resolver in a cell, and a lookup must fail at once instead of timing out.
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files\nnetworks: files\n\
                        protocols: files\nservices: files\n";

pub(crate) fn write(plan: &Plan<'_>, trees: &Trees) -> Done {
    let name = &plan.parts.agent;
    let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost\n");
    // Writing to a string cannot fail.
    let _ = writeln!(hosts, "127.0.1.1 {name}");
    file("passwd", PASSWD.as_bytes())?;
    file("group", GROUP.as_bytes())?;
    file("nsswitch.conf", NSSWITCH.as_bytes())?;
    file("hosts", hosts.as_bytes())?;
    file("hostname", format!("{name}\n").as_bytes())?;
    file("resolv.conf", b"")?;
    if let Some(zone) = &plan.host.timezone {
        file("timezone", zone)?;
    }
    if let Some(target) = &plan.host.localtime {
        symlink(target, "etc/localtime").at(Step::Etc, "link /etc/localtime")?;
    }
    for (path, tree) in &trees.etc {
        let onto = Path::new("etc").join(path);
        parents(Path::new(path))?;
        if *path == "ld.so.cache" {
            file(path, b"")?;
        } else {
            directory(&onto)?;
        }
        attach(tree, &onto)?;
    }
    for (path, contents) in &plan.parts.etc_files {
        parents(path)?;
        std::fs::write(Path::new("etc").join(path), contents)
            .at(Step::Etc, format_args!("write /etc/{}", path.display()))?;
    }
    Ok(())
}

fn file(name: &str, contents: &[u8]) -> Done {
    std::fs::write(Path::new("etc").join(name), contents).at(Step::Etc, format_args!("write /etc/{name}"))
}

fn parents(path: &Path) -> Done {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::create_dir_all(Path::new("etc").join(parent))
        .at(Step::Etc, format_args!("make the directory /etc/{}", parent.display()))
}
