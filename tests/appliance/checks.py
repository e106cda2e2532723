"""What must hold on a real machine, in the order in which it is tried. Each check is told in one line and gives one back."""

import re
import time

from world import KEY, MEMORY, PIDS, SETTINGS, UNIT

CHECKS = []
# CAP_CHOWN, CAP_SETGID, CAP_SETUID
HELPER_CAPABILITIES = 1 << 0 | 1 << 6 | 1 << 7


def check(title):
    def add(function):
        CHECKS.append((title, function))
        return function
    return add


def capabilities(w, pid):
    return {name: int(value, 16) for name, value in re.findall(r"(Cap\w+):\s*(\w+)", w.read(f"cat /proc/{pid}/status"))}


def leaf(w, cell, name):
    return w.read(f"cat {cell['cgroup']}/{name}")


def events(w, cell, file, name):
    return int(dict(line.split() for line in leaf(w, cell, file).splitlines())[name])


# --- The unit as it starts ------------------------------------------------------------------------------------------

@check("systemd starts it and it says READY")
def ready(w):
    w.wait_active()
    status, restarts, began, active = w.unit(
        "StatusText", "NRestarts", "ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    assert status and restarts == "0", (status, restarts)
    return f"in {(int(active) - int(began)) / 1e6:.2f} s; status: {status}"


@check("a credential that is not there is passed over")
def credentials(w):
    shown = w.read("ls /run/credentials/skep.service").split()
    assert shown == ["anthropic-api-key", "telegram-token"], shown
    return ", ".join(shown)


@check("the daemon has no capability, the helper its three")
def no_capabilities(w):
    daemon, helper = capabilities(w, w.daemon()), capabilities(w, w.helper())
    assert [daemon[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0, 0, 0, 0], daemon
    assert helper["CapPrm"] == helper["CapEff"] == helper["CapBnd"] == HELPER_CAPABILITIES, helper
    status = dict(re.findall(r"(Uid|Gid|Groups|NoNewPrivs):\t(.*)", w.read(f"cat /proc/{w.daemon()}/status")))
    assert "0" not in status["Uid"].split() and status["NoNewPrivs"] == "1", status
    # systemd always adds the account's own group.
    assert set(status["Groups"].split()) <= set(status["Gid"].split()), status
    return f"helper {helper['CapEff']:#x}, ambient {helper['CapAmb']:#x}"


@check("it divides the cgroup that systemd delegates")
def delegation(w):
    passed = w.read(f"cat {UNIT}/cgroup.subtree_control").split()
    assert {"cpu", "memory", "pids"} <= set(passed), passed
    members = w.read(f"cat {UNIT}/supervisor/cgroup.procs").split()
    assert {str(w.daemon()), str(w.helper())} <= set(members), members
    assert w.read(f"cat {UNIT}/cgroup.procs") == ""
    return f"passed on: {' '.join(passed)}; daemon and helper in supervisor/"


@check("the tier is what this kernel gives")
def tier(w):
    machine = w.overview()["machine"]
    assert machine["tier"].startswith("T1"), machine
    assert machine["missing"] == [line for line in machine["missing"] if "Landlock" in line], machine["missing"]
    return f"{machine['tier']}; {', '.join(machine['layers'])}"


# --- A conversation ---------------------------------------------------------------------------------------------------

@check("the first message is answered by the real Claude")
def conversation(w):
    text, seconds = w.asks("hello 1", "Hello from the cell: hello 1$", 180)
    again = w.still_serves("2")
    return f"{seconds:.1f} s, the next {again:.1f} s"


@check("a cell is a leaf with the limits that are set")
def limits(w):
    cell = w.cell()
    found = {name: leaf(w, cell, name) for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.weight")}
    assert cell["cgroup"].startswith(f"{UNIT}/cell-"), cell
    assert found["memory.max"] == str(MEMORY) and found["pids.max"] == str(PIDS), found
    return f"{found}; in use {int(leaf(w, cell, 'memory.current')) >> 20} MiB, {leaf(w, cell, 'pids.current')} tasks"


@check("each agent has a host user of its own, and no privilege")
def users(w):
    w.still_serves("3", "coder")
    uids = {}
    for agent in ("general", "coder"):
        members = leaf(w, w.cell(agent), "cgroup.procs").split()
        statuses = [w.read(f"cat /proc/{pid}/status") for pid in members]
        for status in statuses:
            assert re.search(r"CapEff:\s*0+$", status, re.M) and re.search(r"CapBnd:\s*0+$", status, re.M), status
            assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status, status
            assert re.search(r"Groups:\s*$", status, re.M), status
        uids[agent] = {int(re.search(r"Uid:\s*(\d+)", status)[1]) for status in statuses}
    assert all(len(found) == 1 and min(found) >= 1_900_000_000 for found in uids.values()), uids
    assert uids["general"] != uids["coder"], uids
    owners = w.read("stat -c '%u %n' /var/lib/skep/agents/*/workspace").splitlines()
    return f"{ {agent: min(found) for agent, found in uids.items()} }; {owners[0]}"


@check("from a cell neither the network nor a secret is reached")
def walls(w):
    reach = f"exec 3<>/dev/tcp/10.0.2.2/{w.phone.port}"
    assert w.run(f"bash -c '{reach}'", 20)[0] == 0, "the control: the machine itself reaches it"
    code, said = w.run(f"skep exec general -- timeout 10 bash -c '{reach}'")
    assert code != 0 and "unreachable" in said, (code, said)
    code, said = w.run("skep exec general -- bash -c 'cat /run/credentials/*/* /etc/credstore/* /etc/skep/* /var/lib/skep/*.db'")
    assert code != 0 and KEY not in said and w.phone.token not in said, (code, said)
    code, found = w.run(f"skep exec general -- bash -c 'cat /proc/*/environ /proc/*/cmdline | tr \"\\0\" \"\\n\"' | grep -c {KEY}")
    assert found == "0", found
    return "network unreachable, files not there"


# --- Hunger -----------------------------------------------------------------------------------------------------------

@check("a tool that takes too much memory is killed alone")
def hog(w):
    daemon, cell = w.daemon(), w.cell()
    text, seconds = w.asks("run hog", "It said:.*tail 137", 120)
    assert w.daemon() == daemon and events(w, cell, "memory.events", "oom_kill") >= 1
    assert w.cell()["pid"] == cell["pid"], "Claude itself lives on"
    other = w.still_serves("4", "coder")
    return f"killed and told in {seconds:.1f} s; the other agent answers in {other:.1f} s"


@check("Claude killed for memory is told, and the run goes on")
def starved(w):
    daemon, before, since = w.daemon(), w.cell(), w.clock()
    # What fills memory and belongs to no process: the largest process goes, and that is Claude.
    w.phone.says("run filler")
    told, seconds = w.phone.sees("Claude ended unexpectedly|used up the memory", 180)
    _, later = w.phone.sees("Taken up again: .*run filler$")
    how = {line["F_HOW"] for line in w.journal(since) if "F_HOW" in line}
    assert how == {"OutOfMemory"}, how
    assert w.daemon() == daemon and w.run(f"test -e {before['cgroup']}")[0] == 1, "its leaf is gone"
    return f"told after {seconds:.1f} s ({' '.join(told.split())[:80]}), answered {later:.1f} s later; journal: F_HOW=OutOfMemory"


@check("a fork bomb stays inside its cell, and ends with it")
def bomb(w):
    daemon, cell = w.daemon(), w.cell()
    w.phone.says("run bomb")
    # Watched from close by, for the leaf may go at any time: Claude does not live long without a thread to spare.
    watch = (f"cd {cell['cgroup']}; peak=0; end=$((SECONDS + 90)); while [ $SECONDS -lt $end ]; do "
             "read -r now 2>/dev/null <pids.current || break; [ $now -gt $peak ] && peak=$now; "
             "read -r _ max 2>/dev/null <pids.events && [ $max -gt 0 ] && break; done; echo $peak ${max:-0}")
    peak, refused = map(int, w.read(watch, 120).splitlines()[-1].split())
    # The last task may be refused and its cell gone between two looks.
    assert PIDS - 2 <= peak <= PIDS, (peak, refused)
    other = w.still_serves("6", "coder")
    taken_up = w.run(f"test -e {cell['cgroup']}")[0] == 1
    if not taken_up:
        w.phone.says("/stop")
    began = time.monotonic()
    w.eventually("the bomb is over", 60, lambda: w.run(f"test -e {cell['cgroup']}")[0] == 1 or len(w.agents_alive()) < 20)
    over = time.monotonic() - began
    w.eventually("nothing runs", 90, lambda: w.overview()["queue"]["running"] == 0)
    assert w.daemon() == daemon
    back = w.still_serves("7")
    how = "Claude died of it, the run was taken up in a new cell" if taken_up else f"/stop ended it in {over:.1f} s"
    return f"{peak} tasks of {PIDS} and no more; the other agent answers in {other:.1f} s; {how}; answers again in {back:.1f} s"


@check("cgroup.kill ends a cell, and the run goes on in another")
def killed(w):
    daemon, cell = w.daemon(), w.cell()
    w.phone.says("run sleeper")
    w.eventually("the tool runs", 90, lambda: w.run("pgrep -x sleep -a | grep -q 301")[0] == 0)
    count = len(leaf(w, cell, "cgroup.procs").split())
    w.read(f"echo 1 > {cell['cgroup']}/cgroup.kill")
    began = time.monotonic()
    w.eventually("its leaf is gone", 20, lambda: w.run(f"test -e {cell['cgroup']}")[0] == 1)
    gone = time.monotonic() - began
    assert w.run("pgrep -x sleep -a | grep -q 301")[0] == 1
    w.phone.sees("Claude ended unexpectedly|Taken up again: .*run sleeper$")
    _, later = w.phone.sees("Taken up again: .*run sleeper$")
    assert w.daemon() == daemon and w.cell()["cgroup"] != cell["cgroup"]
    return f"{count} processes and the leaf gone in {gone:.1f} s; told, and answered {later:.1f} s later"


@check("a tree that hides and ignores signals ends with its cell")
def tree(w):
    cell = w.cell()
    w.asks("run hider", "It said:.*hidden")
    count = len(leaf(w, cell, "cgroup.procs").split())
    w.phone.says("/new")
    began = time.monotonic()
    w.eventually("its leaf is gone", 30, lambda: w.run(f"test -e {cell['cgroup']}")[0] == 1)
    gone = time.monotonic() - began
    assert w.run("pgrep -x sleep -a | grep -q 302")[0] == 1
    w.still_serves("9")
    return f"{count} processes gone {gone:.1f} s after /new"


# --- The service and its manager ----------------------------------------------------------------------------------------

@check("the journal has the fields of an event")
def journal(w):
    lines = w.journal()
    ended = [line for line in lines if line["MESSAGE"] == "ended"]
    assert ended and all({"F_AGENT", "F_RUN", "F_STATE"} <= set(line) for line in ended), ended[:1]
    assert all(line["_SYSTEMD_UNIT"] == "skep.service" and line["SYSLOG_IDENTIFIER"] == "skep" for line in ended)
    text = w.read("journalctl --no-pager -o cat")
    assert KEY not in text and w.phone.token not in text, "a secret is in the journal"
    fields = sorted({name for line in lines for name in line if name.startswith("F_")})
    found = w.read("journalctl -u skep F_AGENT=coder -o cat --no-pager | sort | uniq -c | sort -rn | head -3")
    assert "ended" in found
    return f"{' '.join(fields)}; also PRIORITY TARGET CODE_FILE; e.g. F_AGENT={ended[0]['F_AGENT']} F_RUN={ended[0]['F_RUN']} F_STATE={ended[0]['F_STATE']}"


def write_settings(w, text):
    w.read(f"cat > /etc/skep/skep.toml <<'EOF'\n{text}EOF")


@check("systemctl reload puts new settings in force; a bad file is told")
def reload(w):
    daemon, since = w.daemon(), w.clock()
    write_settings(w, SETTINGS.replace("320M", "352M"))
    w.read("systemctl reload skep")
    w.eventually("it is reloaded", 20, lambda: any(line["MESSAGE"] == "settings reloaded" for line in w.journal(since)))
    assert w.unit("ActiveState") == "active"
    w.phone.says("/new")
    w.eventually("the old cell is gone", 30, lambda: not w.cells("general"))
    w.still_serves("10")
    assert leaf(w, w.cell(), "memory.max") == str(352 << 20)
    write_settings(w, SETTINGS.replace("pids =", "pidz ="))
    w.read("systemctl reload skep")
    text, _ = w.phone.sees("new settings are not valid")
    assert "pidz" in text, text
    assert any(line["PRIORITY"] == "3" and "not reloaded" in line["MESSAGE"] for line in w.journal(since))
    w.still_serves("11")
    write_settings(w, SETTINGS)
    w.read("systemctl reload skep")
    assert w.daemon() == daemon and w.unit("ActiveState") == "active"
    return "memory.max 352 MiB in the next cell; the owner reads: " + " ".join(text.split())[:110]


@check("wrong settings at start: failed once, not again and again")
def wrong_settings(w):
    write_settings(w, SETTINGS.replace("pids =", "pidz ="))
    assert w.run("systemctl restart skep")[0] != 0
    time.sleep(8)
    state, status, restarts = w.unit("ActiveState", "ExecMainStatus", "NRestarts")
    assert (state, status, restarts) == ("failed", "78", "0"), (state, status, restarts)
    assert "pidz" in w.read("systemctl status skep --no-pager -l || true")
    write_settings(w, SETTINGS)
    w.read("systemctl start skep")
    w.still_serves("12")
    return "exit 78, state failed; systemctl status shows the line"


def begin_slowly(w, name):
    """A run that streams."""
    w.phone.says(f"slowly {name}")
    w.phone.sees("Some words before")
    w.eventually("the run is with Claude", 60, lambda: w.overview()["queue"]["running"] == 1)


def finished_once(w, name, seconds=150):
    text, took = w.phone.sees(f"pong .*slowly {name}$", seconds)
    time.sleep(3)
    ends = [text for text in w.phone.answers() if re.search(f"pong .*slowly {name}$", text, re.S)]
    unmarked = [text for text in ends if "Resumed after" not in text and "Sent again" not in text]
    assert len(unmarked) <= 1, ends
    return took, len(ends), "resumed" if "Resumed after" in text else "finished"


def nothing_left(w):
    left = w.agents_alive()
    assert left == [], left


@check("systemctl restart in the middle of a run")
def restart(w):
    before = w.daemon()
    begin_slowly(w, "r1")
    began = time.monotonic()
    w.read("systemctl restart skep", 90)
    restarted = time.monotonic() - began
    assert w.daemon() != before and w.unit("Result") == "success"
    took, count, how = finished_once(w, "r1")
    return f"restart {restarted:.1f} s, answered {took:.1f} s later, {how}"


def dies(w, name, pid, within):
    """Kills a process in the middle of a run; the service comes back and nothing of the old life is left."""
    before, restarts = w.daemon(), int(w.unit("NRestarts"))
    begin_slowly(w, name)
    cells = [cell["pid"] for cell in w.cells()]
    assert cells
    w.read(f"kill -9 {pid()}")
    w.eventually("systemd sees it", 30, lambda: w.unit("ActiveState") != "active" or w.daemon() not in (0, before))
    w.eventually("no process of an agent is left", 5, lambda: w.daemon() != 0 or not w.agents_alive())
    assert all(w.run(f"test -d /proc/{cell}")[0] == 1 for cell in cells), "old cells"
    began = time.monotonic()
    w.eventually("it is started again", within, lambda: w.run("systemctl is-active skep")[1] == "active" and w.daemon() != before)
    back = time.monotonic() - began
    assert int(w.unit("NRestarts")) == restarts + 1
    took, count, how = finished_once(w, name)
    return f"back after {back:.1f} s, answered {took:.1f} s later, {how}; old cells gone"


@check("kill -9 of the daemon in the middle of a run")
def daemon_dies(w):
    return dies(w, "k1", w.daemon, 30)


@check("kill -9 of the helper in the middle of a run")
def helper_dies(w):
    return dies(w, "k2", w.helper, 60)


@check("the watchdog replaces a daemon that hangs")
def watchdog(w):
    w.still_serves("13")
    before, since, restarts = w.daemon(), w.clock(), int(w.unit("NRestarts"))
    w.read(f"kill -STOP {before}")
    w.phone.says("hello 14")
    began = time.monotonic()
    w.eventually("systemd kills it", 100, lambda: w.daemon() not in (0, before))
    killed = time.monotonic() - began
    assert int(w.unit("NRestarts")) == restarts + 1
    assert "Watchdog timeout" in w.read(f"journalctl -u skep --since=@{since} -o cat --no-pager")
    w.phone.sees("Hello from the cell: .*hello 14$")
    assert w.read("find / -xdev -name 'core*' -size +100k -newermt '-10 minutes' -type f 2>/dev/null || true") == "", "a core dump"
    return f"replaced after {killed:.0f} s, the message is answered {time.monotonic() - began - killed:.1f} s later"


@check("systemctl stop: in order, and nothing is left")
def stop(w):
    w.still_serves("15")
    since, began = w.clock(), time.monotonic()
    w.read("systemctl stop skep", 60)
    took = time.monotonic() - began
    result, status = w.unit("Result", "ExecMainStatus")
    assert (result, status) == ("success", "0"), (result, status)
    nothing_left(w)
    assert w.run(f"test -d {UNIT}")[0] == 1, "the cgroup is gone"
    assert any(line["MESSAGE"] == "stopped" for line in w.journal(since))
    w.phone.says("hello 16")
    w.read("systemctl start skep", 60)
    w.phone.sees("Hello from the cell: .*hello 16$")
    return f"{took:.1f} s; what came meanwhile is answered after the start"


@check("memory at rest")
def memory(w):
    w.read("systemctl restart skep", 60)
    w.wait_active()
    time.sleep(10)
    pss = {}
    for name, pid in (("daemon", w.daemon()), ("helper", w.helper())):
        found = dict(re.findall(r"^(Pss|Pss_Anon):\s*(\d+)", w.read(f"cat /proc/{pid}/smaps_rollup"), re.M))
        pss[name] = f"{int(found['Pss']) / 1024:.1f} MiB (anonymous {int(found['Pss_Anon']) / 1024:.1f})"
    machine = dict(re.findall(r"(MemTotal|MemAvailable):\s*(\d+)", w.read("cat /proc/meminfo")))
    w.still_serves("17")
    with_cell = int(leaf(w, w.cell(), "memory.current")) >> 20
    return (f"daemon {pss['daemon']}, helper {pss['helper']}, a cell after one answer {with_cell} MiB, "
            f"machine {int(machine['MemAvailable']) >> 10} of {int(machine['MemTotal']) >> 10} MiB available")


@check("the unit's exposure as systemd judges it")
def security(w):
    line = w.read("systemd-analyze security skep --no-pager | tail -1")
    score = float(re.search(r"skep.service: ([\d.]+)", line)[1])
    assert score < 6, line
    # The manual pages come with the package.
    doubts = w.read("systemd-analyze verify skep.service 2>&1 | grep -i skep | grep -v "'man " || true")
    assert doubts == "", doubts
    return f"{score}; systemd-analyze verify finds nothing"


# --- The machine ------------------------------------------------------------------------------------------------------

def history(w):
    """The texts of the newest request to the model."""
    return str([r["body"]["messages"] for r in w.model.requests() if "messages" in (r.get("body") or {})][-1])


@check("a reboot keeps the conversation")
def reboot(w):
    w.still_serves("18")
    runs = w.overview()["runs"][0]["id"]
    w.run("systemctl reboot --no-block")
    w.phone.says("hello 19")
    seconds = w.machine.wait_boot()
    w.wait_active(90)
    w.phone.sees("Hello from the cell: .*hello 19$", 180)
    assert "hello 18" in history(w), "the session goes on"
    assert w.overview()["runs"][0]["id"] > runs
    return f"up again after {seconds:.0f} s; the message sent meanwhile is answered in the same session"


@check("a power cut in the middle of a run")
def power_cut(w):
    begin_slowly(w, "p1")
    w.machine.cut_power()
    seconds = w.machine.wait_boot()
    w.wait_active(90)
    took, count, how = finished_once(w, "p1", 240)
    assert w.unit("NRestarts") == "0"
    w.still_serves("20")
    return f"up again after {seconds:.0f} s, answered {took:.0f} s later, {how}"
