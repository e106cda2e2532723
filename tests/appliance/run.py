#!/usr/bin/env python3
"""`make appliance`: Skep as the real systemd service of a real booted machine, tried from an owner's phone.

    tests/appliance/run.py [--only WORD] [--keep] [--binaries DIR]

Prints a table; ends with 1 when a check failed and with 2 when there was no machine to check. The log of a run stays in
.local/appliance/last. --only runs the checks whose function names contain WORD, besides the first; --keep leaves the machine up
until Enter.
"""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import traceback

from checks import CHECKS
from machine import CACHE, ROOT, Machine, MachineError, Tree, install_tools
from world import KEY, MODEL_PORT, SETTINGS, TELEGRAM_PORT, Model, Phone, World

# Everything together; a machine under emulation takes its time.
WHOLE = 40 * 60


def say(text):
    print(f"appliance: {text}", file=sys.stderr, flush=True)


def judge(world, title, function):
    began = time.monotonic()
    try:
        ok, detail = True, function(world)
    except MachineError:
        raise
    except Exception as error:
        ok, detail = False, f"{type(error).__name__}: {error}"
        if not isinstance(error, AssertionError):
            traceback.print_exc()
    if not ok:
        say("the journal before it:\n" + world.run("journalctl -u skep -n 8 --no-pager -o short-precise")[1])
    took = time.monotonic() - began
    say(f"{'ok  ' if ok else 'FAIL'} {title} ({took:.0f} s): {detail}")
    return title, ok, took, detail


def table(results):
    width = max(len(title) for title, *_ in results)
    print()
    for title, ok, took, detail in results:
        print(f"{'ok  ' if ok else 'FAIL'}  {title:{width}}  {took:4.0f} s  {' '.join(str(detail).split())[:400]}")
    failed = sum(not ok for _, ok, *_ in results)
    print(f"\n{len(results) - failed} of {len(results)} hold", flush=True)
    return failed


def prepare(options, work, started):
    """The stand-ins, and a disk that names them."""
    install_tools()
    tree = Tree()
    say(f"root file system: {tree.path}")
    tree.make()
    phone = Phone()
    started.append(phone)
    model = Model(work)
    started.append(model)
    secrets = {"telegram-token": phone.token, "anthropic-api-key": KEY}
    ports = {"telegram": (TELEGRAM_PORT, phone.port), "model": (MODEL_PORT, model.port)}
    tree.install(options.binaries, options.claude, SETTINGS, secrets, ports)
    tree.disk(work / "disk")
    return tree, phone, model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--binaries", type=pathlib.Path, default=ROOT / "target/release")
    parser.add_argument("--claude", type=pathlib.Path,
                        default=pathlib.Path(os.environ.get("SKEP_CLAUDE") or ROOT / ".local/claude/claude"))
    options = parser.parse_args()
    work = CACHE / "last"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    started, results = [], []
    # Whoever ends us early does not want a machine left over.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(MachineError("the whole time is used up")))
    signal.alarm(WHOLE)
    broken = False
    try:
        tree, phone, model = prepare(options, work, started)
        say("booting")
        machine = Machine(tree, work)
        started.append(machine)
        world = World(machine, phone, model)
        kernel = machine.read("uname -r; systemctl --version | head -1; nproc; free -m | sed -n 2p").splitlines()
        say(f"up: {'; '.join(kernel)}")
        chosen = [each for n, each in enumerate(CHECKS)
                  if not options.only or n == 0 or any(word in each[1].__name__ for word in options.only)]
        results = []
        for title, function in chosen:
            results.append(judge(world, title, function))
        if options.keep:
            input("The machine stays up until Enter.")
        (work / "screen.txt").write_text(phone.screen())
        (work / "journal.log").write_text(machine.read("journalctl --no-pager -o short-precise | grep -v test-shell | tail -n 5000"))
    except (MachineError, subprocess.CalledProcessError) as error:
        broken = True
        say(f"the machine is broken: {error}")
    finally:
        for each in reversed(started):
            each.stop()
        (work / "disk").unlink(missing_ok=True)
    failed = table(results) if results else 0
    sys.exit(2 if broken else 1 if failed else 0)


if __name__ == "__main__":
    main()
