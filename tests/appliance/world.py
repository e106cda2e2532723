"""The owner's phone and the model, both stand-ins on this host; and what the checks ask of the machine."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from machine import ROOT

OWNER = 42
KEY = "sk-ant-api03-planted-7f3a9c-never-to-be-seen"
# Where the settings find the stand-ins: sockets of the guest that lead to this host.
TELEGRAM_PORT, MODEL_PORT = 8081, 8082
UNIT = "/sys/fs/cgroup/system.slice/skep.service"
MEMORY, PIDS = 320 << 20, 96
SETTINGS = f"""\
[telegram]
owners = [{OWNER}]
api_url = "http://127.0.0.1:{TELEGRAM_PORT}"

[claude]
upstream = "http://127.0.0.1:{MODEL_PORT}"

[defaults]
memory = "320M"
pids = {PIDS}

[agents.general]
description = "Everyday questions"

[agents.coder]
description = "Writes code"
"""
SLOWLY = "Some words before it comes. " * 12
# What Claude's Bash tool is told to do, by the name the owner asks for.
COMMANDS = {
    "hog": "head -c 1500m /dev/zero | tail | wc -c; echo tail ${PIPESTATUS[1]}",
    "filler": "head -c 250m /dev/zero >/tmp/a; head -c 250m /dev/zero >/dev/shm/b; sleep 300",
    "bomb": "b() { b | b & }; b; sleep 300",
    "sleeper": "echo begun; sleep 301",
    "hider": "for i in $(seq 30); do (trap '' TERM HUP INT; setsid sleep 302) >/dev/null 2>&1 & done; echo hidden",
}
SCENARIO = {
    "rules": [
        # A run that was cut off is not told to do it again.
        {"when": {"typed": "(?s)Note from Skep.*run "}, "times": "always", "reply": {"text": "Taken up again: {{last}}"}},
        {"when": {"tool_result": True}, "times": "always", "reply": {"text": "It said: {{result}}"}},
        {"when": {"typed": "slowly"}, "times": "always",
         "reply": {"content": [{"type": "text", "text": SLOWLY + "pong {{last}}", "delta_ms": 250, "chunk_chars": 8}]}},
        {"when": {"typed": "hello"}, "times": "always", "reply": {"text": "Hello from the cell: {{last}}"}},
        *({"when": {"typed": f"run {name}"}, "times": "always",
           "reply": {"content": [{"type": "tool_use", "name": "Bash", "input": {"description": name, "command": command}}]}}
          for name, command in COMMANDS.items()),
    ],
    "fallback": {"text": "echo: {{last}}"},
}


def http(method, url, body=None, seconds=30):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        text = answer.read().decode()
    try:
        return json.loads(text)
    except ValueError:
        return text


class StandIn:
    def __init__(self, command, directory):
        self.process = subprocess.Popen([sys.executable, *map(str, command)], cwd=directory, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.greeting = json.loads(self.process.stdout.readline())

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=10)


class Phone(StandIn):
    def __init__(self):
        super().__init__(["-m", "fake_telegram", "--stop-with-stdin"], ROOT / "tests/fake-telegram")
        self.control = self.greeting["control_url"]
        self.token = self.greeting["token"]
        self.port = urllib.parse.urlsplit(self.greeting["api_url"]).port
        http("POST", f"{self.control}/users", {"id": OWNER, "first_name": "Owner"})

    def says(self, text):
        http("POST", f"{self.control}/messages", {"from_id": OWNER, "text": text})

    def sees(self, pattern, seconds=120):
        """Waits until a message of the bot matches; returns its text and the seconds it took."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            for text in self.answers():
                if re.search(pattern, text, re.S):
                    return text, time.monotonic() - began
            time.sleep(0.2)
        raise AssertionError(f"the owner does not see {pattern!r} in {seconds} s; last: {self.answers()[-2:]}")

    def answers(self):
        messages = http("GET", f"{self.control}/transcript?chat_id={OWNER}")["messages"]
        return [message.get("text") or "" for message in messages if message["by_bot"]]

    def screen(self):
        return http("GET", f"{self.control}/transcript?chat_id={OWNER}&format=text")


class Model(StandIn):
    def __init__(self, work):
        scenario = work / "scenario.json"
        scenario.write_text(json.dumps(SCENARIO))
        super().__init__(["fake_anthropic.py", "--port", "0", "--scenario", scenario], ROOT / "tests/fake-anthropic")
        self.url = self.greeting["url"]
        self.port = urllib.parse.urlsplit(self.url).port

    def requests(self):
        found = http("GET", f"{self.url}/__fake/requests")
        return found if isinstance(found, list) else found["requests"]


class World:
    def __init__(self, machine, phone, model):
        self.machine, self.phone, self.model = machine, phone, model

    def run(self, command, seconds=60):
        return self.machine.run(command, seconds)

    def read(self, command, seconds=60):
        return self.machine.read(command, seconds)

    def unit(self, *names):
        """Properties of the service."""
        lines = self.read(f"systemctl show skep {' '.join('-p ' + name for name in names)}").splitlines()
        values = dict(line.split("=", 1) for line in lines)
        return values[names[0]] if len(names) == 1 else [values[name] for name in names]

    def wait_active(self, seconds=60):
        self.eventually("the service is active", seconds, lambda: self.run("systemctl is-active skep")[1] == "active")

    def eventually(self, what, seconds, question):
        end = time.monotonic() + seconds
        while True:
            if answer := question():
                return answer
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {what}")
            time.sleep(0.3)

    def daemon(self):
        return int(self.unit("MainPID"))

    def helper(self):
        return int(self.read(f"pgrep -x -P {self.daemon()} skep-sandbox"))

    def overview(self):
        return json.loads(self.read("skep status --json"))

    def cells(self, agent=None):
        """Live cells of the overview, with the cgroup of each."""
        cells = [dict(cell, agent=each["name"]) for each in self.overview()["agents"] for cell in each["cells"]
                 if agent in (None, each["name"])]
        for cell in cells:
            cell["cgroup"] = "/sys/fs/cgroup" + self.read(f"cut -d: -f3 /proc/{cell['pid']}/cgroup")
        return cells

    def cell(self, agent="general"):
        """The one cell of an agent, which may just be starting."""
        return self.eventually(f"one cell of {agent}", 30, lambda: len(found := self.cells(agent)) == 1 and found[0])

    def agents_alive(self):
        """Processes of users that only agents have."""
        return [line.split(None, 2) for line in self.read("ps -eo uid=,pid=,comm=").splitlines()
                if int(line.split()[0]) >= 1_900_000_000]

    def leaves(self):
        return self.read(f"ls -d {UNIT}/cell-* 2>/dev/null || true").split()

    def asks(self, text, pattern, seconds=120):
        self.phone.says(text)
        return self.phone.sees(pattern, seconds)

    def still_serves(self, name, agent=None):
        """A message is answered now."""
        text = f"{'@' + agent + ' ' if agent else ''}hello {name}"
        return self.asks(text, f"Hello from the cell: hello {name}$")[1]

    def journal(self, since=None):
        lines = self.read("journalctl -u skep -o json --no-pager" + (f" --since=@{since}" if since else "")).splitlines()
        return [json.loads(line) for line in lines]

    def clock(self):
        return self.read("date +%s.%N")
