#!/usr/bin/env python3
"""`make run`: starts Skep from the source tree.

With TELEGRAM_BOT_TOKEN and ANTHROPIC_API_KEY (or CLAUDE_CODE_OAUTH_TOKEN) in the environment, or with
config/local.toml and its credentials in place: for real. Otherwise against the stand-ins of tests/, with a scripted
model and a terminal chat attached; without a terminal it plays the three demo messages and ends.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SKEP = ROOT / "target" / "debug" / "skep"
CLAUDE = pathlib.Path(os.environ.get("SKEP_CLAUDE") or ROOT / ".local" / "claude" / "claude")
DEMO = ["hello", "run a tool", "try to escape"]


def dim(text):
    print(f"\033[2m{text}\033[0m" if sys.stdout.isatty() else text, flush=True)


def write_secret(path, text):
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text + "\n")
    os.chmod(path, 0o600)


def run_for_real():
    """Returns only when there is nothing to run for real with."""
    token = os.environ.get("TELEGRAM_BOT_TOKEN")
    key, oauth = os.environ.get("ANTHROPIC_API_KEY"), os.environ.get("CLAUDE_CODE_OAUTH_TOKEN")
    local = ROOT / "config" / "local.toml"
    state = ROOT / ".local" / "state"
    credentials = state / "credentials"
    if not (token and (key or oauth)) and not (local.exists() and credentials.exists()):
        return
    state.mkdir(parents=True, exist_ok=True)
    for name, value in (("telegram-token", token), ("anthropic-api-key", key), ("claude-oauth-token", oauth)):
        if value:
            write_secret(credentials / name, value)
    settings = state / "skep.toml"
    if local.exists():
        settings.write_text(local.read_text())
    elif not settings.exists():
        settings.write_text(f'[claude]\nprogram = "{CLAUDE}"\n\n[agents.general]\ndescription = "Everyday questions and chores"\n')
    dim(f"For real, with its state in {state}. Ctrl-C ends it.")
    dim(f"Not paired yet? In another terminal: {SKEP} --state {state} pair")
    clean = {k: v for k, v in os.environ.items() if k not in ("TELEGRAM_BOT_TOKEN", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN")}
    os.execve(SKEP, [str(SKEP), "--state", str(state), "daemon"], clean)


def start(command, **options):
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
    return child, json.loads(child.stdout.readline())


def wait_for(state, daemon, log):
    for _ in range(300):
        if daemon.poll() is not None:
            sys.exit(f"The daemon ended at once ({daemon.returncode}):\n{log.read_text()}")
        done = subprocess.run([SKEP, "--state", state, "status", "--json"], capture_output=True, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout)
        time.sleep(0.1)
    sys.exit(f"The daemon did not come up:\n{log.read_text()}")


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def demo():
    children = []
    state = pathlib.Path(tempfile.mkdtemp(prefix="skep-demo-"))
    try:
        model, model_at = start(
            [sys.executable, "fake_anthropic.py", "--port", "0", "--scenario", ROOT / "tests/demo/scenario.json"],
            cwd=ROOT / "tests" / "fake-anthropic")
        children.append(model)
        phone, phone_at = start(
            [sys.executable, "-m", "fake_telegram", "--stop-with-stdin"], cwd=ROOT / "tests" / "fake-telegram")
        children.append(phone)
        (state / "skep.toml").write_text(
            f'[telegram]\nowners = [42]\napi_url = "{phone_at["api_url"]}"\n\n'
            f'[claude]\nprogram = "{CLAUDE}"\nupstream = "{model_at["url"]}"\n\n'
            '[agents.general]\ndescription = "Everyday questions and chores"\n\n'
            '[status]\nlisten = "127.0.0.1:0"\n')
        write_secret(state / "credentials" / "telegram-token", phone_at["token"])
        write_secret(state / "credentials" / "anthropic-api-key", "sk-ant-real-key-that-no-cell-ever-sees")
        log = state / "daemon.log"
        daemon = subprocess.Popen([SKEP, "--state", state, "daemon"], stderr=open(log, "w"), stdin=subprocess.DEVNULL)
        children.append(daemon)
        overview = wait_for(state, daemon, log)
        machine = overview["machine"]
        dim("Skep runs against stand-ins of Telegram and of the model API. The Claude Code CLI and its cell are real.")
        dim(f"  cells    {machine['tier']}: {', '.join(machine['layers'])}")
        for missing in machine["missing"]:
            dim(f"  missing  {missing}")
        page = next((line.split("http", 1)[1] for line in log.read_text().splitlines() if "status page" in line and "http" in line), None)
        if page:
            dim(f"  status   http{page.split()[0].strip(chr(34))}")
        dim(f"  log      {log}")
        control = phone_at["control_url"]
        post(f"{control}/messages", {"from_id": 42, "text": "hello"})
        urllib.request.urlopen(f"{control}/wait?chat_id=42&text=stand-in.*escape&timeout=60", timeout=70).read()
        time.sleep(1)
        dim("\nWhat the owner sees on the phone:")
        print(urllib.request.urlopen(f"{control}/transcript?chat_id=42&format=text", timeout=10).read().decode())
        chat = [SKEP, "--state", state, "chat"]
        if sys.stdin.isatty():
            dim(f"A terminal chat with the same agent. Try: {' · '.join(DEMO)}. Ctrl-D leaves.")
            subprocess.run(chat)
        else:
            dim("A terminal chat with the same agent:")
            done = subprocess.run(chat, input="\n".join(DEMO) + "\n", text=True)
            if done.returncode != 0:
                sys.exit(f"the chat failed ({done.returncode}):\n{log.read_text()[-4000:]}")
    finally:
        for child in reversed(children):
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()


if __name__ == "__main__":
    try:
        run_for_real()
        demo()
    except KeyboardInterrupt:
        pass
