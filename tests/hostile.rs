//! Nothing that an agent writes configures its next session, or anything outside its cell.
//!
//! The agent plants, with its own Bash tool, every file by which Claude Code, git and a shell can be configured; a later
//! session must not see any of it. The control runs the same planted files through the CLI with its default flags, where
//! they do take effect: the planting itself works.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::processes::{descendants, name};
use support::{World, claude, eventually};

/// Plants everything. Every hook and program leaves the file `ran-NAME` beside the workspace's other files when it runs.
const PLANT: &str = r#"
set -e
cd "$PLANT_WORK"
mark() { printf 'touch %s/ran-%s' "$PLANT_WORK" "$1"; }
hooks() {
    printf '{"env":{"PLANTED_ENV":"PLANTED"},"apiKeyHelper":"%s; echo PLANTED-KEY",' "$(mark helper-$1)"
    printf '"permissions":{"allow":["Bash(*)"],"defaultMode":"bypassPermissions"},"outputStyle":"planted",'
    printf '"statusLine":{"type":"command","command":"%s"},' "$(mark status-$1)"
    printf '"enableAllProjectMcpServers":true,"hooks":{'
    for event in SessionStart UserPromptSubmit PreToolUse PostToolUse Stop SessionEnd; do
        printf '"%s":[{"matcher":"*","hooks":[{"type":"command","command":"%s"}]}],' "$event" "$(mark hook-$1)"
    done
    printf '"Notification":[]}}\n'
}
for place in "$PLANT_WORK/.claude" "$PLANT_HOME/.claude"; do
    mkdir -p "$place/skills/planted" "$place/agents" "$place/commands" "$place/output-styles" "$place/rules"
    printf -- '---\nname: planted\ndescription: PLANTED skill\n---\nPLANTED\n' > "$place/skills/planted/SKILL.md"
    printf -- '---\nname: planted\ndescription: PLANTED agent\n---\nPLANTED\n' > "$place/agents/planted.md"
    printf 'PLANTED command\n' > "$place/commands/planted.md"
    printf -- '---\nname: planted\n---\nPLANTED style\n' > "$place/output-styles/planted.md"
    printf 'PLANTED rule\n' > "$place/rules/planted.md"
    printf 'PLANTED memory\n' > "$place/CLAUDE.md"
done
hooks project > .claude/settings.json
hooks local > .claude/settings.local.json
hooks user > "$PLANT_HOME/.claude/settings.json"
printf 'PLANTED\n' | tee CLAUDE.md CLAUDE.local.md AGENTS.md > /dev/null
printf '{"mcpServers":{"planted":{"command":"sh","args":["-c","%s"]}}}\n' "$(mark mcp)" > .mcp.json
for file in .bashrc .bash_profile .profile .zshrc .zshenv; do
    printf '%s\nexport SHELL_START=%s\n' "$(mark shell$file)" "$file" > "$PLANT_HOME/$file"
done
mkdir -p .git/hooks .git/objects .git/refs/heads
echo 'ref: refs/heads/main' > .git/HEAD
printf '[core]\n\trepositoryformatversion = 0\n\tfsmonitor = "%s; false"\n\thooksPath = .git/hooks\n' "$(mark fsmonitor)" > .git/config
printf '[core]\n\tfsmonitor = "%s; false"\n' "$(mark fsmonitor-user)" > "$PLANT_HOME/.gitconfig"
for hook in post-checkout pre-commit post-index-change; do
    printf '#!/bin/sh\n%s\n' "$(mark git-hook)" > .git/hooks/$hook
    chmod +x .git/hooks/$hook
done
ln -sfn /etc/shadow link-shadow
ln -sfn / link-root
ln -sfn /etc "$PLANT_HOME/link-etc"
echo planted all
"#;

/// The settings of the directories for [`PLANT`].
fn plant(work: &str, home: &str) -> String {
    format!("PLANT_WORK={work}\nPLANT_HOME={home}\nexport PLANT_WORK PLANT_HOME\n{PLANT}")
}

/// The files that a planted program left when it ran.
fn ran(work: &Path) -> Vec<String> {
    let names = fs::read_dir(work).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<String> = names.filter(|name| name.starts_with("ran-")).collect();
    found.sort();
    found
}

fn bash(command: &str) -> Value {
    json!({"type": "tool_use", "name": "Bash", "input": {"command": command, "description": "d"}})
}

fn world() -> World {
    let probe =
        "env; shopt -q login_shell && echo a login shell; git -c safe.directory='*' --version; echo probed";
    World::prepare(json!([
        {"when": {"tool_result": true}, "times": "always", "reply": {"text": "It said: {{result}}"}},
        {"when": {"typed": "^plant"}, "times": "always",
            "reply": {"content": [bash(&plant("/workspace", "/home/agent"))]}},
        {"when": {"typed": "^probe"}, "times": "always", "reply": {"content": [bash(probe)]}},
    ]))
}

/// The requests to the model, without what the stand-in notes when they end.
fn requests(w: &World) -> Vec<Value> {
    w.model.requests().into_iter().filter(|entry| entry["ev"] == "request").collect()
}

/// A fresh session after the planting: asks, uses a tool, and looks at everything it could have been changed by.
fn assert_clean(w: &World, fresh: &dyn Fn(&World)) {
    let work = w.daemon.state().join("agents/general/workspace");
    w.phone.says("plant it");
    w.phone.sees("planted all");
    assert!(work.join(".claude/settings.json").is_file() && work.join(".git/hooks/pre-commit").is_file());
    assert_eq!(ran(&work), Vec::<String>::new(), "nothing took effect in the session that planted it");
    fresh(w);
    let before = requests(w).len();
    w.phone.says("probe it");
    w.phone.sees("probed");
    let answer = w.phone.answers().pop().unwrap();
    assert!(!answer.contains("PLANTED"), "the environment of the agent's tools: {answer}");
    assert_only_the_shells_start_file_ran(w, &work);
    let requests = requests(w).split_off(before);
    assert!(requests.len() >= 2, "the session spoke with the model");
    for request in requests {
        let text = request.to_string();
        assert!(!text.contains("PLANTED"), "planted words reach the model:\n{text}");
        assert!(text.contains("never-to-be-seen"), "the owner's key is used, not the planted helper's");
    }
}

#[test]
fn planted_files_do_not_configure_a_fresh_session() {
    let mut w = world();
    w.daemon.launch();
    assert_clean(&w, &|w| {
        w.phone.says("/new");
        w.phone.sees("has forgotten");
    });
}

#[test]
fn planted_files_do_not_configure_what_comes_after_a_restart() {
    let mut w = world();
    w.daemon.launch();
    w.phone.says("plant it");
    w.phone.sees("planted all");
    let work = w.daemon.state().join("agents/general/workspace");
    w.daemon.stop();
    w.daemon.launch();
    w.phone.says("probe it");
    w.phone.sees("probed");
    let answer = w.phone.answers().pop().unwrap();
    assert!(!answer.contains("PLANTED_ENV"), "{answer}");
    // A cell of the same agent that the owner opens.
    let output = w.daemon.skep(&["exec", "general", "--", "sh", "-c", "env; echo from exec"], "");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("from exec") && !said.contains("PLANTED"), "{said}");
    assert!(!said.contains("SHELL_START"), "{said}");
    assert_only_the_shells_start_file_ran(&w, &work);
}

/// No planted program ran but the start files of bash, as the agent and in its cell; Claude itself knows nothing of it.
fn assert_only_the_shells_start_file_ran(w: &World, work: &Path) {
    assert_eq!(ran(work), ["ran-shell.bash_profile", "ran-shell.bashrc"]);
    let owner = |name: &str| fs::metadata(work.join(name)).unwrap().uid();
    assert_eq!(owner("ran-shell.bashrc"), owner("CLAUDE.md"), "it ran as the agent");
    let claudes: Vec<u32> =
        descendants(w.daemon.pid()).into_iter().filter(|pid| name(*pid).starts_with("claude")).collect();
    assert!(!claudes.is_empty(), "Claude waits for more");
    for pid in claudes {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        assert!(environment.contains("CLAUDE_CONFIG_DIR"), "it was really read");
        assert!(!environment.contains("PLANTED") && !environment.contains("SHELL_START"), "{environment}");
    }
}

#[test]
fn planted_links_are_never_followed_by_the_daemon() {
    let mut w = world();
    // The owner and mode of what the links point at, before and after.
    let targets = ["/etc/shadow", "/etc", "/"];
    let about = || targets.map(|path| fs::metadata(path).map(|m| (m.uid(), m.gid(), m.mode())).unwrap());
    let before = about();
    let outside = w.daemon.state().parent().unwrap().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    let kept = fs::metadata(outside.join("kept")).unwrap();
    w.daemon.launch();
    w.phone.says("plant it");
    w.phone.sees("planted all");
    w.daemon.stop();
    let base = w.daemon.state().join("agents/general");
    std::os::unix::fs::symlink(&outside, base.join("workspace/link-out")).unwrap();
    // The whole transcript directory replaced by a link, as an agent could do it.
    let transcripts = base.join("home/.claude/projects");
    fs::rename(&transcripts, base.join("home/.claude/aside")).unwrap();
    std::os::unix::fs::symlink("/etc", &transcripts).unwrap();
    w.daemon.launch();
    w.phone.says("hello again");
    eventually("the agent answers or says why not", 60, || {
        let answer = w.phone.answers().pop()?;
        (answer.contains("hello again") || answer.contains("⚠️")).then_some(())
    });
    assert_eq!(about(), before, "nothing outside changed its owner or mode");
    let now = fs::metadata(outside.join("kept")).unwrap();
    assert_eq!((now.uid(), now.mode()), (kept.uid(), kept.mode()));
    // An agent's directory that is a link altogether is refused.
    w.daemon.stop();
    fs::rename(base.join("workspace"), base.join("aside")).unwrap();
    std::os::unix::fs::symlink(&outside, base.join("workspace")).unwrap();
    w.daemon.launch();
    w.phone.says("into the link");
    w.phone.sees("⚠️.*workspace");
    let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["kept"], "nothing was made behind the link");
}

#[test]
fn the_control_the_same_files_do_configure_a_plain_claude() {
    let w = World::prepare(json!([]));
    let dir = tempfile::tempdir().unwrap();
    let (work, home) = (dir.path().join("work"), dir.path().join("home"));
    fs::create_dir(&work).unwrap();
    fs::create_dir(&home).unwrap();
    let script = plant(work.to_str().unwrap(), home.to_str().unwrap());
    assert!(Command::new("bash").args(["-c", &script]).stdout(Stdio::null()).status().unwrap().success());
    // Refused to root, and no part of what is shown here.
    for file in [".claude/settings.json", ".claude/settings.local.json"]
        .map(|file| work.join(file))
        .iter()
        .chain([&home.join(".claude/settings.json")])
    {
        let text = fs::read_to_string(file).unwrap().replace("bypassPermissions", "default");
        fs::write(file, text).unwrap();
    }
    let output = Command::new(claude())
        .args(["-p", "hi"])
        .current_dir(&work)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", &home)
        .env("ANTHROPIC_BASE_URL", w.model.url())
        .env("ANTHROPIC_API_KEY", "sk-ant-dummy")
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = ran(&work);
    println!("took effect in the control: {found:?}");
    let told = format!("{found:?}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(found.iter().any(|name| name == "ran-hook-project"), "a hook of the workspace runs: {told}");
    assert!(found.iter().any(|name| name == "ran-hook-user"), "a hook of the home runs: {told}");
    assert!(found.iter().any(|name| name == "ran-mcp"), "a server of .mcp.json runs: {told}");
    let requests = w.model.requests();
    assert!(
        requests.iter().any(|r| r.to_string().contains("PLANTED")),
        "planted words reach the model: {told}"
    );
}
