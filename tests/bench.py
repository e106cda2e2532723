#!/usr/bin/env python3
"""`make bench`: prints the numbers Skep promises, each with its target and its method, from one run.

Everything runs for real on this machine: the release build, its helper, cells, SQLite on disk. Only Telegram and the
model API are stand-ins on loopback; where Skep alone is measured, so is Claude (tests/bench/stub_claude.py, in a cell).
What takes time is interleaved with its baseline, so that a busy machine disturbs both alike: trust the ratios.

    tests/bench.py [--json FILE] [--only SECTION…] [--quick]
"""

import argparse
import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target" / "release"
# Another build can be named, to compare.
SKEP = pathlib.Path(os.environ.get("SKEP_BENCH_PROGRAM") or RELEASE / "skep")
HELPER = SKEP.resolve().parent / "skep-sandbox"
STUB = ROOT / "tests" / "bench" / "stub_claude.py"
CLAUDE = pathlib.Path(os.environ.get("SKEP_CLAUDE") or ROOT / ".local" / "claude" / "claude")
OWNER = 42
# One message a second and chat is what Telegram allows for long: quicker, and the pacing would be measured.
PACE = 1.1


# ------------------------------------------------------------------------------------------------ stand-ins


class Web:
    """A kept connection to a stand-in."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.prefix = parts.path
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=70)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, verb, path, body=None):
        data = None if body is None else json.dumps(body)
        self.connection.request(verb, self.prefix + path, data, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{verb} {path}: {answer.status} {text[:300]}")
        return json.loads(text)


class StandIn:
    """A server of tests/ in a process of its own, which ends with this one."""

    def __init__(self, serve):
        reads, writes = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            try:
                serve(lambda url: os.write(writes, url.encode()))
            finally:
                os._exit(1)
        os.close(writes)
        self.url = os.read(reads, 200).decode()
        os.close(reads)

    def stop(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Model(StandIn):
    """The model API: echoes at once."""

    def __init__(self):
        def serve(tell):
            sys.path.insert(0, str(ROOT / "tests" / "fake-anthropic"))
            import fake_anthropic
            server = fake_anthropic.make_server({})
            tell(server.url)
            server.serve_forever()
        super().__init__(serve)


class Phone(StandIn):
    """Telegram, and the owners' phones."""

    def __init__(self, owners=(OWNER,)):
        def serve(tell):
            sys.path.insert(0, str(ROOT / "tests" / "fake-telegram"))
            from fake_telegram import server, world
            server = server.Server()
            tell(f"http://127.0.0.1:{server.server_port} {world.DEFAULT_TOKEN}")
            server.serve_forever()
        super().__init__(serve)
        self.url, self.token = self.url.split()
        self.web, self.seen = Web(self.url + "/control"), 0
        for owner in owners:
            self.web.ask("POST", "/users", {"id": owner, "first_name": "Owner"})

    def says(self, text, owner=OWNER):
        """Returns the moment just before."""
        at = time.time()
        self.web.ask("POST", "/messages", {"from_id": owner, "text": text})
        return at

    def sees(self, pattern, owner=OWNER, timeout=60):
        path = f"/wait?chat_id={owner}&text={urllib.parse.quote(pattern)}&timeout={timeout}"
        found = self.web.ask("GET", path)
        if found.get("ok") is False:
            raise RuntimeError(f"no answer like {pattern!r}")

    def new_calls(self):
        """The Bot API calls since this was asked last."""
        calls = self.web.ask("GET", f"/calls?since={self.seen}")
        self.seen += len(calls)
        return calls


def call_with(calls, pattern, methods=("sendMessage", "editMessageText")):
    for call in calls:
        if call["method"] in methods and re.search(pattern, str(call["args"].get("text"))):
            return call
    raise RuntimeError(f"no call with {pattern!r}")


class EchoBot(threading.Thread):
    """The floor: a bot that stores nothing and asks nobody, on kept connections. What remains is the harness."""

    def __init__(self, phone):
        super().__init__(daemon=True)
        self.base, self.url = f"/bot{phone.token}", phone.url

    def run(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.echo(Web(self.url), Web(self.url))

    def echo(self, poll, send):
        offset = 0
        while True:
            for update in poll.ask("POST", self.base + "/getUpdates", {"offset": offset, "timeout": 50})["result"]:
                offset = update["update_id"] + 1
                message = update["message"]
                send.ask("POST", self.base + "/sendMessage",
                         {"chat_id": message["chat"]["id"], "text": "echo " + message["text"]})


class BareClaude:
    """The same CLI with the same flags, with nothing of Skep around it: what of an answer's time is Claude's own."""

    def __init__(self, upstream):
        self.home = tempfile.mkdtemp(prefix="bench-")
        flags = ["-p", "--input-format=stream-json", "--output-format=stream-json", "--verbose", "--strict-mcp-config",
                 "--include-partial-messages", "--permission-prompt-tool=stdio", "--setting-sources=", "--model=sonnet",
                 "--tools=Bash,Read,Edit,Write,Glob,Grep,WebSearch,Agent,TaskStop", "--system-prompt-snapshot=off"]
        environment = {"PATH": "/usr/bin:/bin", "HOME": self.home, "ANTHROPIC_BASE_URL": upstream, "LANG": "C.UTF-8",
                       "ANTHROPIC_API_KEY": "sk-ant-bench", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                       "DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS": "1"}
        self.process = subprocess.Popen([CLAUDE, *flags], cwd=self.home, env=environment, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.write({"type": "control_request", "request_id": "r", "request": {"subtype": "initialize"}})
        self.until("control_response")

    def write(self, frame):
        self.process.stdin.write(json.dumps(frame).encode() + b"\n")
        self.process.stdin.flush()

    def until(self, kind):
        for line in self.process.stdout:
            if json.loads(line)["type"] == kind:
                return
        raise RuntimeError("the bare Claude ended")

    def answers(self, words):
        began = time.perf_counter()
        self.write({"type": "user", "uuid": str(uuid.uuid4()), "parent_tool_use_id": None, "message": {"role": "user", "content": words}})
        self.until("result")
        return time.perf_counter() - began

    def stop(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def cold_bare(upstream):
    began = time.perf_counter()
    bare = BareClaude(upstream)
    bare.answers("first words.")
    taken = time.perf_counter() - began
    bare.stop()
    return taken


# ------------------------------------------------------------------------------------------------ the daemon


class Skep:
    """The release build with a state directory of its own."""

    def __init__(self, phone, program, upstream="http://127.0.0.1:9", owners=(OWNER,), agent_lines=()):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="bench-"))
        self.state, self.phone, self.process = self.dir / "state", phone, None
        (self.state / "credentials").mkdir(parents=True)
        os.chmod(self.dir, 0o755)
        for name, value in (("telegram-token", phone.token), ("anthropic-api-key", "sk-ant-bench")):
            path = self.state / "credentials" / name
            path.write_text(value + "\n")
            path.chmod(0o600)
        owners = ", ".join(map(str, owners))
        agent = "\n".join(agent_lines)
        (self.state / "skep.toml").write_text(
            f'[telegram]\nowners = [{owners}]\napi_url = "{phone.url}"\n\n'
            f'[claude]\nprogram = "{program}"\nupstream = "{upstream}"\n\n'
            f'[agents.general]\ndescription = "Everyday questions"\n{agent}\n\n[status]\nlisten = "127.0.0.1:0"\n')
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(self.dir / "notify"))
        self.ready = threading.Event()
        threading.Thread(target=self.drain, daemon=True).start()
        # In memory: under systemd the log is journald's to write.
        self.log = open(f"/dev/shm/{self.dir.name}.log", "a+")

    def drain(self):
        """Reads what the daemon tells the service manager: a full socket would make it wait."""
        while True:
            try:
                told = self.notify.recv(4096)
            except OSError:
                return
            if b"READY=1" in told:
                self.ready_at = time.perf_counter()
                self.ready.set()

    def start(self):
        """Returns seconds from before the exec to READY=1."""
        # The watchdog as the packaged unit sets it, so that its wake-ups are counted.
        environment = {"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": str(self.dir / "notify"), "WATCHDOG_USEC": "60000000"}
        began = time.perf_counter()
        self.began_at = time.time()
        self.process = subprocess.Popen([SKEP, "--state", self.state, "daemon"], env=environment,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.log)
        if not self.ready.wait(60):
            raise RuntimeError(f"the daemon is not ready:\n{self.tail()}")
        self.ready.clear()
        return self.ready_at - began

    def settle(self):
        """Until the start's own work (the version probe in a cell, the greeting) is over."""
        self.wait_log("Claude Code found")
        time.sleep(1)

    def calm(self):
        """Until threads that only the start needed are gone: they linger for ten seconds."""
        self.settle()
        time.sleep(12)

    def wait_log(self, words):
        for _ in range(600):
            self.log.seek(0)
            if words in self.log.read():
                return
            time.sleep(0.05)
        raise RuntimeError(f"the log never said {words!r}:\n{self.tail()}")

    def tail(self):
        self.log.seek(0)
        return self.log.read()[-3000:]

    def pid(self):
        return self.process.pid

    def helper(self):
        return child_named(self.pid(), "skep-sandbox")

    def stop(self):
        """Ends it; returns the bytes it caused to be written to disk in its whole life."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode, self.process = status, None
        if status != 0:
            raise RuntimeError(f"the daemon ended with status {status}:\n{self.tail()}")
        return usage.ru_oublock * 512

    def drop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.notify.close()
        os.unlink(self.log.name)
        shutil.rmtree(self.dir, ignore_errors=True)

    def ready_for(self, owner=OWNER):
        """A first exchange, so that the cell is warm."""
        self.phone.says("warm up", owner)
        self.phone.sees("warm up", owner)


def child_named(parent, name):
    for pid in children(parent):
        if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == name[:15]:
            return pid
    raise RuntimeError(f"{parent} has no child {name}")


def children(parent):
    found = []
    for task in os.listdir(f"/proc/{parent}/task"):
        found += map(int, pathlib.Path(f"/proc/{parent}/task/{task}/children").read_text().split())
    return found


def memory(pid):
    """PSS, RSS and the part that is not file pages, in KiB."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    value = lambda name: int(re.search(rf"^{name}:\s+(\d+)", text, re.M).group(1))
    return {"pss": value("Pss"), "rss": value("Rss"), "anon": value("Pss_Anon")}


def switches(pid):
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        text = pathlib.Path(f"/proc/{pid}/task/{task}/status").read_text()
        total += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", text)))
    return total


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def written(pid):
    text = pathlib.Path(f"/proc/{pid}/io").read_text()
    return {name: int(value) for name, value in re.findall(r"^(\w+): (\d+)", text, re.M)}


# ------------------------------------------------------------------------------------------------ results


class Report:
    def __init__(self):
        self.rows = []

    def add(self, what, value, unit, target=None, method="", samples=1, note="", most=True):
        """`target`: reached when the value is not above it (`most`)."""
        met = None if target is None else (value <= target if most else value == target)
        row = {"what": what, "value": round(value, 3), "unit": unit, "target": target, "met": met, "samples": samples,
               "method": method, "note": note}
        self.rows.append(row)
        mark = {True: "✓", False: "✗", None: " "}[met]
        sign = "≤" if most else "="
        wanted = "" if target is None else f"  (target {sign} {target:g})"
        print(f"  {mark} {what:<58} {value:>9.2f} {unit}{wanted}{'  ' + note if note else ''}")
        if method:
            print(f"      {method}; n={samples}")
        sys.stdout.flush()

    def title(self, text):
        print(f"\n{text}", flush=True)


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def milliseconds(values):
    return [value * 1000 for value in values]


# ------------------------------------------------------------------------------------------------ sections


def sizes(report, options):
    report.title("Sizes")
    for name, path in (("skep", SKEP), ("skep-sandbox", HELPER)):
        report.add(f"{name}, stripped", path.stat().st_size / 1e6, "MB", None, "size of the release build")
    packages = sorted((ROOT / "target").glob("**/skep_*.deb"))
    if packages:
        report.add(".deb", packages[-1].stat().st_size / 1e6, "MB", 5, str(packages[-1].name))
    else:
        report.title("  (no .deb in target: build the package to see its size)")


def starts(report, options):
    report.title("Start")
    count = 5 if options.quick else 20
    phone = Phone()
    skep = Skep(phone, STUB)
    ready, polled, baseline = [], [], []
    try:
        skep.start()
        skep.stop()
        for _ in range(count):
            began = time.perf_counter()
            subprocess.run([SKEP, "--version"], stdout=subprocess.DEVNULL, check=True)
            baseline.append(time.perf_counter() - began)
            phone.new_calls()
            ready.append(skep.start())
            polls = []
            while not polls:
                time.sleep(0.02)
                polls = [c["at"] for c in phone.new_calls() if c["method"] == "getUpdates"]
            polled.append(polls[0] - skep.began_at)
            skep.stop()
    finally:
        skep.drop()
        phone.stop()
    plain = statistics.median(milliseconds(baseline))
    method = "a state that exists; from before the exec to the datagram on NOTIFY_SOCKET; median"
    value = statistics.median(milliseconds(ready))
    report.add("exec to READY=1", value, "ms", 20, method, count, f"worst {max(ready) * 1000:.1f}")
    report.add("exec to the first getUpdates", statistics.median(milliseconds(polled)), "ms", 20,
               "the same starts; when the request reached Telegram's stand-in; median", count,
               f"worst {max(polled) * 1000:.1f}")
    report.add("  for comparison: `skep --version`, exec to exit", plain, "ms", None,
               "interleaved with the starts: what this machine takes to load and run the program", count)


def idle(report, options):
    """Memory, wake-ups, then exchanges: their calls, their bytes on disk, the growth they leave."""
    report.title("At rest, then 200 exchanges (stub Claude in a cell; one message a second, as Telegram allows)")
    seconds, exchanges, warm = (10, 20, 5) if options.quick else (60, 200, 10)
    phone = Phone()
    skep = Skep(phone, STUB)
    try:
        skep.start()
        skep.calm()
        pid, helper = skep.pid(), skep.helper()
        marks = {p: (switches(p), cpu_seconds(p)) for p in (pid, helper)}
        time.sleep(seconds)
        woken = {p: ((switches(p) - marks[p][0]) / seconds, cpu_seconds(p) - marks[p][1]) for p in (pid, helper)}
        at_rest, of_helper = memory(pid), memory(helper)
        threads = len(os.listdir(f"/proc/{pid}/task"))
        method = f"/proc/PID/smaps_rollup after {seconds} s of polling, status page on, no cell"
        report.add("daemon at rest, PSS", at_rest["pss"] / 1024, "MiB", 8, method, 1,
                   f"RSS {at_rest['rss'] / 1024:.2f}, of it memory of its own {at_rest['anon'] / 1024:.2f}")
        report.add("helper at rest, PSS", of_helper["pss"] / 1024, "MiB", 1, "the same for its one other process", 1,
                   f"RSS {of_helper['rss'] / 1024:.2f}")
        method = f"context switches of all threads over {seconds} s, watchdog as in the unit"
        report.add("daemon at rest, wake-ups per second", woken[pid][0], "/s", 1, method, seconds)
        report.add("daemon at rest, CPU", woken[pid][1] / seconds * 100, "%", 0.01, "utime + stime over the same time")
        report.add("helper at rest, wake-ups per second", woken[helper][0], "/s", 1, method, seconds)
        report.add("daemon at rest, threads", threads, "", None, "/proc/PID/task")

        def exchange(n):
            phone.says(f"message {n}")
            phone.sees(f"message {n} ")
            time.sleep(PACE)

        for n in range(warm):
            exchange(n)
        first, io = memory(pid), written(pid)
        phone.new_calls()
        for n in range(warm, warm + exchanges):
            exchange(n)
        last, io_after = memory(pid), written(pid)
        made = [c["method"] for c in phone.new_calls() if c["method"] != "getUpdates"]
        report.add("Bot API calls for one short answer", len(made) / exchanges, "", 2,
                   "all calls but getUpdates, divided by the exchanges", exchanges,
                   ", ".join(f"{m} {made.count(m) / exchanges:g}" for m in sorted(set(made))))
        report.add("daemon with one warm cell, PSS", first["pss"] / 1024, "MiB", 8, f"after {warm} exchanges", 1)
        report.add(f"growth over {exchanges} exchanges, PSS", (last["pss"] - first["pss"]) / 1024, "MiB", 0.5,
                   f"against the state after {warm} warm-up exchanges", exchanges,
                   f"own memory {(last['anon'] - first['anon']) / 1024:+.2f}")
        whole_life = skep.stop()
        checkpoint = checkpoint_bytes(skep.state / "skep.db")
        bytes_each = (whole_life - io["write_bytes"] + checkpoint) / exchanges
        report.add("written to disk per message", bytes_each / 1024, "KiB", 16,
                   "write_bytes of the daemon from the first to its exit, and of a last checkpoint of the log; "
                   "no log file", exchanges,
                   f"before the checkpoint {(io_after['write_bytes'] - io['write_bytes']) / exchanges / 1024:.1f}")
        report.add("  of it: what Skep itself writes", (io_after["wchar"] - io["wchar"]) / exchanges / 1024, "KiB", None,
                   "wchar: the bytes of its write calls, pipes and log lines included. The disk is charged in blocks "
                   "of 4 KiB, and each of the 6 commits ends in one", exchanges)
    except Exception:
        print(skep.tail())
        raise
    finally:
        skep.drop()
        phone.stop()


def checkpoint_bytes(path):
    before = written(os.getpid())["write_bytes"]
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    return written(os.getpid())["write_bytes"] - before


def latency(report, options):
    report.title("From the phone and back (in every round each of these, one after the other)")
    rounds = 10 if options.quick else 60
    cold_owners = list(range(100, 103 if options.quick else 110))
    echo_phone, stub_phone, real_phone = Phone(), Phone(), Phone([OWNER, *cold_owners])
    model = Model()
    stub = Skep(stub_phone, STUB)
    real = Skep(real_phone, CLAUDE, model.url, [OWNER, *cold_owners], ['idle = "20s"'])
    EchoBot(echo_phone).start()
    have_real = CLAUDE.is_file()
    seen = {"echo": [], "stub": [], "real": [], "bare": [], "stdin": [], "out": [], "sync": []}
    cold, cold_alone = [], []
    try:
        stub.start()
        stub.settle()
        stub.ready_for()
        if have_real:
            real.start()
            real.settle()
            real.ready_for()
            bare = BareClaude(model.url)
            bare.answers("warm up")
        time.sleep(4)
        file = open(stub.dir / "sync", "wb+")
        for n in range(rounds):
            began = time.perf_counter()
            words = f"round {n}."
            pattern = f"round {n}\\."
            seen["echo"].append(answered(echo_phone, words, pattern)[0])
            taken, call, at = answered(stub_phone, words, pattern)
            seen["stub"].append(taken)
            read, wrote = map(float, re.search(r"in=(\S+) out=(\S+)", call["args"]["text"]).groups())
            seen["stdin"].append(read - at)
            seen["out"].append(call["at"] - wrote)
            # Whoever comes second finds the program warm in the caches: by turns.
            for which in (("real", "bare") if n % 2 else ("bare", "real")) if have_real else ():
                seen[which].append(bare.answers(words) if which == "bare" else answered(real_phone, words, pattern)[0])
            mark = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            seen["sync"].append(time.perf_counter() - mark)
            time.sleep(max(0.0, PACE - (time.perf_counter() - began)))
        if have_real:
            bare.stop()
        for owner in cold_owners if have_real else []:
            if owner % 2:
                cold_alone.append(cold_bare(model.url))
                time.sleep(0.5)
            cold.append(answered(real_phone, "first words.", "first words", owner)[0])
            time.sleep(0.5)
            if owner % 2 == 0:
                cold_alone.append(cold_bare(model.url))
                time.sleep(0.5)
    except Exception:
        print(stub.tail(), real.tail())
        raise
    finally:
        stub.drop()
        real.drop()
        for each in (echo_phone, stub_phone, real_phone, model):
            each.stop()
    ms = {name: milliseconds(values) for name, values in seen.items()}
    floor = statistics.median(ms["echo"])
    method = "from before the owner's message is given to Telegram's stand-in until it takes the answer; median"

    def add(what, values, target, how, ratio=True):
        value = statistics.median(values)
        note = f"p99 {quantile(values, 0.99):.2f}"
        if ratio:
            note += f", {value / floor:.1f}× the floor"
        report.add(what, value, "ms", target, how, len(values), note)

    add("floor: a bot that echoes and stores nothing", ms["echo"], None, method, False)
    add("stub Claude, warm: message → answer", ms["stub"], 7, method + "; everything committed")
    add("  of it: message → Claude's stdin", ms["stdin"], None, "the moment the stub read the line")
    add("  of it: Claude's last line → Bot API request", ms["out"], None,
        "the end of the run and the row being sent are committed between")
    if have_real:
        add("real Claude, warm: message → answer", ms["real"], 20, method + "; model API stand-in answers at once")
        add("  of it: what the CLI takes by itself", ms["bare"], None, "the same CLI, flags and model, run bare", False)
        own = [whole - alone for whole, alone in zip(ms["real"], ms["bare"])]
        add("  of it: what Skep adds, Telegram's stand-in included", own, None, "median of the differences", False)
        cold, cold_alone = milliseconds(cold), milliseconds(cold_alone)
        add("real Claude, first turn in a cold cell", cold, 450, method, False)
        add("  of it: what the CLI takes by itself", cold_alone, None, "bare, from its start to its answer", False)
        own = [whole - alone for whole, alone in zip(cold, cold_alone)]
        add("  of it: what Skep adds, its cell included", own, None, "median of the differences", False)
    else:
        report.title(f"  (no {CLAUDE}: the real Claude is not measured)")
    add("for comparison: one 4 KiB write + fdatasync here", ms["sync"], None, "in every round, on the same disk", False)


def answered(phone, words, pattern, owner=OWNER):
    """Says something and waits for the answer. Returns seconds until the answering call, the call, and the start."""
    phone.new_calls()
    at = phone.says(words, owner)
    phone.sees(pattern, owner)
    call = call_with(phone.new_calls(), pattern)
    return call["at"] - at, call, at


def streaming(report, options):
    report.title("Streaming")
    owners = list(range(200, 202 if options.quick else 208))
    pieces, pause = 9, 3.2
    phone = Phone(owners)
    skep = Skep(phone, STUB, owners=owners)
    try:
        skep.start()
        skep.settle()
        for owner in owners:
            skep.ready_for(owner)
        time.sleep(3)
        phone.new_calls()
        for owner in owners:
            phone.says(f"stream {pieces} {pause}", owner)
            # Staggered: two never come at once, because what is wanted is the delay of one.
            time.sleep(pause / len(owners))
        for owner in owners:
            phone.sees(f"stream {pieces} in=", owner)
        delays = []
        for call in phone.new_calls():
            if call["method"] == "editMessageText" and "in=" not in call["args"]["text"]:
                delays.append(call["at"] - float(call["args"]["text"].strip().rsplit("out=", 1)[1]))
    except Exception:
        print(skep.tail())
        raise
    finally:
        skep.drop()
        phone.stop()
    delays = milliseconds(delays)
    report.add("Claude's stdout → Bot API request, not paced, p99", quantile(delays, 0.99), "ms", 5,
               f"{len(owners)} chats, a piece of text every {pause} s (an edit is due after 2, later 3): from the stub's write to "
               "the edit reaching the stand-in", len(delays), f"median {statistics.median(delays):.2f}")


TREE = """
import os, signal, sys, time
for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(name, signal.SIG_IGN)
for _ in range(200):
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
os.write(1, b"ready\\n")
time.sleep(600)
"""


def cells(report, options):
    report.title("Cells")
    bench = RELEASE / "examples" / "launch_bench"
    if bench.is_file():
        rounds = 30 if options.quick else 200
        text = subprocess.run([bench, HELPER, str(rounds)], capture_output=True, text=True, check=True).stdout
        ratio = lambda line: [float(x) for x in re.search(line + r".*?([\d.]+) ms\s+([\d.]+)", text).groups()]
        plain = ratio("plain fork")[0]
        method = "sandbox/examples/launch_bench.rs: fork+exec+wait of /usr/bin/true, interleaved; ratio of medians"
        running, ended, gone = (ratio(f"cell, until {what}") for what in ("it executes", "its end is known", "nothing"))
        report.add("cell launch over plain fork+exec", ended[1], "×", 3.5, method + "; until its end is known", rounds,
                   f"{ended[0]:.2f} ms against {plain:.2f}; executing {running[1]:.2f}×, cleaned up {gone[1]:.2f}×")
        other = re.search(r"bwrap.*?([\d.]+) ms\s+([\d.]+)", text)
        if other:
            report.add("  for comparison: bubblewrap over plain", float(other.group(2)), "×", None,
                       "the same rounds; bwrap adds no seccomp filter, Landlock or limits of its own", rounds)
            report.add("cell over bubblewrap", ended[0] / float(other.group(1)), "×", None, "the same rounds", rounds)
        more = re.search(r"per live cell.*?(\d+) KiB", text)
        report.add("memory per live cell besides Claude", int(more.group(1)) / 1024, "MiB", 0.5,
                   "PSS of one more process and the helper's growth, 8 cells", 8)
    else:
        report.title("  (no launch_bench: cargo build --release --examples -p skep-sandbox)")
    kills(report, options)


def kills(report, options):
    count = 3 if options.quick else 10
    phone = Phone()
    skep = Skep(phone, STUB, agent_lines=["pids = 512"])
    taken = []
    try:
        skep.start()
        skep.settle()
        helper = skep.helper()
        for _ in range(count):
            before = set(children(helper))
            client = subprocess.Popen(
                [SKEP, "--state", skep.state, "exec", "general", "--", "/usr/bin/python3", "-S", "-c", TREE],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            if client.stdout.readline() != b"ready\n":
                raise RuntimeError("the tree did not grow")
            (cell,) = set(children(helper)) - before
            size = len(descendants(cell))
            descriptor = os.pidfd_open(cell)
            watch = select.poll()
            watch.register(descriptor, select.POLLIN)
            began = time.perf_counter()
            client.kill()
            if not watch.poll(10000):
                raise RuntimeError("the tree lives on")
            taken.append(time.perf_counter() - began)
            client.wait()
            os.close(descriptor)
    except Exception:
        print(skep.tail())
        raise
    finally:
        skep.drop()
        phone.stop()
    taken = milliseconds(taken)
    report.add("kill of a hostile 200-process tree", statistics.median(taken), "ms", 50,
               f"`skep exec` of {size} processes in sessions of their own that ignore signals; from SIGKILL of the client "
               "until the last has gone; median", count, f"worst {max(taken):.1f}")


def descendants(root):
    everything = [root]
    for pid in everything:
        try:
            everything += children(pid)
        except OSError:
            continue
    return everything


SECTIONS = {"sizes": sizes, "starts": starts, "cells": cells, "latency": latency, "streaming": streaming, "idle": idle}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="also write the numbers here")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="few samples: to see that it works")
    options = parser.parse_args()
    if not SKEP.is_file() or not HELPER.is_file():
        sys.exit("no release build: cargo build --release")
    report = Report()
    uname = os.uname()
    print(f"Skep's numbers · {uname.sysname} {uname.release} {uname.machine}, {os.cpu_count()} CPUs, load "
          f"{os.getloadavg()[0]:.1f}")
    for name in options.only:
        SECTIONS[name](report, options)
    missed = [row["what"] for row in report.rows if row["met"] is False]
    reached = sum(row["met"] is True for row in report.rows)
    print(f"\n{reached} targets reached, {len(missed)} missed" + "".join(f"\n  ✗ {what}" for what in missed))
    if options.json:
        machine = {"kernel": uname.release, "architecture": uname.machine, "cpus": os.cpu_count()}
        pathlib.Path(options.json).write_text(json.dumps({"machine": machine, "numbers": report.rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
