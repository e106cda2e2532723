//! Ordinary tools work in a cell: a wall that breaks them would be switched off.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

mod harness;

use harness::{Env, skip};
use skep_sandbox::End;

fn has(env: &Env, tool: &str) -> bool {
    let ask = if tool.contains(' ') { tool.to_owned() } else { format!("command -v {tool}") };
    let found = env.sh(&ask).status.end == End::Exited(0);
    if !found {
        skip(&format!("{tool} is not in /usr"));
    }
    found
}

#[test]
fn a_shell_pipeline_with_files_links_and_locks() {
    let env = Env::new();
    let text = env.sh_ok(
        "set -e; mkdir d; printf 'b\\na\\n' > d/x; sort d/x | tee d/y | wc -l; ln -s y d/z; cat d/z; mkfifo p; \
         (echo through > p &); cat p; flock lock echo locked; cp -a d e; mv e f; find f -type f | wc -l; \
         tar cf - d | tar tf - | wc -l; rm -r d f; sleep 0.01; date +%Y >/dev/null; nproc >/dev/null; whoami",
    );
    assert_eq!(text, "2\na\nb\nthrough\nlocked\n2\n4\nagent\n");
}

#[test]
fn a_c_program_is_compiled_and_run() {
    let env = Env::new();
    if has(&env, "gcc") {
        let text = env.sh_ok(
            "printf '#include <stdio.h>\\nint main(){puts(\"built\");}' > a.c && gcc -O1 a.c -o a && ./a",
        );
        assert_eq!(text, "built\n");
    }
}

#[test]
fn git_keeps_history() {
    let env = Env::new();
    if has(&env, "git") {
        let text = env.sh_ok(
            "git init -q r && cd r && git config user.email a@b && git config user.name n && echo x > f && git add f && \
             git commit -qm first && git log --format=%s && git gc -q && git clone -q . ../s && git -C ../s status -s",
        );
        assert_eq!(text, "first\n");
    }
}

#[test]
fn python_runs_threads_processes_and_its_allocator() {
    let env = Env::new();
    let modules = "python3 -c 'import multiprocessing, sqlite3, ssl'";
    if has(&env, modules) {
        let text = env.sh_ok(
            "cat > t.py <<'END'\nimport multiprocessing, threading, sqlite3, tempfile, ssl, subprocess, mmap\n\
             def f(x): return x*x\nif __name__=='__main__':\n  with multiprocessing.Pool(2) as p: print(sum(p.map(f,range(10))))\n  \
             t=threading.Thread(target=print,args=('thread',)); t.start(); t.join()\n  \
             d=sqlite3.connect('x.db'); d.execute('create table a(b)'); d.execute('pragma journal_mode=wal'); d.commit()\n  \
             m=mmap.mmap(-1,4096,prot=mmap.PROT_READ|mmap.PROT_WRITE|mmap.PROT_EXEC); print(len(m))\n  \
             print(subprocess.check_output(['echo','sub']).decode().strip())\nEND\npython3 t.py",
        );
        assert_eq!(text, "285\nthread\n4096\nsub\n");
    }
}

#[test]
fn node_starts_and_compiles() {
    let env = Env::new();
    if has(&env, "node") {
        let text = env.sh_ok(
            "node -e \"const {execSync}=require('child_process');const fs=require('fs');fs.watch('.').close();\
             console.log(execSync('echo hi').toString().trim(), require('os').cpus().length>=0)\"",
        );
        assert_eq!(text, "hi true\n");
    }
}

#[test]
fn claude_code_tells_its_version() {
    let Some(claude) = std::env::var_os("SKEP_CLAUDE") else {
        return skip("SKEP_CLAUDE does not point to a claude binary");
    };
    let env = Env::new();
    let mut parts = env.parts(&["/opt/skep/claude", "--version"]);
    parts.programs.push((claude.into(), "/opt/skep/claude".into()));
    let output = env.run_parts(parts);
    assert_eq!(output.status.end, End::Exited(0), "{}", output.text);
    assert!(output.text.contains("(Claude Code)"), "{}", output.text);
}
